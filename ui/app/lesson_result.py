"""What the evaluation of a lesson has found: the metrics of the gate, and the cases that flipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ui.app.lesson_work import margins

if TYPE_CHECKING:
    from ui.app.evaluations import Evaluations


@dataclass(frozen=True, slots=True)
class FlippedCase:
    """A case that the candidate answers right and the adapter in use wrong, or the other way round.

    Attributes:
        before, after: The answers of the adapter in use and of the candidate.
        improved: Whether the candidate is right.
        traces: The traces of both answers.
    """

    question: str
    before: str
    after: str
    improved: bool
    traces: tuple[str, str]


@dataclass(frozen=True, slots=True)
class MetricChange:
    """A metric that the gate checks, before and after, formatted."""

    title: str
    before: str
    after: str
    change: str


@dataclass(frozen=True, slots=True)
class LessonResult:
    """What an evaluation says about a candidate."""

    metrics: tuple[MetricChange, ...]
    flipped: tuple[FlippedCase, ...]


def lesson_result(evaluations: Evaluations, run_id: str) -> LessonResult:
    """Compare the variants of the evaluation run of a lesson.

    Raises:
        EvaluationError: There is no such run.
        DatasetError: Its dataset no longer exists.
    """
    from rag.evaluation.case_answers import WRONG, outcome, side_by_side
    from rag.evaluation.metric_formatting import format_change, format_figure

    run = evaluations.runs.get(run_id)
    summary = evaluations.summary(run)
    before, after = summary.variants
    checked = {margin.metric for margin in margins()}
    metrics = tuple(
        MetricChange(
            metric.title,
            format_figure(metric, before.figures.get(metric.name)),
            format_figure(metric, now),
            format_change(metric, now.change if now else None),
        )
        for metric in summary.metrics
        if metric.name in checked
        for now in [after.figures.get(metric.name)]
    )
    cases = evaluations.datasets.cases(evaluations.dataset_of(run))
    flipped = []
    for row in side_by_side(cases, lambda variant: evaluations.runs.cells(run.id, variant), 2):
        one, other = row.cells
        if one is None or other is None:
            continue
        was, became = outcome(one), outcome(other)
        improved = became == "right" and was in WRONG
        if improved or (was == "right" and became in WRONG):
            traces = (one.trace_id, other.trace_id)
            flipped.append(FlippedCase(row.case.question, one.answer, other.answer, improved, traces))
    return LessonResult(metrics, tuple(sorted(flipped, key=lambda case: case.improved)))
