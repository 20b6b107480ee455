"""JSON and JSON lines: every record is a document.

A record's ``text`` is stored exactly; a record without one is rendered as ``key: value`` lines. Records are the
lines of a JSONL file, the items of a list, or the items of the only list in an object, whose other fields are a
record, too. A list of lists is a table if its first row looks like the names of the columns.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path

from rag.documents.loaders._blocks import LONGEST_HEADING, lines
from rag.documents.loaders._fields import LONGEST_VALUE, date_in, scalar, scalars, title_or_none, too_long
from rag.documents.loaders._record_text import fields_of, has_text, is_cell, text_of, written
from rag.documents.loaders._text import OnProblem, clean, decode, refused
from rag.errors import LoadError
from rag.types import Document, Scalar

_UNNAMED = "unnamed"
"""Name of a field whose own is empty."""

_MOST_DIGITS = 4_000
"""Digits from which an integer is text: Python converts about as many."""

_BESIDE = "beside"
"""Number of the record that has the fields beside the only list of an object."""

Record = tuple[str, str, object]
"""Location (``line 7``), number from 1, value."""


def load(path: Path, data: bytes, on_problem: OnProblem) -> Iterator[Document]:
    """Yield the records of a JSON file.

    Raises:
        LoadError: The file is not valid JSON, is nested too deeply, or has no readable record.
    """
    text = decode(path, data, on_problem)
    del data
    try:
        value = _parsed(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # A second value after the first: JSON lines under another suffix.
            yield from _load_lines(path, text, on_problem)
            return
        problem = f"is not valid JSON in line {error.lineno}, column {error.colno}: {error.msg}"
        raise refused(path, problem, "Fix that line.") from error
    except (RecursionError, ValueError) as error:
        raise refused(path, f"is not readable JSON ({_reason(error)})", "Leave it out.") from error
    del text
    values = _records_in(value)
    if values is None:
        yield _whole(path, value, on_problem)
        return
    records: Iterator[Record] = (
        (f"record {number}", str(number), item) for number, item in enumerate(values, start=1)
    )
    if beside := _beside(value):
        records = chain([("fields beside the list", _BESIDE, beside)], records)
    yield from _documents(path, records, _Problems(on_problem))


def load_lines(path: Path, data: bytes, on_problem: OnProblem) -> Iterator[Document]:
    """Yield the records of a file with one JSON value per line, skipping bad lines.

    Raises:
        LoadError: No line contains a readable record.
    """
    text = decode(path, data, on_problem)
    del data
    yield from _load_lines(path, text, on_problem)


def _load_lines(path: Path, text: str, on_problem: OnProblem) -> Iterator[Document]:
    problems = _Problems(on_problem)

    def records() -> Iterator[Record]:
        for number, (start, end) in enumerate(lines(text, 0, len(text)), start=1):
            line = text[start:end]
            if line.isspace() or not line:
                continue
            try:
                yield f"line {number}", str(number), _parsed(line)
            except json.JSONDecodeError as error:
                problems.add(f"line {number}: not valid JSON: {error.msg} at column {error.colno}")
            except (RecursionError, ValueError) as error:
                problems.add(f"line {number}: not readable: {_reason(error)}")

    yield from _documents(path, records(), problems)


def _parsed(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_named)
    except json.JSONDecodeError:
        raise
    except ValueError:
        # An integer of more digits than Python converts stays as it is written.
        return json.loads(text, object_pairs_hook=_named, parse_int=_integer)


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) < _MOST_DIGITS else digits


def _named(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return the fields of an object; a name that occurs again gets a number, as in the header of a table."""
    fields = {clean(name) or _UNNAMED: value for name, value in pairs}
    if len(fields) == len(pairs):
        return fields
    fields = {}
    times: Counter[str] = Counter()
    for given, value in pairs:
        name = clean(given) or _UNNAMED
        times[name] += 1
        own = name if times[name] == 1 else f"{name} ({times[name]})"
        while own in fields:
            own += "~"
        fields[own] = value
    return fields


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _records_in(value: object) -> list[object] | None:
    """Return the records in a JSON value; None if it is a single document."""
    if isinstance(value, list):
        return _named_rows(value)
    if isinstance(value, dict):
        nested = [item for item in value.values() if isinstance(item, list | dict)]
        if len(nested) == 1 and isinstance(nested[0], list) and "text" not in value:
            items = nested[0]
            if items and all(isinstance(item, dict) for item in items):
                return items
    return None


def _named_rows(values: list[object]) -> list[object]:
    """Return the rows below names of columns as objects; other values unchanged."""
    rows = [value for value in values if isinstance(value, list) and value and all(map(is_cell, value))]
    if len(rows) < max(len(values), 2):
        return values
    names, *body = rows
    if any(len(row) > len(names) for row in body) or not all(isinstance(name, str) and name for name in names):
        return values
    columns = zip_longest(*body)
    # Names above numbers; two lists of words may be two rows.
    if not any(2 * sum(isinstance(cell, int | float) for cell in column) > len(body) for column in columns):
        return values
    return [_named(list(zip(map(str, names), row, strict=False))) for row in body]


def _beside(value: object) -> dict[str, object]:
    """Return the filled fields beside the only list of an object."""
    if not isinstance(value, dict):
        return {}
    return {key: item for key, item in value.items() if not isinstance(item, list) and written(item)}


def _whole(path: Path, value: object, on_problem: OnProblem) -> Document:
    """Return a single object or scalar as the only document of its file."""
    fields = fields_of(value)
    text, blocks = text_of(path, fields)
    for problem in _losses(fields):
        on_problem(problem)
    title, others = _title_and_others(fields)
    return Document(text, blocks, title=title, metadata=scalars(others), date=date_in(others))


def _losses(fields: dict[str, object]) -> Iterator[str]:
    """Yield a problem for every field beside ``text`` that is too long for metadata, or for a title."""
    if has_text(fields):
        title, others = _title_and_others(fields)
        if title is not None and len(" ".join(str(fields["title"]).split())) > LONGEST_HEADING:
            yield f"the title was cut after {LONGEST_HEADING} characters"
        for name in too_long(others):
            yield f"the field {name} was not read: it is longer than {LONGEST_VALUE:,} characters, beside a text"


def _title_and_others(fields: dict[str, object]) -> tuple[str | None, dict[str, object]]:
    """Return the title, and the fields that become metadata."""
    title = title_or_none(fields.get("title"))
    apart = ("text",) if title is None else ("text", "title")
    return title, {key: item for key, item in fields.items() if key not in apart}


class _Problems:
    """Reports problems of records, and keeps the first one for the error of a file without any good record."""

    def __init__(self, on_problem: OnProblem) -> None:
        self.first: str | None = None
        self._on_problem = on_problem

    def add(self, problem: str) -> None:
        self.first = self.first or problem
        self._on_problem(problem)


def _documents(path: Path, records: Iterator[Record], problems: _Problems) -> Iterator[Document]:
    known: set[str] = set()
    for place, number, value in records:
        try:
            fields = fields_of(value)
            document = _document(path, number, fields)
        except (LoadError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else error.message
            problems.add(f"{place}: {reason.removeprefix(clean(path.name)).strip().rstrip('.')}")
            continue
        if document.record in known:
            document = _renamed(document, number, known)
            problems.add(f"{place}: an earlier record has the same id; this one is kept as {document.record}")
        for problem in _losses(fields):
            problems.add(f"{place}: {problem}")
        known.add(document.record)
        yield document
    if not known:
        reason = problems.first or "it is empty"
        raise refused(path, f"has no readable record ({reason})", "Fix the file, or leave it out.")


def _renamed(document: Document, number: str, known: set[str]) -> Document:
    """Return the document with an unused record id."""
    name = f"{document.record}~{number}"
    while name in known:
        name += "~"
    return replace(document, record=name)


def _document(path: Path, number: str, fields: dict[str, object]) -> Document:
    """Return a record as a document, identified by its ``id`` or ``_id``, or else its number."""
    text, blocks = text_of(path, fields)
    identity = next((found for key in ("id", "_id") if (found := scalar(fields.get(key))) is not None), None)
    shown: Scalar = number if identity is None else identity
    title, others = _title_and_others(fields)
    others.pop("id", None)
    return Document(
        text,
        blocks,
        title=title,
        record=str(shown),
        metadata={"id": shown, **scalars(others)},
        date=date_in(others),
    )
