"""Formatting of time, cost, tokens, numbers and place, for the page, reports and the terminal."""

from __future__ import annotations

from math import floor, log10


def format_seconds(seconds: float, *, digits: int = 2) -> str:
    """Format a time: ``85 ms``, ``1.9 s``, ``12 s``, ``3 min 20 s``.

    Args:
        seconds: The time.
        digits: Significant digits between a second and a minute; use three for comparisons.
    """
    size = abs(seconds)
    if size < 1:
        return f"{1000 * seconds:.0f} ms"
    if size < 60:
        return f"{seconds:.{digits - (1 if size < 10 else 2)}f} s"
    sign = "-" if seconds < 0 else ""
    return f"{sign}{int(size // 60)} min {int(size % 60)} s"


def format_cost(usd: float | None, *, exact: bool = False) -> str:
    """Format a cost: ``$1.20``, ``$0.0042``, ``< $0.0001``; ``cost unknown`` for None.

    Args:
        usd: The cost in dollars.
        exact: Whether two digits of a smaller cost are shown, ``$0.000012``; use it for comparisons.
    """
    if usd is None:
        return "cost unknown"
    if usd == 0:
        return "$0"
    size = abs(usd)
    if size < 0.0001 and not exact:
        return "< $0.0001"
    places = 2 if size >= 1 else min(max(4, 1 - floor(log10(size))), 12)
    return f"{'-' if usd < 0 else ''}${size:.{places}f}"


def format_tokens(read: int | None, written: int | None, *, split: bool = False) -> str:
    """Format the sum of tokens: ``812 tok``, or both counts: ``700 + 112 tok``; ``tokens unknown`` without any."""
    if read is None and written is None:
        return "tokens unknown"
    if split:
        return " + ".join("?" if count is None else f"{count:,}" for count in (read, written)) + " tok"
    return f"{(read or 0) + (written or 0):,} tok"


def format_measure(name: str, value: float | None) -> str:
    """Format a field of a trace for a comparison: seconds for ``…_s``, dollars for ``…_usd``, else a number."""
    if value is None:
        return "unknown"
    if name.endswith("_s"):
        return format_seconds(value, digits=3)
    return format_cost(value, exact=True) if name.endswith("_usd") else f"{value:,.0f}"


def counted(number: int, thing: str) -> str:
    """Format a number of things: ``1 file``, ``1,200 files``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def format_place(name: str, page: int | None) -> str:
    """Format a source: ``report.pdf p. 3``; only the name without a page."""
    return name if page is None else f"{name} p. {page}"
