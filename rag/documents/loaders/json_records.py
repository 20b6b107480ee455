"""JSON and JSON lines: every record is a document.

A record's ``text`` is stored exactly; a record without one is rendered as ``key: value`` lines. Records are the
lines of a JSONL file, the items of a list, or the items of the only list in an object.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rag.documents.loaders._blocks import Builder, finished, lines, paragraphs
from rag.documents.loaders._fields import date_in, scalar, scalars, title_or_none
from rag.documents.loaders._text import OnProblem, clean, decode, refused
from rag.errors import LoadError
from rag.types import Block, Document, Scalar

_DEEPEST = 100
"""Maximum levels of nesting."""

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
        value = json.loads(text)
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
        yield _whole(path, value)
        return
    records = ((f"record {number}", str(number), item) for number, item in enumerate(values, start=1))
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
                yield f"line {number}", str(number), json.loads(line)
            except json.JSONDecodeError as error:
                problems.add(f"line {number}: not valid JSON: {error.msg} at column {error.colno}")
            except (RecursionError, ValueError) as error:
                problems.add(f"line {number}: not readable: {_reason(error)}")

    yield from _documents(path, records(), problems)


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _records_in(value: object) -> list[object] | None:
    """Return the records in a JSON value; None if it is a single document."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        nested = [item for item in value.values() if isinstance(item, list | dict)]
        if len(nested) == 1 and isinstance(nested[0], list) and "text" not in value:
            items = nested[0]
            if items and all(isinstance(item, dict) for item in items):
                return items
    return None


def _whole(path: Path, value: object) -> Document:
    """Return a single object or scalar as the only document of its file."""
    fields = _fields_of(value)
    text, blocks = _text_of(path, fields)
    others = {key: item for key, item in fields.items() if key not in ("text", "title")}
    title = title_or_none(fields.get("title"))
    return Document(text, blocks, title=title, metadata=scalars(others), date=date_in(others))


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
            document = _document(path, number, value)
        except (LoadError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else error.message
            problems.add(f"{place}: {reason.removeprefix(clean(path.name)).strip().rstrip('.')}")
            continue
        if document.record in known:
            document = _renamed(document, number, known)
            problems.add(f"{place}: an earlier record has the same id; this one is kept as {document.record}")
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


def _document(path: Path, number: str, value: object) -> Document:
    """Return a record as a document, identified by its ``id`` or ``_id``, or else its number."""
    fields = _fields_of(value)
    text, blocks = _text_of(path, fields)
    identity = next((found for key in ("id", "_id") if (found := scalar(fields.get(key))) is not None), None)
    shown: Scalar = number if identity is None else identity
    others = {key: item for key, item in fields.items() if key not in ("id", "text", "title")}
    return Document(
        text,
        blocks,
        title=title_or_none(fields.get("title")),
        record=str(shown),
        metadata={"id": shown, **scalars(others)},
        date=date_in(others),
    )


def _fields_of(value: object) -> dict[str, object]:
    """Return the fields of an object; any other value becomes the field ``text``."""
    if isinstance(value, dict):
        return value
    return {"text": value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}


def _text_of(path: Path, fields: dict[str, object]) -> tuple[str, tuple[Block, ...]]:
    """Return the stored text of a record and its blocks.

    Raises:
        LoadError: The record contains nothing readable.
    """
    text = fields.get("text")
    if isinstance(text, str) and text.strip():
        text = clean(text)
        return text, finished(path, text, (Block(start, end) for start, end in paragraphs(text)))
    builder = Builder()
    for name, item in _flat(path, fields):
        # A question as the name of its answer stands on a line of its own.
        asks = name.endswith("?")
        builder.add(f"{name}\n{item}" if asks else f"{name}: {item}", gap="\n\n" if asks else "\n")
    return builder.text, finished(path, builder.text, builder.blocks)


def _flat(path: Path, fields: dict[str, object]) -> Iterator[tuple[str, str]]:
    """Yield every scalar with its key path (``paragraphs.0.context``), in order, without recursion."""
    waiting: list[tuple[str, object, int]] = [("", fields, 0)]
    while waiting:
        name, value, depth = waiting.pop()
        if depth > _DEEPEST:
            raise refused(path, f"is nested more than {_DEEPEST} levels deep", "Flatten it.")
        if isinstance(value, dict):
            items = [(f"{name}.{key}" if name else str(key), item, depth + 1) for key, item in value.items()]
            waiting.extend(reversed(items))
        elif isinstance(value, list):
            if all(isinstance(item, str | int | float) for item in value):
                if value:
                    yield name, ", ".join(map(str, value))
                continue
            waiting.extend((f"{name}.{i}", value[i], depth + 1) for i in reversed(range(len(value))))
        elif value is not None and value != "":
            yield name, str(value)
