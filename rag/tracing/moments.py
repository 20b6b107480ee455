"""Times as people type them."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta

from rag.errors import FilterError
from rag.tracing.ledger import day_start

_AGO = re.compile(r"(\d{1,5}) *([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 168}


def parse_moment(typed: str, now: float, *, end: bool = False) -> float:
    """Return a typed time in seconds since the epoch.

    Args:
        typed: A day (``2026-11-03``, ``today``, ``yesterday``), a day with a time (``2026-11-03 14:00``), or how
            long ago (``24h``, ``7d``, ``2w``).
        now: The present, in seconds since the epoch.
        end: Whether a day means its end.

    Raises:
        FilterError: It is none of these.
    """
    text = " ".join(typed.strip().lower().split())
    if ago := _AGO.fullmatch(text):
        return now - int(ago[1]) * _HOURS[ago[2]] * 3600
    today = datetime.fromtimestamp(now).astimezone().date()
    named = {"today": today, "yesterday": today - timedelta(days=1)}
    try:
        day = named.get(text) or (date.fromisoformat(text) if len(text) == 10 else None)
        if day is not None:
            return day_start(day + timedelta(days=1) if end else day)
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise FilterError(
            f"{typed!r} is not a time.",
            fix="Use a day such as 2026-11-03, today or yesterday, or 24h, 7d or 2w ago.",
        ) from error
