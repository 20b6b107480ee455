"""A case of a report: the question, the expected answer, and the answers of all variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rag.evaluation.case_answers import Answered, Outcome, outcome
from rag.evaluation.cases import Case, source_name
from rag.evaluation.metric_definitions import METRICS
from rag.evaluation.metric_formatting import format_metric
from rag.evaluation.ranking_metrics import Found, matches
from rag.evaluation.report_rendering import report_templates, shortened
from rag.evaluation.run_store import Cell, CellPassage
from rag.tracing.figures import format_cost, format_seconds, format_tokens

# Metrics that repeat the status.
SHOWN_BY_STATUS = ("answered", "failed", "refusal_precision", "refusal_recall", "judge_errors")
SCORED = tuple(metric for metric in METRICS if metric.name not in SHOWN_BY_STATUS)
STATUS = {"answered": "answered", "abstained": "refused", "cancelled": "stopped", "failed": "failed"}
QUESTION_LENGTH = 300


@dataclass(frozen=True, slots=True)
class Mark:
    """The outcome of an answer as a coloured sign and a word."""

    look: str
    sign: str
    word: str


MARKS: Mapping[Outcome, Mark] = {
    "right": Mark("is-right", "✓", "right"),
    "wrong": Mark("is-wrong", "✗", "wrong"),
    "refused": Mark("is-wrong", "∅", "refused, although an answer was expected"),
    "failed": Mark("is-failed", "!", "failed"),
    "unknown": Mark("is-open", "·", "unknown"),
}
MISSING = Mark("is-open", "–", "no answer yet")


@dataclass(frozen=True, slots=True)
class Source:
    """A passage, and whether its source is expected."""

    passage: CellPassage
    place: str
    expected: bool


@dataclass(frozen=True, slots=True)
class VariantAnswer:
    """The answer of a variant; without a cell, there is none yet.

    Attributes:
        scores: Titles of metrics with formatted values.
        sources: Passages, best first; markers in the answer refer to this list.
        spent: Time, tokens and cost, as far as they are known.
    """

    name: str
    mark: Mark
    cell: Cell | None
    status: str = ""
    scores: tuple[tuple[str, str], ...] = ()
    sources: tuple[Source, ...] = ()
    spent: tuple[str, ...] = ()


def case_html(answered: Answered, names: Sequence[str]) -> str:
    """Render a collapsible case.

    Args:
        answered: The case with its answers.
        names: Names of the variants, in order.
    """
    case = answered.case
    # Passages of several variants are shown once.
    texts = {(one.name, one.page, one.text): one for cell in answered.there for one in cell.passages}
    template = report_templates().get_template("report_case.html.jinja")
    return template.render(
        number=answered.position + 1,
        question=shortened(case.question, QUESTION_LENGTH),
        case=case,
        answers=[variant_answer(case, cell, name) for cell, name in zip(answered.cells, names, strict=True)],
        passages=[_source(case, passage) for passage in texts.values()],
    )


def variant_answer(case: Case, cell: Cell | None, name: str) -> VariantAnswer:
    """Return an answer as a report or the page shows it."""
    if cell is None:
        return VariantAnswer(name, MISSING, None)
    mark = MARKS[outcome(cell)]
    status = STATUS[cell.status] if cell.status == "failed" else f"{STATUS[cell.status]}, {mark.word}"
    sources = tuple(_source(case, passage) for passage in cell.passages)
    return VariantAnswer(name, mark, cell, status, _scores(cell), sources, _spent(cell))


def _scores(cell: Cell) -> tuple[tuple[str, str], ...]:
    known = ((metric, (cell.scores or {}).get(metric.name)) for metric in SCORED)
    return tuple(
        (metric.title, format_metric(metric, score.value / score.weight))
        for metric, score in known
        if score is not None and score.weight
    )


def _source(case: Case, passage: CellPassage) -> Source:
    expected = any(matches(Found(passage.name, passage.page), wanted) for wanted in case.sources)
    return Source(passage, source_name(passage.name, passage.page), expected)


def _spent(cell: Cell) -> tuple[str, ...]:
    parts = [] if cell.latency_s is None else [format_seconds(cell.latency_s, digits=3)]
    if cell.input_tokens is not None or cell.output_tokens is not None:
        parts.append(format_tokens(cell.input_tokens, cell.output_tokens))
    parts.append(format_cost(cell.cost_usd))
    parts += ["from the cache"] if cell.cached else []
    return tuple(parts)
