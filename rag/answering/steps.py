"""The steps of the chain: what each arrow in ``rag.answering.chain`` does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage

from prompts import Message, PromptTemplate, PromptTemplateError
from rag.answering.chain import Draft
from rag.answering.condense import carry_topic
from rag.answering.grounding import ground, moved, with_citations
from rag.answering.release import Release
from rag.encoders.encoder import Encoder
from rag.errors import ModelProtocolError, PromptError
from rag.models.extractive.evidence import Evidence, EvidencePassage
from rag.models.fencing import above, beside, quoted
from rag.models.replies import reply_of, unread_of, usage_of, was_cut
from rag.models.structured_output import NotTheSchema, claims_of, parse, repair_messages
from rag.retrieval.retriever import Retriever
from rag.types import Answer, Hit, Passage, Usage, whole

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.runnables import RunnableConfig

# Turns of a conversation that the condense prompt shows.
HISTORY = 6


@dataclass(frozen=True)
class Steps:
    """The parts of one release, ready to run.

    Attributes:
        model: Writes the answer.
        condenser: Rewrites follow-ups; None where no model can, and topic words are carried over instead.
        answer, condense_prompt: The prompts of the two.
        repair_prompt: Asks again where an answer does not fit the JSON schema.
        unsupported: Settings that the model does not honour, for the answer to say.
    """

    release: Release
    retriever: Retriever
    encoder: Encoder
    model: BaseChatModel
    condenser: BaseChatModel | None
    answer_prompt: PromptTemplate
    condense_prompt: PromptTemplate
    repair_prompt: PromptTemplate
    unsupported: tuple[str, ...] = ()

    async def condense(self, draft: Draft, config: RunnableConfig) -> Draft:
        """Make the question stand alone."""
        # What is added to a question, or written in its place, does not make it too long to be searched for.
        limit = self.retriever.question_chars
        if not draft.history:
            return replace(draft, standalone=draft.question)
        if self.condenser is None:
            return replace(draft, standalone=carry_topic(draft.question, draft.history)[:limit])
        history = "\n".join(
            _fragment(
                self.condense_prompt, "turn", {"question": beside(turn.question), "answer": beside(turn.answer)}
            )
            for turn in draft.history[-HISTORY:]
        )
        values = {"history": history, "question": beside(draft.question)}
        reply = await reply_of(self.condenser, _messages(self.condense_prompt, values), config)
        return replace(draft, standalone=whole(reply.text).strip()[:limit] or draft.question)

    async def retrieve(self, draft: Draft, config: RunnableConfig) -> Draft:
        """Find passages."""
        if draft.fixed is not None:
            return replace(draft, hits=draft.fixed)
        hits = await asyncio.to_thread(self.retriever.search, draft.standalone)
        return replace(draft, hits=tuple(hits))

    async def prompt(self, draft: Draft, config: RunnableConfig) -> Draft:
        """Fill the template with as many passages as the token budget takes; the question is never cut."""
        kept = await asyncio.to_thread(self._within_budget, draft.hits)
        refusal = self.refusal
        messages = self._asked(
            beside(draft.standalone), [(above(place_of(hit.passage)), quoted(hit.passage.text)) for hit in kept]
        )
        plain = self._asked(draft.standalone, [(place_of(hit.passage), hit.passage.text) for hit in kept])
        evidence = Evidence(
            draft.standalone,
            tuple(
                EvidencePassage(number, hit.passage.text, hit.passage.title, hit.passage.headings, hit.dense_score)
                for number, hit in enumerate(kept, 1)
            ),
            refusal,
            tuple(str(message.content) for message in plain),
        )
        # Models that read text ignore it; the embedded reader and the generator read nothing else.
        messages[-1].additional_kwargs["evidence"] = evidence
        return replace(draft, hits=kept, messages=tuple(messages), prompt_sha256=self.answer_prompt.sha256)

    def _asked(self, question: str, passages: Sequence[tuple[str, str]]) -> list[BaseMessage]:
        """The answer prompt with a question and the places and texts of passages."""
        entries = "\n".join(
            _fragment(self.answer_prompt, "passage", {"number": str(number), "place": place, "text": text})
            for number, (place, text) in enumerate(passages, 1)
        )
        return _messages(self.answer_prompt, {"question": question, "passages": entries, "refusal": self.refusal})

    async def generate(self, draft: Draft, config: RunnableConfig) -> Draft:
        """Let the model write."""
        if not draft.hits:
            return replace(draft, text=self.refusal, usage=Usage(0, 0))
        reply = await reply_of(self.model, draft.messages, config)
        used = usage_of(reply)
        if self._schema is not None:
            reply, used = await self._fitting(reply, used, draft, config)
        return replace(
            draft,
            text=whole(reply.text),
            usage=used,
            confidence=reply.response_metadata.get("confidence"),
            spans=tuple(reply.response_metadata.get("spans", ())),
            cut=was_cut(reply),
            unread=unread_of(reply),
        )

    async def _fitting(
        self, reply: AIMessageChunk, used: Usage, draft: Draft, config: RunnableConfig
    ) -> tuple[AIMessageChunk, Usage]:
        """The reply where it fits the schema, else a second one; a refusal is free to be none."""
        try:
            await self._parsed(reply.text)
        except NotTheSchema as first:
            if _is_refusal(reply.text, self.refusal):
                return reply, used
            asked = repair_messages(
                draft.messages, reply.text, first.reason, self.repair_prompt, self._schema or {}
            )
            reply = await reply_of(self.model, asked, config)
            used = _sum(used, usage_of(reply))
            try:
                await self._parsed(reply.text)
            except NotTheSchema as second:
                raise ModelProtocolError(
                    f"The model's answer does not fit the JSON schema, also when asked again: {second.reason}.",
                    fix="Say in the prompt what JSON is wanted, or choose another model.",
                ) from second
        return reply, used

    async def _parsed(self, text: str) -> object:
        # A schema may take its time.
        return await asyncio.to_thread(parse, whole(text), self._schema or {})

    @property
    def _schema(self) -> dict[str, Any] | None:
        # A model that cannot write JSON says so, and is not asked for it.
        held = self.release.decoding.json_schema
        return None if "decoding.json_schema" in self.unsupported else held

    async def ground(self, draft: Draft, config: RunnableConfig) -> Answer:
        """Check the citations; an answer without support becomes a refusal."""
        answer = Answer(
            text=self.refusal,
            status="abstained",
            hits=draft.hits,
            standalone=draft.standalone,
            usage=draft.usage,
            prompt=self.release.prompt,
            release=self.release.name,
            model=self.release.model,
            unread=draft.unread,
            unsupported=self.unsupported,
        )
        if _is_refusal(draft.text, self.refusal):
            return replace(answer, support=draft.confidence)
        told = draft.text if self._schema is None else claims_of(await self._parsed(draft.text))
        least = self.release.grounding.min_support
        checked = await asyncio.to_thread(ground, told, draft.hits, self.encoder, least)
        if checked.best < least:
            return replace(answer, support=checked.support)
        known = [each for each in (checked.support, draft.confidence) if each is not None]
        where = self.release.answer.citations
        if self._schema:
            # JSON stays as the model wrote it, and its texts have no place in it as they are.
            text = draft.text.strip()
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
            support=min(known, default=None),
            # Places in what the model wrote: of no use once a marker was taken out of it.
            spans=draft.spans if text == draft.text else (),
            cut=draft.cut,
        )

    @property
    def refusal(self) -> str:
        """The sentence that says that the documents do not answer."""
        return _fragment(self.answer_prompt, "refusal", {}).strip()

    def _within_budget(self, hits: Sequence[Hit]) -> tuple[Hit, ...]:
        # As they go into the prompt: the fence costs a token or two for each line.
        counts = self.encoder.tokens.count([quoted(hit.passage.text) for hit in hits])
        kept: list[Hit] = []
        left = self.release.decoding.context_tokens
        for hit, count in zip(hits, counts, strict=True):
            if count > left:
                break
            kept.append(hit)
            left -= count
        if hits and not kept:
            # Even the best passage is too long: its beginning is better than nothing.
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
            # Fewer in the same proportion: what the fence costs goes with the lines.
            kept = min(kept - 1, kept * budget // count)


def place_of(passage: Passage) -> str:
    """Where a passage stands, for a reader: title, headings, page."""
    parts = list(dict.fromkeys(part for part in (passage.title, *passage.headings) if part))
    if passage.page is not None:
        parts.append(f"page {passage.page}")
    return " › ".join(parts)


def _sum(one: Usage, other: Usage) -> Usage:
    """Of two calls; unknown where one did not say."""

    def added(first: int | None, second: int | None) -> int | None:
        return None if first is None or second is None else first + second

    return Usage(added(one.input_tokens, other.input_tokens), added(one.output_tokens, other.output_tokens))


def _messages(prompt: PromptTemplate, values: dict[str, str]) -> list[BaseMessage]:
    try:
        return [_as_langchain(message) for message in prompt.render(values)]
    except PromptTemplateError as error:
        raise PromptError(
            str(error),
            fix="The chain gives question, passages and refusal to an answer prompt, "
            "history and question to a condense prompt.",
        ) from error


def _fragment(prompt: PromptTemplate, name: str, values: dict[str, str]) -> str:
    try:
        return prompt.fragment(name, values)
    except PromptTemplateError as error:
        raise PromptError(str(error), fix=f"Compare it with the shipped prompt {prompt.name}@1.") from error


def _as_langchain(message: Message) -> BaseMessage:
    kinds: dict[str, type[BaseMessage]] = {
        "system": SystemMessage,
        "user": HumanMessage,
        "assistant": AIMessage,
    }
    return kinds[message.role](content=message.content)


def _is_refusal(text: str, refusal: str) -> bool:
    plain = text.strip().strip("\"'*").casefold()
    return not plain or plain.startswith(refusal.rstrip(".").casefold())
