"""Metadata, dates and titles of a source, as plain scalars."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import date, datetime

from rag.documents.loaders._blocks import one_line
from rag.documents.loaders._text import REPLACEMENT, clean
from rag.types import Scalar

LONGEST_VALUE = 2_000
"""Maximum characters of a metadata value, because every passage carries its document's metadata."""

_DATE_KEYS = ("date", "created", "published", "publication_date", "published_at", "created_at")
_ISO = re.compile(r"(?:D:)?(\d{4})-?(\d{2})-?(\d{2})(?!\d{2}-)")
_DAY_FIRST = re.compile(r"(\d{1,2})[ -]([A-Za-z]{3})[a-z]*\.?[ ,-]{1,2}(\d{4})")
_MONTH_FIRST = re.compile(r"([A-Za-z]{3})[a-z]*\.? (\d{1,2}), ?(\d{4})")
_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {m: i for i, m in enumerate(_MONTH_NAMES, start=1)}
_PLACEHOLDERS = {"untitled", "document", "title", "presentation", "word document", "powerpoint presentation"}
_FILE_NAME = re.compile(r"\.(?:docx?|pptx?|xlsx?|pdf|indd|qxd|tex|dvi|html?|rtf|odt)$", re.IGNORECASE)
_INT64 = 2**63


def scalars(fields: Mapping[str, object]) -> dict[str, Scalar]:
    """Convert arbitrary fields to metadata: scalars unchanged, lists of scalars joined, the rest as JSON.

    Empty values and values longer than ``LONGEST_VALUE`` are dropped.
    """
    found = ((clean(str(key)), scalar(value)) for key, value in fields.items())
    return {key: value for key, value in found if value is not None and key}


def scalar(value: object) -> Scalar | None:
    """Convert a value for metadata; None if it is empty or too long."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and -_INT64 <= value < _INT64:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    text = _as_text(value)
    return text if 0 < len(text) <= LONGEST_VALUE else None


def too_long(fields: Mapping[str, object]) -> list[str]:
    """Return the names of the fields that ``scalars`` drops although they are not empty."""
    return [clean(str(key)) for key, value in fields.items() if scalar(value) is None and _as_text(value)]


def _as_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple | set) and all(isinstance(x, str | int | float) for x in value):
        return clean(", ".join(str(item) for item in value))
    if isinstance(value, list | tuple | dict):
        try:
            return clean(json.dumps(value, ensure_ascii=False, default=str)) if value else ""
        except RecursionError:
            # Nested too deeply to be written: it counts as too long.
            return REPLACEMENT * (LONGEST_VALUE + 1)
    return clean(str(value)).strip()


def date_in(fields: Mapping[str, object]) -> date | None:
    """Return the first date among fields with the name of a date, in any case."""
    lowered = {str(key).lower(): value for key, value in fields.items()}
    return next((day for key in _DATE_KEYS if (day := to_date(lowered.get(key)))), None)


def to_date(value: object) -> date | None:
    """Parse a date: ISO, PDF (``D:20230817…``), ``05-Jul-2001``, ``July 5, 2001``."""
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    if not isinstance(value, str):
        return None
    text = value.strip()[:40]
    try:
        if found := _ISO.match(text):
            return date(int(found[1]), int(found[2]), int(found[3]))
        if found := _DAY_FIRST.match(text):
            return date(int(found[3]), _MONTHS.get(found[2].lower(), 0), int(found[1]))
        if found := _MONTH_FIRST.match(text):
            return date(int(found[3]), _MONTHS.get(found[1].lower(), 0), int(found[2]))
    except ValueError:
        return None  # 2023-02-31, or a word that is not a month.
    return None


def take_title(fields: dict[str, object]) -> str | None:
    """Remove and return the field ``title``, in any case."""
    name = next((key for key in fields if key.lower() == "title"), None)
    return title_or_none(fields.pop(name)) if name is not None else None


def title_or_none(value: object) -> str | None:
    """Return a title on one line, or None; a number is allowed, since a year may be a title."""
    return (one_line(str(value)) or None) if isinstance(value, str | int) else None


def written_title(value: object) -> str | None:
    """Return the title in a file's properties, unless it was generated: file names, numbers, placeholders."""
    title = title_or_none(value)
    if title is None or title.lower() in _PLACEHOLDERS or not any(c.isalpha() for c in title):
        return None
    if title.startswith(("Microsoft Word - ", "Microsoft PowerPoint - ")) or _FILE_NAME.search(title):
        return None
    return title
