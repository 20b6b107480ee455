"""Evaluation runs as HTML: the list, the table of figures, the grid, one case. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rag.documents.relative_links import without_relative_links
from rag.evaluation.case_answers import Answered, Outcome, outcome
from rag.evaluation.grid import GridPage
from rag.evaluation.metric_definitions import Metric
from rag.evaluation.metric_formatting import (
    format_change,
    format_change_interval,
    format_figure,
    format_interval,
    is_better,
)
from rag.evaluation.report_cases import MARKS, Mark, variant_answer
from rag.evaluation.report_rendering import shortened
from rag.evaluation.run_store import Cell, Run
from rag.evaluation.runner import EvaluationProgress
from rag.evaluation.summary import Figure, Summary, VariantSummary
from rag.tracing.figures import counted
from ui.pages.chat.answer_html import is_markdown
from ui.pages.safe_markup import fragment, passage_html

# The head of a column in the grid shows the first two of these that a variant has.
_HEAD = ("contains", "groundedness", "refusal_recall", "judge")
_HEAD_SCORES = 2
_EXPECTED_LENGTH = 120
_ANSWER_LENGTH = 220
"""Characters of an answer in the grid; a click shows the whole answer."""
# The class of a change and the sign before it.
_CHANGES = {True: ("is-better", "▲ "), False: ("is-worse", "▼ "), None: ("", "")}


@dataclass(frozen=True, slots=True)
class ShownFigure:
    """A metric of a variant, and how it differs from the baseline's; ``change`` is empty for the baseline."""

    about: str
    value: str
    interval: str
    change: str = ""
    about_change: str = ""
    look: str = ""


@dataclass(frozen=True, slots=True)
class FigureRow:
    """A variant in the table; its figures are in the order of the columns, None where there is none."""

    variant: VariantSummary
    is_baseline: bool
    changes: str
    figures: tuple[ShownFigure | None, ...]


@dataclass(frozen=True, slots=True)
class GridAnswer:
    """An answer in the grid; ``address`` is ``VARIANT:POSITION``."""

    address: str
    outcome: Outcome
    mark: Mark
    text: str


@dataclass(frozen=True, slots=True)
class GridRow:
    """A case in the grid, with an answer for each variant, None where there is none yet."""

    question: str
    expected: str
    answers: tuple[GridAnswer | None, ...]


def runs_html(runs: Sequence[Run], counts: Sequence[int], totals: Sequence[int], chosen: str, hidden: int) -> str:
    """Render the list of runs, newest first.

    Args:
        counts, totals: Answers of each run so far, and in the end.
        hidden: Number of older runs that are not listed.
    """
    rows = [
        (
            run,
            _started(run),
            counted(count, "answer") if count >= total else f"{count:,} of {counted(total, 'answer')}",
        )
        for run, count, total in zip(runs, counts, totals, strict=True)
    ]
    return fragment("evaluate_runs.html.jinja", runs=rows, chosen=chosen, hidden=hidden)


def head_html(run: Run, size: int, progress: EvaluationProgress | None, notes: Sequence[str]) -> str:
    """Render what a run is about, and its progress.

    Args:
        notes: What to know before relying on the figures.
    """
    return fragment(
        "evaluate_run_head.html.jinja",
        run=run,
        size=size,
        started=_started(run),
        progress=progress,
        notes=notes,
    )


def table_html(summary: Summary) -> str:
    """Render the figures: a row for each variant, the baseline first, and a column for each metric."""
    order = [summary.baseline, *(n for n in range(len(summary.variants)) if n != summary.baseline)]
    return fragment(
        "evaluate_figures.html.jinja",
        columns=[(metric.title, metric.description) for metric in summary.metrics],
        rows=[_figure_row(summary, number) for number in order],
    )


def _figure_row(summary: Summary, number: int) -> FigureRow:
    variant = summary.variants[number]
    return FigureRow(
        variant,
        is_baseline=number == summary.baseline,
        changes=" ".join(f"{name}={_value(value)}" for name, value in variant.changes.items()),
        figures=tuple(_figure(metric, variant.figures.get(metric.name)) for metric in summary.metrics),
    )


def _figure(metric: Metric, figure: Figure | None) -> ShownFigure | None:
    if figure is None or figure.estimate is None:
        return None
    estimate, change = figure.estimate, figure.change
    about = f"{metric.title}: {counted(estimate.n, 'case')}"
    value, interval = format_figure(metric, figure), format_interval(metric, estimate)
    if change is None:
        return ShownFigure(about, value, interval)
    look, sign = _CHANGES[is_better(metric, change)]
    about_change = f"{format_change_interval(metric, change)}, {counted(change.n, 'case')}"
    return ShownFigure(about, value, interval, sign + format_change(metric, change), about_change, look)


def grid_html(page: GridPage, summary: Summary, chosen: str) -> str:
    """Render a page of the grid.

    Args:
        summary: Has the figures for the heads of the columns.
        chosen: ``VARIANT:POSITION`` of the answer that is shown beside the grid.
    """
    return fragment(
        "evaluate_grid.html.jinja",
        columns=[(variant.name, _head_scores(summary, variant)) for variant in summary.variants],
        rows=[_grid_row(row) for row in page.rows],
        start=page.start,
        total=page.total,
        chosen=chosen,
    )


def _head_scores(summary: Summary, variant: VariantSummary) -> list[str]:
    """The main figures of a variant, with their intervals."""
    shown = [metric for metric in summary.metrics if metric.name in _HEAD][:_HEAD_SCORES]
    return [
        f"{metric.title} {format_figure(metric, figure)} ({format_interval(metric, figure.estimate)})"
        for metric in shown
        if (figure := variant.figures.get(metric.name)) and figure.estimate
    ]


def _grid_row(row: Answered) -> GridRow:
    case = row.case
    expected = "to be refused" if case.must_refuse else " | ".join(case.answers)
    answers = (_grid_answer(f"{number}:{row.position}", cell) for number, cell in enumerate(row.cells))
    return GridRow(case.question, shortened(expected, _EXPECTED_LENGTH), tuple(answers))


def _grid_answer(address: str, cell: Cell | None) -> GridAnswer | None:
    if cell is None:
        return None
    kind = outcome(cell)
    return GridAnswer(
        address, kind, MARKS[kind], shortened(cell.error or without_relative_links(cell.answer), _ANSWER_LENGTH)
    )


def cell_html(row: Answered, variant: int, name: str) -> str:
    """Render one answer with its case, scores and passages."""
    answer = variant_answer(row.case, row.cells[variant], name)
    passages = (source.passage for source in answer.sources)
    texts = [passage_html(one.text, formatted=is_markdown(one.name)) for one in passages]
    said = without_relative_links(answer.cell.answer) if answer.cell else ""
    return fragment("evaluate_answer.html.jinja", case=row.case, answer=answer, said=said, texts=texts)


def _started(run: Run) -> str:
    return datetime.fromtimestamp(run.started).astimezone().strftime("%d %b %H:%M")


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
