"""Which of two answers is better, by a judging model that is asked twice.

Judging models favour an answer for its place (position bias: Zheng et al., Judging LLM-as-a-Judge with MT-Bench
and Chatbot Arena, 2023, arXiv 2306.05685, sections 3.3 and 3.4). As proposed there, they are asked in both orders,
and only who is preferred both times wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from prompts import PromptTemplate
from rag.errors import ModelError
from rag.evaluation.cases import Case
from rag.evaluation.judge import (
    CASE_PLACES,
    Inquiry,
    check_prompt,
    fence_tag,
    one_line,
    texts_of,
    told_answers,
    told_question,
)
from rag.evaluation.statistics import Estimate, mean
from rag.models.fencing import quoted

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

Better = Literal["first", "second", "tie", "error"]

# What a reply has to be, whatever schema the prompt sends to the model.
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "better": {"enum": ["first", "second", "tie"]}},
    "required": ["reason", "better"],
}
_VARIABLES = ("tag", "question", "right_answers", "first", "second")
_PLACES = {**CASE_PLACES, "must_refuse": ()}
_SWAPPED: Mapping[Better, Better] = {"first": "second", "second": "first", "tie": "tie"}
# A win is one, a tie a half.
_WORTH: Mapping[Better, float] = {"first": 1.0, "second": 0.0, "tie": 0.5}


@dataclass(frozen=True, slots=True)
class PairVerdict:
    """Which of two answers is better.

    Attributes:
        better: ``tie`` also where the model contradicts itself; ``error`` where it gave no verdict.
        reasons: What the model wrote, a text for each time that it was asked; the second time the answer that is
            called the second here stood first. Of an error, what went wrong comes last.
        by_place: Whether it preferred the same place both times, whatever stood there.
    """

    better: Better
    reasons: tuple[str, ...]
    by_place: bool = False


@dataclass(frozen=True, slots=True)
class PairTally:
    """What came of many pairs, for the first answers.

    Attributes:
        wins, losses, ties, errors: Pairs; their sum is all of them.
        win_rate: Share of wins where a tie counts as half of one, 0 to 1, with its bootstrap interval; errors are
            left out. None where nothing else is there.
    """

    wins: int
    losses: int
    ties: int
    errors: int
    win_rate: Estimate | None


async def compare_pair(
    model: BaseChatModel,
    prompt: PromptTemplate,
    case: Case,
    one: str,
    other: str,
    *,
    repair: PromptTemplate,
) -> PairVerdict:
    """Let a model compare two answers; two that are the same are a tie, and it is not asked.

    Args:
        model: Compares. It is opened with the settings of the prompt, among them the schema.
        prompt: With the variables and fragments of the shipped ``judge-pair``.
        case: What both answer.
        one, other: The answers; ``first`` and ``second`` of the verdict.
        repair: Asks again where a reply does not fit; with the variables of the shipped ``repair-json``.

    Raises:
        PromptError: A prompt has other variables or fragments.
    """
    check_prompt(prompt, _VARIABLES, _PLACES)
    inquiry = Inquiry(model, prompt, repair, SCHEMA)
    if one.strip() == other.strip():
        return PairVerdict("tie", ("The answers are the same.",))
    reasons: list[str] = []
    preferred: list[Better] = []
    for first, second in ((one, other), (other, one)):
        try:
            told = await inquiry.ask(_values(prompt, case, first, second))
        except ModelError as error:
            return PairVerdict("error", (*reasons, one_line(str(error))))
        reasons.append(one_line(told["reason"]))
        preferred.append(told["better"])
    better: Better = preferred[0] if preferred[0] == _SWAPPED[preferred[1]] else "tie"
    return PairVerdict(better, tuple(reasons), by_place=preferred[0] == preferred[1] != "tie")


def tally(verdicts: Iterable[PairVerdict]) -> PairTally:
    """Count verdicts over independent cases, one of each."""
    told = [verdict.better for verdict in verdicts]
    worth = [_WORTH[better] for better in told if better != "error"]
    return PairTally(
        wins=told.count("first"),
        losses=told.count("second"),
        ties=told.count("tie"),
        errors=told.count("error"),
        win_rate=mean(worth, [1.0] * len(worth)),
    )


def _values(prompt: PromptTemplate, case: Case, first: str, second: str) -> dict[str, str]:
    tag = fence_tag([*texts_of(case), first, second])
    right = prompt.fragment("must_refuse", {}) if case.must_refuse else told_answers(prompt, case, tag)
    return {
        "tag": tag,
        "question": told_question(prompt, case),
        "right_answers": right,
        "first": quoted(first),
        "second": quoted(second),
    }
