"""Data of a report's templates: compared variants, tables of metrics, and plots."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rag.evaluation.charts import Bar, Drawing, Line, draw_cumulative, draw_intervals
from rag.evaluation.metric_definitions import BY_NAME, Group, Metric
from rag.evaluation.metric_formatting import (
    format_change,
    format_difference,
    format_figure,
    format_interval,
    format_metric,
    is_better,
    join_ends,
)
from rag.evaluation.summary import Figure, Summary, VariantSummary

GROUPS: Mapping[Group, str] = {
    "retrieval": "Retrieval",
    "answer": "Answers",
    "grounding": "Grounding",
    "refusal": "Refusals",
    "judge": "Judge",
    "cost": "Time and cost",
}
# Groups with more metrics take the full width.
NARROW = 3
DRAWN = (
    "recall",
    "ndcg",
    "contains",
    "f1",
    "groundedness",
    "citation_recall",
    "refusal_recall",
    "judge",
)
NO_FIGURE = Figure(None)
# CSS class and label of a change.
LOOKS = {True: ("is-better", " better"), False: ("is-worse", " worse"), None: ("is-open", "")}


@dataclass(frozen=True, slots=True)
class ComparedVariant:
    """A variant in a report.

    Attributes:
        changes: Names of settings with their values as JSON.
    """

    summary: VariantSummary
    is_baseline: bool
    changes: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class FigureCell:
    """A cell of a table.

    Attributes:
        value: The formatted value, or a placeholder.
        interval: Empty without a value.
        n: Number of cases; None if it is shown in the head of the column.
        change, change_interval: Difference from the baseline; empty if there is none.
        look, verdict: CSS class and label of the change.
    """

    value: str
    interval: str = ""
    n: int | None = None
    change: str = ""
    change_interval: str = ""
    look: str = ""
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class FigureColumn:
    """The head of a column.

    Attributes:
        n: Number of cases of all values; None if they differ.
    """

    title: str
    description: str
    n: int | None


@dataclass(frozen=True, slots=True)
class FigureTable:
    """A table of a group of metrics, with a row per variant."""

    title: str
    columns: tuple[FigureColumn, ...]
    rows: tuple[tuple[ComparedVariant, tuple[FigureCell, ...]], ...]

    @property
    def is_wide(self) -> bool:
        """Whether the table takes the full width."""
        return len(self.columns) > NARROW


def compared_variants(summary: Summary) -> tuple[ComparedVariant, ...]:
    """Return the variants, the baseline first."""
    return tuple(
        ComparedVariant(
            variant,
            number == summary.baseline,
            tuple((name, json.dumps(value, ensure_ascii=False)) for name, value in variant.changes.items()),
        )
        for number, variant in _ordered(summary)
    )


def figure_tables(summary: Summary) -> list[FigureTable]:
    """Return a table for every group with values."""
    shown = list(summary.metrics)
    if BY_NAME["cost"] not in shown:
        # Readers must see that the cost is unknown.
        shown.append(BY_NAME["cost"])
    groups = ((title, [metric for metric in shown if metric.group == group]) for group, title in GROUPS.items())
    return [_table(summary, title, metrics) for title, metrics in groups if metrics]


def plots(summary: Summary, latencies: Sequence[Sequence[float]]) -> list[Drawing]:
    """Plot the main metrics and the latencies of the variants.

    Args:
        summary: The table.
        latencies: Seconds of all answers, by variant.
    """
    order = [number for number, _ in _ordered(summary)]
    drawn = [
        draw_intervals(
            metric.title,
            [Bar(summary.variants[number].name, _figure(summary, number, metric).estimate) for number in order],
            _formatter(metric),
            baseline=0,
            limits=(0.0, 1.0) if metric.unit == "share" else (-math.inf, math.inf),
        )
        for metric in summary.metrics
        if metric.name in DRAWN
    ]
    if any(latencies):
        lines = [Line(summary.variants[number].name, latencies[number]) for number in order]
        title = "Latency: cumulative share of the answers"
        drawn.append(draw_cumulative(title, lines, _formatter(BY_NAME["latency_p50"])))
    return drawn


def _table(summary: Summary, title: str, metrics: Sequence[Metric]) -> FigureTable:
    columns = tuple(FigureColumn(metric.title, metric.description, _same_n(summary, metric)) for metric in metrics)
    rows = (
        tuple(
            _cell(metric, _figure(summary, number, metric), with_n=column.n is None)
            for metric, column in zip(metrics, columns, strict=True)
        )
        for number, _ in _ordered(summary)
    )
    return FigureTable(title, columns, tuple(zip(compared_variants(summary), rows, strict=True)))


def _cell(metric: Metric, figure: Figure, *, with_n: bool) -> FigureCell:
    estimate, change = figure.estimate, figure.change
    if estimate is None:
        return FigureCell("unknown" if metric.unit == "USD" else "–")
    value, interval = format_figure(metric, figure), format_interval(metric, estimate)
    n = estimate.n if with_n else None
    if change is None:
        return FigureCell(value, interval, n)
    look, verdict = LOOKS[is_better(metric, change)]
    # The change above the interval names the unit; the columns are narrow.
    ends = join_ends(*(_signed(metric, end) for end in (change.low, change.high))).removesuffix(" points")
    return FigureCell(value, interval, n, format_change(metric, change), ends, look, verdict)


def _ordered(summary: Summary) -> list[tuple[int, VariantSummary]]:
    """Return the variants with their indices, the baseline first."""
    return sorted(enumerate(summary.variants), key=lambda numbered: numbered[0] != summary.baseline)


def _figure(summary: Summary, number: int, metric: Metric) -> Figure:
    return summary.variants[number].figures.get(metric.name, NO_FIGURE)


def _same_n(summary: Summary, metric: Metric) -> int | None:
    """Return the number of cases of all values; None if they differ, or there is no value."""
    found = [_figure(summary, number, metric).estimate for number, _ in _ordered(summary)]
    counts = {estimate.n for estimate in found if estimate is not None}
    return counts.pop() if len(counts) == 1 else None


def _signed(metric: Metric, value: float) -> str:
    return ("−" if value < 0 else "+" if value > 0 else "") + format_difference(metric, abs(value))


def _formatter(metric: Metric) -> Callable[[float], str]:
    return lambda value: format_metric(metric, value)
