"""Figures as a person reads them."""

from __future__ import annotations

from rag.evaluation.measures import Measure
from rag.evaluation.statistics import Estimate


def told(measure: Measure, value: float | None) -> str:
    """A value in its unit: ``81.2 %``, ``85 ms``, ``1.24 s``, ``38.5``, ``$0.0012``; a dash for none."""
    if value is None:
        return "–"
    return _told(measure, value).replace("-", "−")


def _told(measure: Measure, value: float) -> str:
    match measure.unit:
        case "share":
            return f"{100 * value:.1f} %"
        case "s":
            return f"{1000 * value:.0f} ms" if abs(value) < 1 else f"{value:.2f} s"
        case "USD":
            return f"${_significant(value)}"
        case "points":
            return f"{value:.2f}"
    return f"{value:,.1f}" if abs(value) < 100 else f"{value:,.0f}"


def told_interval(measure: Measure, estimate: Estimate | None) -> str:
    """``77.9 % to 84.4 %``; empty for none."""
    return f"{told(measure, estimate.low)} to {told(measure, estimate.high)}" if estimate else ""


def told_change(measure: Measure, estimate: Estimate | None) -> str:
    """``+2.1 %``, ``−12 ms``; empty for none."""
    if estimate is None:
        return ""
    sign = "−" if estimate.value < 0 else "+" if estimate.value > 0 else "±"
    return sign + told(measure, abs(estimate.value))


def better(measure: Measure, estimate: Estimate | None) -> bool | None:
    """Whether a change is surely for the better, or surely for the worse; None where it may be neither."""
    if estimate is None or measure.higher_is_better is None or estimate.low <= 0 <= estimate.high:
        return None
    return (estimate.value > 0) == measure.higher_is_better


def _significant(value: float) -> str:
    """Two digits that say something, and no exponent."""
    return f"{value:.2f}" if abs(value) >= 1 or value == 0 else f"{value:.{_places(value)}f}"


def _places(value: float) -> int:
    from math import floor, log10

    return min(1 - floor(log10(abs(value))), 12)
