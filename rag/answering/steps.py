"""The steps of the chain, and the data between them; a step returns only what it adds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from prompts import Message, PromptTemplate
from rag.answering.claim_repair import Written, faults_in, repaired
from rag.answering.condense import LONGEST_REWRITE, carry_topic, is_rewrite, shortened
from rag.answering.grounding import ground, moved, with_citations
from rag.answering.missed_answer import SURE, misses_answer, page_named_in, quotation_of
from rag.answering.release import Release
from rag.encoders.encoder import Encoder
from rag.errors import ModelProtocolError, NoAnswer, prompt_errors
from rag.models.extractive.evidence import Evidence, EvidencePassage
from rag.models.extractive.evidence_lines import MARK, EvidenceLine, evidence_lines
from rag.models.fencing import above, beside, quoted
from rag.models.replies import ModelInput, Reply, reply_to
from rag.models.reply_endings import check_whole
from rag.models.structured_output import NotTheSchema, claims_of, parse, repair_messages
from rag.retrieval.retriever import Retriever
from rag.types import Answer, Ask, Dropped, Filters, Hit, Passage, Replaced, Turn, Usage

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.runnables import RunnableConfig

    from rag.models.extractive.sentence_ranking import Ranking

# Maximum turns in the condense prompt.
HISTORY = 6


@dataclass(frozen=True, slots=True)
class Condensed:
    """The question for the search."""

    standalone: str


@dataclass(frozen=True, slots=True)
class Search:
    """What to search for, and among which passages; without filters, among all."""

    standalone: str
    filters: Filters | None = None


@dataclass(frozen=True, slots=True)
class Retrieval:
    """The passages that a search found, best first, and some that it left out."""

    hits: tuple[Hit, ...]
    dropped: tuple[Dropped, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """The sentences that answer, for a prompt that is given sentences and not passages.

    Attributes:
        hits: The passages that fit the token budget, which were read; traces have them in the next step.
        lines: The sentences.
        confidence: Probability that one of them answers the question, 0 to 1.
    """

    hits: tuple[Hit, ...] = field(repr=False)
    lines: tuple[EvidenceLine, ...]
    confidence: float


@dataclass(frozen=True, slots=True)
class PromptInput:
    """The values of the template.

    Attributes:
        reading: What was read in the passages; None if the prompt is given passages.
    """

    standalone: str
    hits: tuple[Hit, ...]
    reading: Reading | None = None

    @property
    def lines(self) -> tuple[EvidenceLine, ...]:
        """The sentences that answer; empty if the prompt is given passages."""
        return self.reading.lines if self.reading else ()


@dataclass(frozen=True, slots=True)
class FilledPrompt:
    """A filled template.

    Attributes:
        prompt_sha256: Hash of the template's content; the trace has its name and version beside it.
        hits: The passages that fit the token budget, in the order of their markers.
        confidence: Probability that the prompt contains the answer, 0 to 1; None if unknown.
        template, variables: What the messages were made of; empty where a message was written as it is.
    """

    prompt_sha256: str
    messages: tuple[BaseMessage, ...]
    hits: tuple[Hit, ...] = ()
    evidence: Evidence | None = field(default=None, repr=False)
    confidence: float | None = None
    template: tuple[Message, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def model_input(self) -> ModelInput:
        """The part that a model reads."""
        return ModelInput(self.messages, self.evidence, self.confidence)


@dataclass(frozen=True, slots=True)
class Draft:
    """An unchecked answer.

    Attributes:
        lines: The sentences that the model wrote from; empty if it read the passages.
    """

    standalone: str
    hits: tuple[Hit, ...]
    reply: Reply
    lines: tuple[EvidenceLine, ...] = ()


@dataclass(frozen=True)
class Steps:
    """The parts of a release, ready to run.

    Attributes:
        model: The model that writes the answer.
        ranking: Finds the sentences that answer, for an answer prompt with the variable ``evidence``; else None.
        min_confidence: Minimum probability of these sentences; below it, the answer is a refusal.
        condenser: The model that rewrites follow-ups; None to add topic words instead.
        answer_prompt, condense_prompt: The prompts of these models.
        repair_prompt: The prompt for an answer that does not match the JSON schema.
        unsupported: Settings that the model does not support, which the answer reports.
    """

    release: Release
    retriever: Retriever
    encoder: Encoder
    model: BaseChatModel
    condenser: BaseChatModel | None
    answer_prompt: PromptTemplate
    condense_prompt: PromptTemplate
    repair_prompt: PromptTemplate
    ranking: Ranking | None = None
    min_confidence: float = 0.0
    unsupported: tuple[str, ...] = ()

    async def condense(self, ask: Ask, config: RunnableConfig) -> Condensed:
        """Rewrite a follow-up as a standalone question."""
        # Additions must not make a question too long for the search.
        limit = self.retriever.question_chars
        if not ask.history:
            return Condensed(ask.question)
        standalone = await self._rewritten(ask, config) or carry_topic(ask.question, ask.history)
        return Condensed(standalone[:limit])

    async def _rewritten(self, ask: Ask, config: RunnableConfig) -> str:
        """Return what the model makes of a follow-up; empty without a model, or if it is not to be used."""
        small = bool(self.release.condenser)
        if self.condenser is None or (small and len(ask.question) > LONGEST_REWRITE):
            return ""
        turns = ask.history[-HISTORY:]
        if small:
            turns = shortened(turns)
        messages = condense_messages(self.condense_prompt, turns, ask.question)
        try:
            reply = await reply_to(self.condenser, ModelInput(tuple(messages)), config)
        except NoAnswer:
            # The question may be answered all the same.
            return ""
        text = reply.text.strip()
        return "" if small and (reply.truncated or not is_rewrite(text, ask.question, turns)) else text

    async def retrieve(self, search: Search, config: RunnableConfig) -> Retrieval:
        """Search for passages."""
        filters = search.filters
        options = None if filters is None else replace(self.retriever.options(), filters=filters)
        found = await asyncio.to_thread(self.retriever.find, search.standalone, options)
        return Retrieval(found.hits, found.dropped)

    async def read(self, given: PromptInput, config: RunnableConfig) -> Reading:
        """Find the sentences that answer, for a prompt that is given sentences; needs ``ranking``."""
        if self.ranking is None:
            raise ValueError("the prompt is given passages")
        return await asyncio.to_thread(self._read, self.ranking, given)

    def _read(self, ranking: Ranking, given: PromptInput) -> Reading:
        kept = self._within_budget(given.hits)
        ranked = ranking.rank(self._evidence(given.standalone, kept))
        lines = evidence_lines(ranking.choose(ranked)) if ranked else ()
        return Reading(kept, lines, ranking.confidence(ranked))

    async def prompt(self, given: PromptInput, config: RunnableConfig) -> FilledPrompt:
        """Fill the template with the passages that fit the token budget; the question is never truncated."""
        read = given.reading
        kept = read.hits if read else await asyncio.to_thread(self._within_budget, given.hits)
        titles = {number: hit.passage.title for number, hit in enumerate(kept, 1)}
        values = self._values(
            beside(given.standalone),
            [(above(place_of(hit.passage)), quoted(hit.passage.text)) for hit in kept],
            [(line.number, above(titles[line.number]), beside(line.text)) for line in given.lines],
        )
        evidence = self._evidence(given.standalone, kept)
        return FilledPrompt(
            self.answer_prompt.sha256,
            tuple(_messages(self.answer_prompt, values)),
            kept,
            evidence,
            read.confidence if read else None,
            self.answer_prompt.messages,
            values,
        )

    def _evidence(self, question: str, hits: Sequence[Hit]) -> Evidence:
        passages = tuple(
            EvidencePassage(number, hit.passage.text, hit.passage.title, hit.passage.headings, hit.dense_score)
            for number, hit in enumerate(hits, 1)
        )
        return Evidence(question, passages, self.refusal)

    def _values(
        self, question: str, passages: Sequence[tuple[str, str]], lines: Sequence[tuple[int, str, str]]
    ) -> dict[str, str]:
        """Return the values of the variables of the answer prompt.

        Args:
            question: The standalone question.
            passages: Places and texts of the passages, in the order of their markers.
            lines: Number, title and text of the sentences that answer.
        """
        values = {"question": question, "refusal": self.refusal}
        wanted = set(self.answer_prompt.variables)
        if "evidence" in wanted:
            values["evidence"] = "\n".join(
                _fragment(
                    self.answer_prompt, "evidence", {"number": str(number), "title": title, "text": text}
                ).strip()
                for number, title, text in lines
            )
        if "passages" in wanted or "evidence" not in wanted:
            values["passages"] = "\n".join(
                _fragment(self.answer_prompt, "passage", {"number": str(number), "place": place, "text": text})
                for number, (place, text) in enumerate(passages, 1)
            )
        return values

    async def generate(self, prompt: ModelInput, config: RunnableConfig) -> Reply:
        """Generate the answer."""
        if prompt.evidence is None or not prompt.evidence.passages:
            return Reply(self.refusal, Usage(0, 0))
        if prompt.confidence is not None and prompt.confidence < self.min_confidence:
            return Reply(self.refusal, Usage(0, 0), prompt.confidence)
        reply = await reply_to(self.model, prompt, config)
        if prompt.confidence is not None:
            reply = replace(reply, confidence=prompt.confidence)
        return reply if self._schema is None else await self._fitting(reply, prompt, config)

    async def _fitting(self, reply: Reply, prompt: ModelInput, config: RunnableConfig) -> Reply:
        """Return a reply that matches the schema, asking a second time if needed; a refusal need not match."""
        try:
            await self._parsed(reply.text)
        except NotTheSchema as first:
            if _is_refusal(reply.text, self.refusal):
                return reply
            if reply.filtered:
                check_whole(reply.ending, "its JSON was complete")
            messages = repair_messages(
                prompt.messages, reply.text, first.reason, self.repair_prompt, self._schema or {}
            )
            repaired = await reply_to(self.model, ModelInput(tuple(messages)), config)
            try:
                await self._parsed(repaired.text)
            except NotTheSchema as second:
                raise ModelProtocolError(
                    f"The model's answers do not match the JSON schema: {second.reason}.",
                    fix="Describe the JSON in the prompt, or choose another model.",
                ) from second
            return replace(repaired, usage=reply.usage + repaired.usage)
        return reply

    async def _parsed(self, text: str) -> object:
        # Validation may take long.
        return await asyncio.to_thread(parse, text, self._schema or {})

    @property
    def _schema(self) -> dict[str, Any] | None:
        # A model without JSON support is not asked for JSON.
        return None if "decoding.json_schema" in self.unsupported else self.release.decoding.json_schema

    async def ground(self, draft: Draft, config: RunnableConfig) -> Answer:
        """Check citations and claims.

        A written sentence with a fault becomes a quotation, and an answer without support a refusal.

        Raises:
            NoAnswer: The reply ended early, and nothing in it is supported.
        """
        reply = draft.reply
        answer = Answer(
            text=self.refusal,
            status="abstained",
            hits=draft.hits,
            standalone=draft.standalone,
            usage=reply.usage,
            prompt=self.release.prompt,
            release=self.release.name,
            model=self.release.model,
            unsupported=self.unsupported,
        )
        replaced: tuple[Replaced, ...] = ()
        written = reply.text
        if draft.lines and not reply.quotes and self._schema is None:
            written, replaced = self._with_answer(draft)
        if _is_refusal(written, self.refusal):
            return replace(answer, support=reply.confidence)
        claimed = written if self._schema is None else claims_of(await self._parsed(written))
        least = self.release.grounding.min_support
        checked = await asyncio.to_thread(ground, claimed, draft.hits, self.encoder, least)
        if not reply.quotes and not replaced and (draft.lines or checked.best >= least):
            claims_given = Written(
                checked.text, draft.hits, draft.standalone, draft.lines, self.release.answer.style
            )
            # A model that reads whole passages may say in its own words what no single sentence says.
            if self._schema or not draft.lines:
                replaced = await asyncio.to_thread(faults_in, claims_given)
            else:
                text, replaced = await asyncio.to_thread(repaired, claims_given)
                if text != checked.text:
                    checked = await asyncio.to_thread(ground, text, draft.hits, self.encoder, least)
        if checked.best < least:
            check_whole(reply.ending)
            return replace(answer, support=checked.support, replaced=replaced)
        estimates = [value for value in (checked.support, reply.confidence) if value is not None]
        where = self.release.answer.citations
        if self._schema:
            # JSON stays unchanged, and its texts have no offsets in it because of escapes.
            text = reply.text.strip()
            claims = tuple(replace(claim, start=None, end=None) for claim in checked.claims)
        else:
            text = with_citations(checked.text, where)
            claims = moved(checked.claims, checked.text, where)
        return replace(
            answer,
            text=text,
            status="answered",
            citations=checked.citations,
            claims=claims,
            support=min(estimates, default=None),
            # The offsets refer to the reply, and become invalid when a marker is removed.
            spans=reply.spans if text == reply.text else (),
            cut=reply.truncated,
            filtered=reply.filtered,
            replaced=replaced,
        )

    def _with_answer(self, draft: Draft) -> tuple[str, tuple[Replaced, ...]]:
        """Return the reply, or a quotation if it lacks what the reader found."""
        text, lines = draft.reply.text, draft.lines
        quotation = quotation_of(lines, draft.hits, self.release.answer.style)
        if _is_refusal(text, self.refusal):
            if (draft.reply.confidence or 0.0) < SURE or not quotation:
                return text, ()
            return quotation, (Replaced(text, "refusal", (), quotation),)
        if quotation and misses_answer(text, lines):
            words = tuple(line.marked for line in lines if line.best and line.marked)
            named = f"{quotation}{page_named_in(text, lines, draft.hits)}"
            return named, (Replaced(text, "answer", words, quotation),)
        # Marks of the evidence that the model has copied.
        return text.replace(MARK, ""), ()

    @property
    def refusal(self) -> str:
        """The sentence for questions that the documents do not answer."""
        return _fragment(self.answer_prompt, "refusal", {}).strip()

    def _within_budget(self, hits: Sequence[Hit]) -> tuple[Hit, ...]:
        # Counted as in the prompt, because the fence adds a token or two per line.
        counts = self.encoder.tokens.count([quoted(hit.passage.text) for hit in hits])
        kept: list[Hit] = []
        left = self.release.decoding.context_tokens
        for hit, count in zip(hits, counts, strict=True):
            if count > left:
                break
            kept.append(hit)
            left -= count
        if hits and not kept:
            # Even the best passage is too long, so it is truncated.
            kept.append(replace(hits[0], passage=self._shortened(hits[0].passage, left)))
        return tuple(kept)

    def _shortened(self, passage: Passage, budget: int) -> Passage:
        starts = self.encoder.tokens.starts(passage.text)
        kept = min(budget, len(starts))
        while True:
            text = passage.text[: starts[kept]].rstrip() if kept < len(starts) else passage.text
            (count,) = self.encoder.tokens.count([quoted(text)])
            if count <= budget or not kept:
                return replace(passage, text=text, end=passage.start + len(text))
            # Reduced in proportion, because the cost of the fence depends on the lines.
            kept = min(kept - 1, kept * budget // count)


def condense_messages(prompt: PromptTemplate, history: Sequence[Turn], question: str) -> list[BaseMessage]:
    """Fill the condense prompt.

    Raises:
        PromptError: The prompt has other variables or fragments.
    """
    turns = [
        _fragment(prompt, "turn", {"question": beside(turn.question), "answer": beside(turn.answer)})
        for turn in history
    ]
    return _messages(prompt, {"history": "\n".join(turns), "question": beside(question)})


def place_of(passage: Passage) -> str:
    """Return title, headings and page of a passage for display."""
    parts = list(dict.fromkeys(part for part in (passage.title, *passage.headings) if part))
    if passage.page is not None:
        parts.append(f"page {passage.page}")
    return " › ".join(parts)


def _messages(prompt: PromptTemplate, values: dict[str, str]) -> list[BaseMessage]:
    fix = (
        "An answer prompt has the variables question, refusal, and passages or evidence; "
        "a condense prompt history and question."
    )
    with prompt_errors(fix):
        return [_as_langchain(message) for message in prompt.render(values)]


def _fragment(prompt: PromptTemplate, name: str, values: dict[str, str]) -> str:
    shipped = {"turn": "condense", "evidence": "answer-from-evidence"}.get(name, "answer")
    fix = (
        f"Correct its fragments with `ragsmith prompts edit {prompt.name}`; "
        f"`ragsmith prompts show {shipped}@1` has the shipped ones."
    )
    with prompt_errors(fix):
        return prompt.fragment(name, values)


def _as_langchain(message: Message) -> BaseMessage:
    kinds: dict[str, type[BaseMessage]] = {
        "system": SystemMessage,
        "user": HumanMessage,
        "assistant": AIMessage,
    }
    return kinds[message.role](content=message.content)


def _is_refusal(text: str, refusal: str) -> bool:
    plain = text.strip().strip("\"'*").casefold()
    return not plain or plain.startswith(refusal.strip().rstrip(".!。").casefold())
