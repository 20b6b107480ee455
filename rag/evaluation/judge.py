"""A model that judges answers by a rubric, with 1 to 5 points.

One answer is graded at a time, beside the right ones where they are known, and the reason comes before the points
(Zheng et al., Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena, 2023, arXiv 2306.05685, sections 3.1 and
3.4). Question, passages and answers were written by others and may hold instructions to the judge. They stand
between marks with a tag that is made of their hash, so none of them can hold the mark that ends it, and are fenced
as the passages of an answer prompt are (``rag.models.fencing``).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from prompts import PromptTemplate
from rag.errors import ModelError, ModelProtocolError, ModelTimeout, prompt_errors
from rag.evaluation.cases import Case
from rag.evaluation.run_store import Score
from rag.evaluation.scoring import Judgement
from rag.models.fencing import above, beside, quoted
from rag.models.structured_output import NotTheSchema, parse, repair_messages
from rag.redaction import redact
from rag.types import Answer, whole

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage

BEST, WORST = 5, 1
# What a judgement has to be, whatever schema the prompt sends to the model.
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "reason": {"type": "string"},
        "score": {"type": "integer", "minimum": WORST, "maximum": BEST},
    },
    "required": ["reason", "score"],
}
PATIENCE_S = 120.0
"""How long a judgement may take, asking again included."""
TAG = 16
"""Hexadecimal digits of a tag."""
LONGEST_REASON = 1000
SHIPPED = "the shipped prompts judge-answer, judge-pair and repair-json"
# Judgements that are remembered.
KEPT = 1000

CASE_PLACES: Mapping[str, tuple[str, ...]] = {
    "turn": ("question", "answer"),
    "right_answer": ("tag", "text"),
    "no_right_answer": (),
}
_VARIABLES = ("tag", "question", "right_answers", "passages", "answer")
_PLACES = {**CASE_PLACES, "passage": ("tag", "number", "place", "text"), "no_passage": ()}


class ModelJudge:
    """Lets a model judge, once for the same question, answer and passages: its word on them is remembered.

    Some answers are judged by code, and the model is not asked. Of a question to refuse, a refusal gets 5 points
    and any other answer 1. Of a question that the documents answer (a right answer, or its source, is known), a
    refusal gets 1. An answer that failed or was stopped is not judged.

    Args:
        model: Judges. It is opened with the settings of the prompt, among them the schema.
        prompt: With the variables and fragments of the shipped ``judge-answer``.
        name: Of the model.
        repair: Asks again where a reply does not fit; with the variables of the shipped ``repair-json``.
        patience_s: How long a judgement may take, in seconds.

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
    ) -> None:
        check_prompt(prompt, _VARIABLES, _PLACES)
        self.identity = f"{name} {prompt.label} {prompt.sha256[:TAG]}"
        self._prompt = prompt
        self._inquiry = Inquiry(model, prompt, repair, SCHEMA, patience_s)
        self._kept: dict[str, Judgement] = {}
        self._alone: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def judge(self, case: Case, answer: Answer) -> Judgement:
        """Its points with their reason; a judgement that fails is a ``judge_errors`` and no points."""
        ruled = _by_rule(case, answer)
        if ruled is not None:
            return ruled
        values = self._values(case, answer)
        key = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        # Variants of a case are answered at the same time, and often alike.
        alone = self._alone.setdefault(key, asyncio.Lock())
        async with alone:
            # The one that was used last stands last, and the first ones go.
            found = self._kept.pop(key, None)
            if found is None:
                try:
                    told = await self._inquiry.ask(values)
                except ModelError as error:
                    return Judgement({"judge_errors": Score(1)}, one_line(str(error)))
                found = _points(int(told["score"]), told["reason"])
            self._kept[key] = found
            while len(self._kept) > KEPT:
                del self._kept[next(iter(self._kept))]
        return found

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
            "question": told_question(self._prompt, case),
            "right_answers": told_answers(self._prompt, case, tag),
            "passages": "".join(passages).strip() or self._prompt.fragment("no_passage", {}),
            "answer": quoted(answer.text),
        }


@dataclass(frozen=True)
class Inquiry:
    """Asks a model for JSON, and once more where the reply does not fit.

    Attributes:
        repair: Asks again.
        schema: What a reply has to fit.
        patience_s: How long both may take together, in seconds.

    Raises:
        PromptError: ``repair`` has other variables than ``reason`` and ``schema``.
    """

    model: BaseChatModel
    prompt: PromptTemplate
    repair: PromptTemplate
    schema: Mapping[str, Any]
    patience_s: float = PATIENCE_S

    def __post_init__(self) -> None:
        check_prompt(self.repair, ("reason", "schema"), {})

    async def ask(self, values: Mapping[str, str]) -> dict[str, Any]:
        """What the model replies; it fits the schema.

        Args:
            values: For the places of the prompt.

        Raises:
            ModelError: There is no such reply, for whatever reason.
        """
        from langchain_core.messages import convert_to_messages

        messages = convert_to_messages([(each.role, each.content) for each in self.prompt.render(values)])
        try:
            async with asyncio.timeout(self.patience_s):
                return await self._fitting(messages)
        except ModelError:
            raise
        except NotTheSchema as error:
            raise ModelProtocolError(
                f"The judging model's reply does not fit its schema, also when asked again: {error.reason}.",
                fix="Choose another judging model.",
            ) from error
        except TimeoutError as error:
            raise ModelTimeout("The judging model did not answer in time.", fix="Choose a faster one.") from error
        except Exception as error:
            raise ModelError(f"The judging model failed: {type(error).__name__}: {redact(str(error))}.") from error

    async def _fitting(self, messages: list[BaseMessage]) -> dict[str, Any]:
        reply = await self._reply(messages)
        try:
            told: dict[str, Any] = parse(reply, self.schema)
        except NotTheSchema as error:
            wanted = self.prompt.settings.json_schema or self.schema
            again = repair_messages(messages, reply, error.reason, self.repair, wanted)
            told = parse(await self._reply(again), self.schema)
        return told

    async def _reply(self, messages: list[BaseMessage]) -> str:
        return whole("".join([chunk.text async for chunk in self.model.astream(messages)]))


def fence_tag(texts: Sequence[str], digits: int = TAG) -> str:
    """A tag that stands in none of the texts, in whatever case; the same texts get the same one.

    Args:
        texts: What will stand between marks with it.
        digits: How many hexadecimal digits; with few of them, texts could hold every tag that there is.
    """
    folded = [text.casefold() for text in texts]
    made = (hashlib.sha256(json.dumps([number, *texts]).encode()).hexdigest()[:digits] for number in count())
    return next(tag for tag in made if not any(tag in text for text in folded))


def texts_of(case: Case) -> list[str]:
    """All texts of a case that a judge reads."""
    turns = (text for turn in case.history for text in (turn.question, turn.answer))
    return [case.question, *case.answers, *turns]


def told_question(prompt: PromptTemplate, case: Case) -> str:
    """The question behind the turns before it, by the fragment ``turn``."""
    turns = [
        prompt.fragment("turn", {"question": beside(turn.question), "answer": beside(turn.answer)})
        for turn in case.history
    ]
    return "".join([*turns, beside(case.question)])


def told_answers(prompt: PromptTemplate, case: Case, tag: str) -> str:
    """The right answers, by the fragment ``right_answer`` or ``no_right_answer``."""
    right = [prompt.fragment("right_answer", {"tag": tag, "text": quoted(text)}) for text in case.answers]
    return "".join(right).strip() or prompt.fragment("no_right_answer", {})


def check_prompt(prompt: PromptTemplate, variables: Sequence[str], places: Mapping[str, Sequence[str]]) -> None:
    """See that a prompt can be filled.

    Args:
        prompt: Which one.
        variables: Its variables.
        places: Its fragments with their places.

    Raises:
        PromptError: It has others.
    """
    with prompt_errors(f"Compare it with {SHIPPED}."):
        prompt.render(dict.fromkeys(variables, ""))
        for name, inside in places.items():
            prompt.fragment(name, dict.fromkeys(inside, ""))


def one_line(text: str) -> str:
    """A reason as it is kept: on one line, without control characters, and not too long."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= LONGEST_REASON else f"{line[: LONGEST_REASON - 1]}…"


def _by_rule(case: Case, answer: Answer) -> Judgement | None:
    """The judgement of an answer that no model has to look at."""
    if answer.status not in ("answered", "abstained"):
        return Judgement({})
    refused = answer.status == "abstained"
    if case.must_refuse:
        told = "The documents do not answer it, and the assistant "
        return _points(BEST, f"{told}says so.") if refused else _points(WORST, f"{told}answered.")
    if refused and (case.answers or case.sources):
        return _points(WORST, "The documents answer it, and the assistant refused.")
    return None


def _points(points: int, reason: str) -> Judgement:
    return Judgement({"judge": Score(points), "judge_errors": Score(0)}, one_line(reason))
