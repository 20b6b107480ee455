"""A judging model that grades answers by a rubric, with 1 to 5 points.

It grades one answer at a time, next to the reference answers if there are any, and gives its reason before the
points (Zheng et al., Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena, 2023, arXiv 2306.05685, sections 3.1
and 3.4). Question, passages and answers are untrusted and may contain instructions to the judge. They are put
between marks with a tag computed from their hash, so that none of them can contain its own end mark, and
fenced like the passages of an answer prompt (``rag.models.fencing``).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from prompts import PromptTemplate
from rag.errors import ModelError, ModelLimited, ModelProtocolError, ModelTimeout, NoAnswer, prompt_errors
from rag.evaluation.cases import Case
from rag.evaluation.report_rendering import shortened
from rag.evaluation.run_store import Score
from rag.evaluation.scoring import Judgement, Scores
from rag.models.fencing import above, beside, quoted
from rag.models.structured_output import NotTheSchema, parse, repair_messages
from rag.redaction import redact
from rag.types import Answer, Usage

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage

BEST, WORST = 5, 1
# The required form of a judgement, whatever schema the prompt sends to the model.
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "reason": {"type": "string"},
        "score": {"type": "integer", "minimum": WORST, "maximum": BEST},
    },
    "required": ["reason", "score"],
}
PATIENCE_S = 120.0
"""Time limit of a judgement, including a repeated request."""
TAG = 16
"""Hexadecimal digits of a tag."""
LONGEST_REASON = 1000
SHIPPED = "the shipped prompts judge-answer, judge-pair and repair-json"
# Judgements in memory.
KEPT = 1000

CASE_PLACES: Mapping[str, tuple[str, ...]] = {
    "turn": ("question", "answer"),
    "right_answer": ("tag", "text"),
    "no_right_answer": (),
}
_VARIABLES = ("tag", "question", "right_answers", "passages", "answer")
_PLACES = {**CASE_PLACES, "passage": ("tag", "number", "place", "text"), "no_passage": ()}


class ModelJudge:
    """Judges with a model, once per combination of question, answer and passages.

    Some answers are judged in code, without the model. For a question to refuse, a refusal gets 5 points and any
    other answer 1. For a question that the documents answer (an answer or a source is known), a refusal gets 1.
    Failed and cancelled answers are not judged.

    Args:
        model: The judging model, opened with the settings of the prompt, including its schema.
        prompt: A prompt with the variables and fragments of the shipped ``judge-answer``.
        name: Name of the model.
        repair: The prompt for a correction, with the variables of the shipped ``repair-json``.
        patience_s: Time limit of a judgement in seconds.
        price: Returns the dollars for tokens and seconds of the model; None if unknown.
        on_spent: Called in a thread with what every judgement took, also one that failed.

    Raises:
        PromptError: A prompt has other variables or fragments.
    """

    def __init__(
        self,
        model: BaseChatModel,
        prompt: PromptTemplate,
        name: str,
        *,
        repair: PromptTemplate,
        patience_s: float = PATIENCE_S,
        price: Price = lambda _usage, _seconds: None,
        on_spent: Callable[[Spent], None] = lambda _: None,
    ) -> None:
        check_prompt(prompt, _VARIABLES, _PLACES)
        self.identity = f"{name} {prompt.label} {prompt.sha256[:TAG]}"
        self._prompt = prompt
        self._inquiry = Inquiry(model, prompt, repair, SCHEMA, patience_s, paced=True)
        self._price = price
        self._on_spent = on_spent
        self._kept: dict[str, Judgement] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def judge(self, case: Case, answer: Answer) -> Judgement:
        """Judge an answer; see ``rag.evaluation.scoring.Judge.judge``.

        Raises:
            ModelLimited: A limit of the judging model's server is reached.
        """
        ruled = _by_rule(case, answer)
        if ruled is not None:
            return ruled
        values = self._values(case, answer)
        key = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        # The variants of a case are answered concurrently, and often equally.
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            # Used entries move to the end; the oldest are dropped from the start.
            found = self._kept.pop(key, None)
            if found is None:
                spent = Spent()
                try:
                    reply = await self._inquiry.ask(values, spent)
                except ModelLimited:
                    # The run waits, and asks again.
                    raise
                except ModelError as error:
                    return Judgement({"judge_errors": Score(1)}, one_line(str(error)), self._spent(spent))
                finally:
                    await asyncio.to_thread(self._on_spent, spent)
                found = replace(_points(int(reply["score"]), reply["reason"]), spent=self._spent(spent))
            # It was paid for once.
            self._kept[key] = replace(found, spent={})
            while len(self._kept) > KEPT:
                del self._kept[next(iter(self._kept))]
        return found

    def _spent(self, spent: Spent) -> Scores:
        read, written = spent.usage.input_tokens, spent.usage.output_tokens
        tokens = None if read is None or written is None else read + written
        known = {"judge_tokens": tokens, "judge_cost": self._price(spent.usage, spent.seconds)}
        return {name: Score(value) for name, value in known.items() if value is not None}

    def _values(self, case: Case, answer: Answer) -> dict[str, str]:
        from rag.answering.steps import place_of

        shown = [(place_of(hit.passage), hit.passage.text) for hit in answer.hits]
        tag = fence_tag([*texts_of(case), answer.text, *(text for pair in shown for text in pair)])
        passages = [
            self._prompt.fragment(
                "passage", {"tag": tag, "number": str(number), "place": above(place), "text": quoted(text)}
            )
            for number, (place, text) in enumerate(shown, 1)
        ]
        return {
            "tag": tag,
            "question": shown_question(self._prompt, case),
            "right_answers": shown_answers(self._prompt, case, tag),
            "passages": "".join(passages).strip() or self._prompt.fragment("no_passage", {}),
            "answer": quoted(answer.text),
        }


@dataclass
class Spent:
    """Tokens and seconds of all requests of an inquiry."""

    usage: Usage = Usage(0, 0)
    seconds: float = 0.0
    requests: int = 0


Price = Callable[[Usage, float], float | None]


@dataclass(frozen=True)
class Inquiry:
    """Asks a model for JSON, and a second time if the reply does not match the schema.

    Attributes:
        repair: The prompt for the second request.
        schema: The schema of a reply.
        patience_s: Time limit of both requests in seconds.
        paced: Whether the caller waits when a limit of the server is reached.

    Raises:
        PromptError: ``repair`` has other variables than ``reason`` and ``schema``.
    """

    model: BaseChatModel
    prompt: PromptTemplate
    repair: PromptTemplate
    schema: Mapping[str, Any]
    patience_s: float = PATIENCE_S
    paced: bool = False

    def __post_init__(self) -> None:
        check_prompt(self.repair, ("reason", "schema"), {})

    async def ask(self, values: Mapping[str, str], spent: Spent) -> dict[str, Any]:
        """Return the model's reply, which matches the schema.

        Args:
            values: The values of the prompt's variables.
            spent: Grows by what the requests take, also if they fail.

        Raises:
            ModelError: The model fails, or its reply does not match.
        """
        from langchain_core.messages import convert_to_messages

        messages = convert_to_messages([(message.role, message.content) for message in self.prompt.render(values)])
        try:
            async with asyncio.timeout(self.patience_s):
                return await self._matching_reply(messages, spent)
        except ModelError:
            raise
        except NotTheSchema as error:
            raise ModelProtocolError(
                f"The judging model's replies do not match the schema: {error.reason}.",
                fix="Choose another judging model.",
            ) from error
        except TimeoutError as error:
            raise ModelTimeout("The judging model did not answer in time.", fix="Choose a faster one.") from error
        except Exception as error:
            raise ModelError(f"The judging model failed: {type(error).__name__}: {redact(str(error))}.") from error

    async def _matching_reply(self, messages: list[BaseMessage], spent: Spent) -> dict[str, Any]:
        reply = await self._reply(messages, spent)
        try:
            value: dict[str, Any] = parse(reply, self.schema)
        except NotTheSchema as error:
            wanted = self.prompt.settings.json_schema or self.schema
            again = repair_messages(messages, reply, error.reason, self.repair, wanted)
            value = parse(await self._reply(again, spent), self.schema)
        return value

    async def _reply(self, messages: list[BaseMessage], spent: Spent) -> str:
        from rag.models.replies import ModelInput, reply_to
        from rag.models.request_retries import PACED

        began = time.monotonic()
        spent.requests += 1
        try:
            reply = await reply_to(self.model, ModelInput(tuple(messages)), {"metadata": {PACED: self.paced}})
            spent.usage += reply.usage
        except NoAnswer as error:
            spent.usage += error.usage or Usage()
            raise
        finally:
            spent.seconds += time.monotonic() - began
        return reply.text


def fence_tag(texts: Sequence[str], digits: int = TAG) -> str:
    """Return a tag that none of the texts contains, in any case; deterministic for the texts.

    Args:
        texts: The texts to put between marks.
        digits: Number of hexadecimal digits; with few of them, texts could contain all tags.
    """
    folded = [text.casefold() for text in texts]
    tags = (hashlib.sha256(json.dumps([number, *texts]).encode()).hexdigest()[:digits] for number in count())
    return next(tag for tag in tags if not any(tag in text for text in folded))


def texts_of(case: Case) -> list[str]:
    """Return all texts of a case that a judge reads."""
    turns = (text for turn in case.history for text in (turn.question, turn.answer))
    return [case.question, *case.answers, *turns]


def shown_question(prompt: PromptTemplate, case: Case) -> str:
    """Render the question after its earlier turns, with the fragment ``turn``."""
    turns = [
        prompt.fragment("turn", {"question": beside(turn.question), "answer": beside(turn.answer)})
        for turn in case.history
    ]
    return "".join([*turns, beside(case.question)])


def shown_answers(prompt: PromptTemplate, case: Case, tag: str) -> str:
    """Render the reference answers, with the fragment ``right_answer`` or ``no_right_answer``."""
    right = [prompt.fragment("right_answer", {"tag": tag, "text": quoted(text)}) for text in case.answers]
    return "".join(right).strip() or prompt.fragment("no_right_answer", {})


def check_prompt(prompt: PromptTemplate, variables: Sequence[str], places: Mapping[str, Sequence[str]]) -> None:
    """Check the variables and fragments of a prompt.

    Args:
        prompt: The prompt.
        variables: Required variables.
        places: Required fragments with their variables.

    Raises:
        PromptError: The prompt has others.
    """
    with prompt_errors(f"Compare it with {SHIPPED}."):
        prompt.render(dict.fromkeys(variables, ""))
        for name, inside in places.items():
            prompt.fragment(name, dict.fromkeys(inside, ""))


def one_line(text: str) -> str:
    """Return a reason on one line, without control characters, truncated."""
    return shortened("".join(letter if letter.isprintable() else " " for letter in text), LONGEST_REASON)


def _by_rule(case: Case, answer: Answer) -> Judgement | None:
    """Judge an answer in code; None if the model must judge it."""
    if answer.status not in ("answered", "abstained"):
        return Judgement({})
    refused = answer.status == "abstained"
    if case.must_refuse:
        if refused:
            return _points(BEST, "The documents do not answer it, and the assistant refused.")
        return _points(WORST, "The documents do not answer it, but the assistant answered.")
    if refused and (case.answers or case.sources):
        return _points(WORST, "The documents answer it, but the assistant refused.")
    return None


def _points(points: int, reason: str) -> Judgement:
    return Judgement({"judge": Score(points), "judge_errors": Score(0)}, one_line(reason))
