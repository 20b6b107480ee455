"""Pairwise comparison of answers by a judging model.

Judging models have a position bias (Zheng et al., Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena, 2023,
arXiv 2306.05685, sections 3.3 and 3.4). As proposed there, the model is asked in both orders, and an answer wins
only if it is preferred both times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from prompts import PromptTemplate
from rag.errors import ModelError
from rag.evaluation.cases import Case
from rag.evaluation.judge import (
    CASE_PLACES,
    Inquiry,
    Price,
    Spent,
    check_prompt,
    fence_tag,
    one_line,
    shown_answers,
    shown_question,
    texts_of,
)
from rag.evaluation.statistics import Estimate, mean
from rag.models.fencing import quoted
from rag.types import Usage

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

Better = Literal["first", "second", "tie", "error"]

# The required form of a reply, whatever schema the prompt sends to the model.
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "better": {"enum": ["first", "second", "tie"]}},
    "required": ["reason", "better"],
}
_VARIABLES = ("tag", "question", "right_answers", "first", "second")
_PLACES = {**CASE_PLACES, "must_refuse": ()}
_SWAPPED: Mapping[Better, Better] = {"first": "second", "second": "first", "tie": "tie"}
_WORTH: Mapping[Better, float] = {"first": 1.0, "second": 0.0, "tie": 0.5}


@dataclass(frozen=True, slots=True)
class PairVerdict:
    """The better of two answers.

    Attributes:
        better: ``tie`` also if the model contradicts itself; ``error`` if there is no verdict.
        reasons: The model's reasons for both requests, the second with the answers swapped; an error comes last.
        by_place: Whether the model preferred the same position both times.
        spent: Tokens and seconds of the model.
    """

    better: Better
    reasons: tuple[str, ...]
    by_place: bool = False
    spent: Spent = field(default_factory=Spent)


@dataclass(frozen=True, slots=True)
class PairTally:
    """Summary of many verdicts, from the perspective of the first answers.

    Attributes:
        wins, losses, ties, errors: Numbers of pairs.
        win_rate: Share of wins with its bootstrap interval, 0 to 1; a tie counts half, and errors are left out.
            None without any other verdict.
        usage: Tokens of the model.
        cost_usd: Their cost; None if unknown.
    """

    wins: int
    losses: int
    ties: int
    errors: int
    win_rate: Estimate | None
    usage: Usage = Usage(0, 0)
    cost_usd: float | None = None


async def compare_pair(
    model: BaseChatModel,
    prompt: PromptTemplate,
    case: Case,
    one: str,
    other: str,
    *,
    repair: PromptTemplate,
) -> PairVerdict:
    """Compare two answers; equal answers are a tie without asking the model.

    Args:
        model: The judging model, opened with the settings of the prompt, including its schema.
        prompt: A prompt with the variables and fragments of the shipped ``judge-pair``.
        case: The case that both answer.
        one, other: The answers; ``first`` and ``second`` of the verdict.
        repair: The prompt for a correction, with the variables of the shipped ``repair-json``.

    Raises:
        PromptError: A prompt has other variables or fragments.
    """
    check_prompt(prompt, _VARIABLES, _PLACES)
    inquiry = Inquiry(model, prompt, repair, SCHEMA)
    if one.strip() == other.strip():
        return PairVerdict("tie", ("The answers are the same.",))
    spent = Spent()
    reasons: list[str] = []
    preferred: list[Better] = []
    for first, second in ((one, other), (other, one)):
        try:
            reply = await inquiry.ask(_values(prompt, case, first, second), spent)
        except ModelError as error:
            return PairVerdict("error", (*reasons, one_line(str(error))), spent=spent)
        reasons.append(one_line(reply["reason"]))
        preferred.append(reply["better"])
    better: Better = preferred[0] if preferred[0] == _SWAPPED[preferred[1]] else "tie"
    return PairVerdict(better, tuple(reasons), preferred[0] == preferred[1] != "tie", spent)


def tally(verdicts: Sequence[PairVerdict], price: Price = lambda _usage, _seconds: None) -> PairTally:
    """Count the verdicts of independent cases, and what they cost."""
    usage = sum((verdict.spent.usage for verdict in verdicts), Usage(0, 0))
    seconds = sum(verdict.spent.seconds for verdict in verdicts)
    results = [verdict.better for verdict in verdicts]
    worth = [_WORTH[better] for better in results if better != "error"]
    return PairTally(
        wins=results.count("first"),
        losses=results.count("second"),
        ties=results.count("tie"),
        errors=results.count("error"),
        win_rate=mean(worth, [1.0] * len(worth)),
        usage=usage,
        cost_usd=price(usage, seconds),
    )


def _values(prompt: PromptTemplate, case: Case, first: str, second: str) -> dict[str, str]:
    tag = fence_tag([*texts_of(case), first, second])
    right = prompt.fragment("must_refuse", {}) if case.must_refuse else shown_answers(prompt, case, tag)
    return {
        "tag": tag,
        "question": shown_question(prompt, case),
        "right_answers": right,
        "first": quoted(first),
        "second": quoted(second),
    }
