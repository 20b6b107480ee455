"""Traces in files of JSON lines, one trace with its steps and its feedback a line; gzipped if the name ends so."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields, replace
from functools import cache
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, BinaryIO, get_type_hints

from pydantic import BaseModel, ValidationError, create_model

from prompts.files import atomic_write
from prompts.validation import plain_reason
from rag.errors import TraceFileError
from rag.tracing.trace_rows import WITHHELD
from rag.tracing.trace_store import Span, Trace, TraceStore

SUFFIXES = (".jsonl", ".jsonl.gz")
LONGEST_ID = 36
LONGEST_LINE = 64_000_000
"""Characters of a line; a file that is no list of traces may be a single one."""


def write_traces(path: Path, traces: Iterable[Trace]) -> int:
    """Write traces, atomically, and return their number.

    Raises:
        TraceFileError: The file cannot be written, or its name does not end in ``.jsonl`` or ``.jsonl.gz``.
    """
    _check_name(path)
    count = 0
    try:
        with atomic_write(path) as binary, _written(path, binary) as file:
            for trace in traces:
                file.write(json.dumps(asdict(trace), ensure_ascii=False, default=str) + "\n")
                count += 1
    except OSError as error:
        raise TraceFileError(f"{path} cannot be written: {error.strerror or error}.") from error
    return count


def read_traces(path: Path) -> Iterator[Trace]:
    """Yield the traces of a file.

    Raises:
        TraceFileError: The file cannot be read, or a line is no trace; the message has the number of the line.
    """
    _check_name(path)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            yield from _read(path, lines)  # type: ignore[arg-type]
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TraceFileError(f"{path} cannot be read: {reason}.") from error


def import_traces(path: Path, store: TraceStore) -> tuple[int, int]:
    """Store the traces of a file under their ids, or none if a line is no trace.

    A trace that is stored already stays as it is, so that a repeat changes nothing. Trackers are not given what
    was imported: it belongs to another workspace.

    Returns:
        The number of traces that were stored, and of those that had been before.

    Raises:
        TraceFileError: The file cannot be read, or a line is no trace.
    """
    for _ in read_traces(path):
        pass
    stored = known = 0
    for trace in read_traces(path):
        if store.brief([trace.id]):
            known += 1
            continue
        store.save(_ended(trace))
        store.mark_tracked([trace.id], trace.tracked or WITHHELD)
        if trace.feedback is not None:
            rated = trace.feedback
            store.rate(trace.id, rated.rating, rated.comment, rated.correction, at=rated.at)
            if rated.review in ("accepted", "rejected"):
                store.review(trace.id, rated.review, by=rated.reviewer)
        stored += 1
    return stored, known


def _ended(trace: Trace) -> Trace:
    """Return the trace with the status of one whose process is gone, if it was running."""
    return replace(trace, status="interrupted") if trace.status == "running" else trace


@contextmanager
def _written(path: Path, binary: BinaryIO) -> Iterator[IO[str]]:
    if path.suffix != ".gz":
        file = TextIOWrapper(binary, encoding="utf-8", errors="replace", newline="\n")
        yield file
        file.flush()
        file.detach()
        return
    # Without name and time, the same traces make the same file.
    with (
        gzip.GzipFile("", "wb", fileobj=binary, mtime=0) as packed,
        TextIOWrapper(packed, encoding="utf-8", errors="replace", newline="\n") as text,
    ):
        yield text


def _read(path: Path, lines: BinaryIO) -> Iterator[Trace]:
    seen: dict[str, int] = {}
    number = 0
    while line := lines.readline(LONGEST_LINE + 1):
        number += 1
        where = f"{path}, line {number}"
        if len(line) > LONGEST_LINE:
            raise TraceFileError(f"{where}: the line is longer than {LONGEST_LINE:,} bytes.")
        if not line.strip():
            continue
        trace = _trace(line, where)
        if trace.id in seen:
            raise TraceFileError(f"{where}: the trace {trace.id} is on line {seen[trace.id]}, too.")
        seen[trace.id] = number
        yield trace


def _trace(line: bytes, where: str) -> Trace:
    try:
        read: Any = _line_model().model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise TraceFileError(
            f"{where}: this is no trace: {f'{place}: ' if place else ''}{plain_reason(first['msg'])}.",
            fix="Use a file that `ragsmith traces export` has written.",
        ) from error
    if not read.id or len(read.id) > LONGEST_ID:
        raise TraceFileError(f"{where}: the id of a trace must have 1 to {LONGEST_ID} characters.")
    spans = tuple(Span(**{name: getattr(span, name) for name in _names(Span)}) for span in read.spans)
    return Trace(**{name: getattr(read, name) for name in _names(Trace)} | {"spans": spans})


@cache
def _line_model() -> type[BaseModel]:
    """Return the model of a line; the names of its fields are those of ``Trace``."""
    span = _model(Span)
    return _model(Trace, spans=(tuple[span, ...], ()))  # type: ignore[valid-type]


def _model(of: type[Trace | Span], **others: Any) -> type[BaseModel]:
    # The type of JSON contains itself, which pydantic does not follow.
    hints = get_type_hints(of) | {"input": object, "output": object}
    hints["attributes"] = dict[str, object]
    known: dict[str, Any] = {}
    for field in fields(of):
        is_required = field.default is MISSING and field.default_factory is MISSING
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        known[field.name] = (hints[field.name], ... if is_required else default)
    return create_model(of.__name__, **known | others)


def _names(of: type[Trace | Span]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(of))


def _check_name(path: Path) -> None:
    if not path.name.endswith(SUFFIXES):
        raise TraceFileError(f"{path} must end in .jsonl or .jsonl.gz.", fix="Choose another name.")
