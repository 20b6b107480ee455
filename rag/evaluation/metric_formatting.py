"""Values of metrics as a person reads them."""

from __future__ import annotations

from rag.evaluation.measures import Measure
from rag.evaluation.statistics import Estimate
from rag.tracing.figures import format_cost, format_seconds


def format_metric(measure: Measure, value: float | None) -> str:
    """A value in its unit: ``81.2 %``, ``85 ms``, ``1.24 s``, ``38.5``, ``$0.0012``; a dash for none."""
    if value is None:
        return "–"
    return _in_unit(measure, value).replace("-", "−")


def _in_unit(measure: Measure, value: float) -> str:
    match measure.unit:
        case "share":
            return f"{100 * value:.1f} %"
        case "s":
            return format_seconds(value, digits=3)
        case "USD":
            return format_cost(value)
        case "points":
            return f"{value:.2f}"
    return f"{value:,.1f}" if abs(value) < 100 else f"{value:,.0f}"


def format_interval(measure: Measure, estimate: Estimate | None) -> str:
    """``77.9 % to 84.4 %``; empty for none."""
    if estimate is None:
        return ""
    return f"{format_metric(measure, estimate.low)} to {format_metric(measure, estimate.high)}"


def format_change(measure: Measure, estimate: Estimate | None) -> str:
    """``+2.1 %``, ``−12 ms``; empty for none."""
    if estimate is None:
        return ""
    sign = "−" if estimate.value < 0 else "+" if estimate.value > 0 else "±"
    return sign + format_metric(measure, abs(estimate.value))


def is_better(measure: Measure, estimate: Estimate | None) -> bool | None:
    """Whether a change is surely for the better, or surely for the worse; None where it may be neither."""
    if estimate is None or measure.higher_is_better is None or estimate.low <= 0 <= estimate.high:
        return None
    return (estimate.value > 0) == measure.higher_is_better
