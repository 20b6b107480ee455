"""Formatting of metric values for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag.evaluation.metric_definitions import Metric
from rag.evaluation.statistics import Estimate
from rag.tracing.figures import format_cost, format_seconds

if TYPE_CHECKING:
    from rag.evaluation.summary import Figure


def format_metric(metric: Metric, value: float | None) -> str:
    """Format a value in its unit: ``81.2 %``, ``85 ms``, ``1.24 s``, ``38.5``, ``$0.0012``; a dash for None."""
    if value is None:
        return "–"
    return _in_unit(metric, value).replace("-", "−")


def format_figure(metric: Metric, figure: Figure | None) -> str:
    """Format the value of a figure, and how many cases it rests on if some were not judged: ``4.20 (8 of 10)``."""
    estimate = figure.estimate if figure else None
    value = format_metric(metric, estimate.value if estimate else None)
    return f"{value} ({estimate.n:,} of {figure.of:,})" if figure and estimate and figure.of else value


def _in_unit(metric: Metric, value: float) -> str:
    match metric.unit:
        case "share":
            return f"{100 * value:.1f} %"
        case "s":
            return format_seconds(value, digits=3)
        case "USD":
            return format_cost(value, exact=True)
        case "points":
            return f"{value:.2f}"
    return f"{value:,.1f}" if abs(value) < 100 else f"{value:,.0f}"


def format_interval(metric: Metric, estimate: Estimate | None) -> str:
    """Format an interval: ``77.9 % to 84.4 %``; empty for None."""
    if estimate is None:
        return ""
    return f"{format_metric(metric, estimate.low)} to {format_metric(metric, estimate.high)}"


def format_difference(metric: Metric, value: float) -> str:
    """Format a difference of values: ``2.1 points`` between shares, else in the unit of the metric."""
    formatted = format_metric(metric, value)
    return formatted.replace(" %", " points") if metric.unit == "share" else formatted


def format_change(metric: Metric, estimate: Estimate | None) -> str:
    """Format a change: ``+2.1 points``, ``−12 ms``; empty for None."""
    if estimate is None:
        return ""
    sign = "−" if estimate.value < 0 else "+" if estimate.value > 0 else "±"
    return sign + format_difference(metric, abs(estimate.value))


def format_change_interval(metric: Metric, estimate: Estimate | None) -> str:
    """Format the interval of a change: ``−5.2 to 11.4 points``, ``−12 ms to 9 ms``; empty for None."""
    if estimate is None:
        return ""
    ends = (format_difference(metric, end) for end in (estimate.low, estimate.high))
    return join_ends(*ends)


def join_ends(low: str, high: str) -> str:
    """Join the ends of the interval of a difference, with the word "points" only once."""
    return f"{low.removesuffix(' points')} to {high}"


def is_better(metric: Metric, estimate: Estimate | None) -> bool | None:
    """Whether a change is significantly better (True) or worse (False); None if it is neither."""
    if estimate is None or metric.higher_is_better is None or estimate.low <= 0 <= estimate.high:
        return None
    return (estimate.value > 0) == metric.higher_is_better
