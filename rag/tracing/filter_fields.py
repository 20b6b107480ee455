"""The fields of the filter language, and how their values are read.

A value is read when the filter is parsed, so that it is refused before it is used; times are read again when the
filter is applied, since "today" moves.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args

from rag.tables import LARGEST_COUNT
from rag.types import Purpose

Operator = Literal["=", "!=", ">", ">=", "<", "<=", "contains"]
Kind = Literal["choice", "text", "seconds", "dollars", "count", "moment"]

UNKNOWN = "unknown"
"""The value of a number that a trace does not have."""

NO_FEEDBACK = "none"
"""The value of ``feedback`` for a trace without a thumb."""

ANY_PURPOSE = "any"
"""The value of ``purpose`` for all traces, with those of evaluations and the lab."""

STATUSES = ("ok", "abstained", "error", "cancelled", "interrupted", "filtered", "running")

_SECONDS: Mapping[str, float] = {
    "": 1,
    "ms": 0.001,
    "s": 1,
    "sec": 1,
    "m": 60,
    "min": 60,
    "h": 3600,
    "d": 86_400,
    "w": 604_800,
}
_COUNTS: Mapping[str, float] = {"": 1, "k": 1_000, "m": 1_000_000}
# Digits are limited, so that a number is finite and its conversion takes no time.
_NUMBER = re.compile(r"(\d{1,15}(?:\.\d{1,12})?|\.\d{1,12})([a-z]*)")
_DAYS: Mapping[str, int] = {"today": 0, "yesterday": -1}
_DAY, _MINUTE = timedelta(days=1), timedelta(minutes=1)
_FORMS: tuple[tuple[str, timedelta], ...] = (
    ("%Y-%m-%d", _DAY),
    ("%Y-%m-%dT%H:%M", _MINUTE),
    ("%Y-%m-%d %H:%M", _MINUTE),
    ("%Y-%m-%dT%H:%M:%S", timedelta(seconds=1)),
    ("%Y-%m-%d %H:%M:%S", timedelta(seconds=1)),
)


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the filter language.

    Attributes:
        about: Its meaning, for the help.
        choices: The values of a choice.
    """

    name: str
    kind: Kind
    about: str
    choices: tuple[str, ...] = ()

    @property
    def is_text(self) -> bool:
        """Whether the field has words and no order."""
        return self.kind in ("choice", "text")


@dataclass(frozen=True, slots=True)
class Period:
    """A time in a filter, in seconds since the epoch: ``end`` is the first moment after it.

    An ``instant`` has no length, such as two hours ago.
    """

    start: float
    end: float
    instant: bool = False


_ALL = (
    Field("status", "choice", "how the answer ended", STATUSES),
    Field("question", "text", "the question"),
    Field("answer", "text", "the answer"),
    Field("error", "text", "the message of a failed answer"),
    Field("text", "text", "question, answer and error"),
    Field("latency", "seconds", "time until the answer was finished"),
    Field("first_token", "seconds", "time until its first token"),
    Field("tokens", "count", "tokens read and written"),
    Field("input_tokens", "count", "tokens read"),
    Field("output_tokens", "count", "tokens written"),
    Field("cost", "dollars", "dollars"),
    Field("feedback", "choice", "the thumb", ("up", "down", NO_FEEDBACK)),
    Field("comment", "text", "the comment on a thumb"),
    Field("corpus", "text", "the corpus that was searched"),
    Field("model", "text", "the model that answered"),
    Field("prompt", "text", "the prompt, with or without its version"),
    Field("release", "text", "the release that answered"),
    Field("session", "text", "the id of the conversation"),
    Field("user", "text", "who asked"),
    Field("purpose", "choice", "what the question was asked for", (*get_args(Purpose), ANY_PURPOSE)),
    Field("started", "moment", "when it was asked"),
    Field("code", "text", "the version of ragsmith"),
)
FIELDS: Mapping[str, Field] = {field.name: field for field in _ALL}


def read_value(field: Field, text: str) -> str | float | None:
    """Read a value of a field that is no moment.

    Returns:
        A text; a number in seconds, dollars or tokens; None for an unknown number.

    Raises:
        ValueError: The text is no value of the field; the message says what is.
    """
    if field.kind == "text":
        return text
    lower = text.strip().lower()
    if field.kind == "choice":
        if lower not in field.choices:
            *some, last = field.choices
            raise ValueError(f"must be {', '.join(some)} or {last}")
        return lower
    if lower == UNKNOWN:
        return None
    return _READERS[field.kind](lower)


def read_moment(text: str, now: float) -> Period:
    """Read a date, a date with a time, ``today``, ``yesterday``, or how long ago it was, such as ``2h``.

    Raises:
        ValueError: The text is no time; the message says what is.
    """
    lower = text.strip().lower().removesuffix("ago").strip()
    today = datetime.fromtimestamp(now).replace(hour=0, minute=0, second=0, microsecond=0)
    if lower in _DAYS:
        day = today + timedelta(days=_DAYS[lower])
        return Period(day.timestamp(), (day + _DAY).timestamp())
    for form, length in _FORMS:
        try:
            start = datetime.strptime(lower.upper(), form)
            return Period(start.timestamp(), (start + length).timestamp())
        except (ValueError, OverflowError, OSError):
            continue
    number = _NUMBER.fullmatch(lower)
    if number is None or not number[2] or number[2] not in _SECONDS:
        raise ValueError(
            'must be a date such as 2026-05-31, "2026-05-31 16:00", today, yesterday, or 2h or 7d ago'
        )
    ago = now - float(number[1]) * _SECONDS[number[2]]
    return Period(ago, ago, instant=True)


def check_value(field: Field, text: str) -> Period | None:
    """Check a value of any field; return the time that a moment names now.

    Raises:
        ValueError: The text is no value of the field; the message says what is.
    """
    if field.kind == "moment":
        return read_moment(text, time.time())
    read_value(field, text)
    return None


def _seconds(text: str) -> float:
    return _measured(text, _SECONDS, "must be a time such as 2s, 300ms or 1.5min, or unknown")


def _dollars(text: str) -> float:
    bare = text.removeprefix("$").removesuffix("$").removesuffix("usd").strip()
    return _measured(bare, {"": 1}, "must be an amount such as $0.01 or 0.01, or unknown")


def _count(text: str) -> float:
    plain = text.replace(",", "").replace("_", "")
    return min(_measured(plain, _COUNTS, "must be a number such as 1200 or 8k, or unknown"), float(LARGEST_COUNT))


def _measured(text: str, units: Mapping[str, float], problem: str) -> float:
    number = _NUMBER.fullmatch(text.replace(" ", ""))
    if number is None or number[2] not in units:
        raise ValueError(problem)
    return float(number[1]) * units[number[2]]


_READERS: Mapping[Kind, Callable[[str], float]] = {"seconds": _seconds, "dollars": _dollars, "count": _count}
