"""The figures of a report: what is compared, the tables, and the plots, as its template shows them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rag.evaluation.charts import Bar, Drawing, Line, draw_cumulative, draw_intervals
from rag.evaluation.measures import BY_NAME, Group, Measure
from rag.evaluation.metric_formatting import format_change, format_interval, format_metric, is_better
from rag.evaluation.summary import Figure, Summary, VariantSummary

GROUPS: Mapping[Group, str] = {
    "retrieval": "Retrieval",
    "answer": "Answers",
    "grounding": "Grounding",
    "refusal": "Refusals",
    "judge": "Judge",
    "cost": "Time and cost",
}
# A group with more measures takes the whole width.
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
# The class of a change, and the word after it.
LOOKS = {True: ("is-better", " better"), False: ("is-worse", " worse"), None: ("is-open", "")}


@dataclass(frozen=True, slots=True)
class ComparedVariant:
    """A variant as the report names it.

    Attributes:
        changes: Names of settings, with their values as JSON.
    """

    summary: VariantSummary
    is_baseline: bool
    changes: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class FigureCell:
    """A figure in a table.

    Attributes:
        value: In its unit, or what stands for one that is missing.
        interval: Empty where there is no figure.
        n: On how many cases it rests; None where the column says so.
        change, change_interval: How it differs from the baseline; empty where it is not compared.
        look, verdict: The class of the change, and the word that follows it.
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
        n: The number of cases that all its figures rest on; None where they differ.
    """

    title: str
    description: str
    n: int | None


@dataclass(frozen=True, slots=True)
class FigureTable:
    """The figures of a group of measures: a row for each variant, with a cell for each column."""

    title: str
    columns: tuple[FigureColumn, ...]
    rows: tuple[tuple[ComparedVariant, tuple[FigureCell, ...]], ...]

    @property
    def is_wide(self) -> bool:
        """Whether it takes the whole width."""
        return len(self.columns) > NARROW


def compared_variants(summary: Summary) -> tuple[ComparedVariant, ...]:
    """The variants, the baseline first."""
    return tuple(
        ComparedVariant(
            variant,
            number == summary.baseline,
            tuple((name, json.dumps(value, ensure_ascii=False)) for name, value in variant.changes.items()),
        )
        for number, variant in _ordered(summary)
    )


def figure_tables(summary: Summary) -> list[FigureTable]:
    """A table for each group of measures that has some."""
    shown = list(summary.measures)
    if BY_NAME["cost"] not in shown:
        # A reader must see that it is unknown.
        shown.append(BY_NAME["cost"])
    groups = ((title, [measure for measure in shown if measure.group == group]) for group, title in GROUPS.items())
    return [_table(summary, title, measures) for title, measures in groups if measures]


def plots(summary: Summary, latencies: Sequence[Sequence[float]]) -> list[Drawing]:
    """The main measures of the variants, and how long their answers took.

    Args:
        summary: The table.
        latencies: Seconds, of each variant in any order.
    """
    order = [number for number, _ in _ordered(summary)]
    drawn = [
        draw_intervals(
            measure.title,
            [Bar(summary.variants[number].name, _figure(summary, number, measure).estimate) for number in order],
            _formatter(measure),
            baseline=0,
            limits=(0.0, 1.0) if measure.unit == "share" else (-math.inf, math.inf),
        )
        for measure in summary.measures
        if measure.name in DRAWN
    ]
    if any(latencies):
        lines = [Line(summary.variants[number].name, latencies[number]) for number in order]
        title = "Latency: share of the answers that took at most so long"
        drawn.append(draw_cumulative(title, lines, _formatter(BY_NAME["latency_p50"])))
    return drawn


def _table(summary: Summary, title: str, measures: Sequence[Measure]) -> FigureTable:
    columns = tuple(FigureColumn(one.title, one.told, _same_n(summary, one)) for one in measures)
    rows = (
        tuple(
            _cell(measure, _figure(summary, number, measure), with_n=column.n is None)
            for measure, column in zip(measures, columns, strict=True)
        )
        for number, _ in _ordered(summary)
    )
    return FigureTable(title, columns, tuple(zip(compared_variants(summary), rows, strict=True)))


def _cell(measure: Measure, figure: Figure, *, with_n: bool) -> FigureCell:
    estimate, change = figure.estimate, figure.change
    if estimate is None:
        return FigureCell("unknown" if measure.unit == "USD" else "–")
    value, interval = format_metric(measure, estimate.value), format_interval(measure, estimate)
    n = estimate.n if with_n else None
    if change is None:
        return FigureCell(value, interval, n)
    look, verdict = LOOKS[is_better(measure, change)]
    ends = " to ".join(_signed(measure, end) for end in (change.low, change.high))
    return FigureCell(value, interval, n, format_change(measure, change), ends, look, verdict)


def _ordered(summary: Summary) -> list[tuple[int, VariantSummary]]:
    """The variants with their numbers, the baseline first."""
    return sorted(enumerate(summary.variants), key=lambda numbered: numbered[0] != summary.baseline)


def _figure(summary: Summary, number: int, measure: Measure) -> Figure:
    return summary.variants[number].figures.get(measure.name, NO_FIGURE)


def _same_n(summary: Summary, measure: Measure) -> int | None:
    """The number of cases where every figure rests on as many; None where they differ, or there is no figure."""
    found = [_figure(summary, number, measure).estimate for number, _ in _ordered(summary)]
    counts = {estimate.n for estimate in found if estimate is not None}
    return counts.pop() if len(counts) == 1 else None


def _signed(measure: Measure, value: float) -> str:
    return ("−" if value < 0 else "+" if value > 0 else "") + format_metric(measure, abs(value))


def _formatter(measure: Measure) -> Callable[[float], str]:
    return lambda value: format_metric(measure, value)
