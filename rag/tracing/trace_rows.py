"""Traces as rows of the tables ``traces``, ``spans`` and ``trace_passages``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from rag.database import insert_new, insert_or_replace
from rag.tables import LARGEST_COUNT
from rag.trace_tables import spans as spans_table
from rag.trace_tables import trace_passages as passages_table
from rag.trace_tables import traces as traces_table
from rag.tracing.export_queue import enqueue
from rag.tracing.span_contents import Contents, forget_contents, texts_of, unpacked
from rag.tracing.totals import add_up, due_of
from rag.tracing.trace_types import Feedback, Span, Trace, UsedPassage
from rag.types import current_model

# Prefix of `tracked` while a process delivers the trace; afterwards, it is the tracker's run.
CLAIM = "claim:"

# `tracked` of traces from while tracking was off, which must not be delivered later.
WITHHELD = "off"

_OWN = ("tracked", "spans", "passages", "feedback")
FEEDBACK = tuple(f.name for f in fields(Feedback))
"""The columns of ``feedback`` that a trace is joined with."""
_ROW = tuple(f.name for f in fields(Trace) if f.name not in _OWN)
_SPAN_ROW = tuple(f.name for f in fields(Span))


@dataclass(frozen=True, slots=True)
class Begun:
    """A new trace."""

    trace: Trace


@dataclass(frozen=True, slots=True)
class Stepped:
    """A finished step of a running trace."""

    trace_id: str
    span: Span


@dataclass(frozen=True, slots=True)
class Ended:
    """The whole trace, which replaces its earlier state.

    Attributes:
        stored: Ids of spans that are stored as they are in the trace.
        stale: Ids of stored spans that are not; None for all that are stored.
    """

    trace: Trace
    stored: frozenset[str]
    stale: frozenset[str] | None


Change = Begun | Stepped | Ended


def without_steps(change: Change, error: Exception) -> Change | None:
    """Return a short trace instead of one that the database does not take: it is better than none."""
    if not isinstance(change, Ended) or not change.trace.spans:
        return None
    said = f"The trace could not be stored: {error}"
    return Ended(replace(change.trace, status="error", error=said, spans=()), frozenset(), None)


def write_changes(
    connection: Connection, changes: Sequence[Change], *, withheld: bool = False, exported: bool = False
) -> None:
    """Write changes of traces; those of one trace are in order.

    Args:
        withheld: Whether the traces are excluded from tracking.
        exported: Whether the traces of this process that are new, or end, are also queued for a collector.
    """
    tracked = {"tracked": WITHHELD} if withheld else {}
    # By kind, so that many rows share a statement: all begins before all steps, and all steps before all ends.
    ended = [change for change in changes if isinstance(change, Ended)]
    begun = [change.trace for change in changes if isinstance(change, Begun)]
    insert_new(connection, traces_table, [row_of_trace(trace) | tracked for trace in begun])
    due = due_of(connection, [change.trace for change in ended])
    insert_or_replace(connection, traces_table, [row_of_trace(change.trace) | tracked for change in ended])
    if exported:
        enqueue(connection, begun)
        enqueue(connection, due)
    contents = Contents()
    steps = [row_of_span(c.trace_id, c.span, contents) for c in changes if isinstance(c, Stepped)]
    if steps:
        connection.execute(insert(spans_table), steps)
    for change in ended:
        _delete_stale(connection, change)
    rest = [
        row_of_span(c.trace.id, span, contents) for c in ended for span in c.trace.spans if span.id not in c.stored
    ]
    if rest:
        connection.execute(insert(spans_table), rest)
    contents.write(connection)
    passages = [asdict(passage) | {"trace_id": c.trace.id} for c in ended for passage in c.trace.passages]
    insert_new(connection, passages_table, passages)
    add_up(connection, due)


def _delete_stale(connection: Connection, change: Ended) -> None:
    column = spans_table.c
    if change.stale is None:
        for table in (spans_table, passages_table):
            connection.execute(delete(table).where(table.c.trace_id == change.trace.id))
        forget_contents(connection, [change.trace.id])
    elif change.stale:
        connection.execute(delete(spans_table).where(column.id.in_(change.stale)))


def row_of_trace(trace: Trace) -> dict[str, Any]:
    """Return the row of a trace, without what is stored beside it."""
    row = {name: getattr(trace, name) for name in _ROW} | _counts(trace)
    return row | {"conversation_id": trace.conversation_id or None}


def row_of_span(trace_id: str, span: Span, contents: Contents) -> dict[str, Any]:
    """Return the row of a span, whose large strings ``contents`` keeps."""
    row = {name: getattr(span, name) for name in _SPAN_ROW} | _counts(span)
    data = {name: contents.packed(trace_id, row[name]) for name in ("input", "output")}
    return row | data | {"trace_id": trace_id}


def _counts(of: Trace | Span) -> dict[str, int | None]:
    """Return the token counts within the range of their columns, which sums may exceed."""
    counts = {name: getattr(of, name) for name in ("input_tokens", "output_tokens", "cached_tokens")}
    return {name: None if count is None else min(max(count, 0), LARGEST_COUNT) for name, count in counts.items()}


def trace_of_row(row: Row[Any]) -> Trace:
    """Build a trace without its spans from its row, joined with its feedback."""
    values = {name: getattr(row, name) for name in _ROW}
    values["model"] = current_model(row.model)
    values["conversation_id"] = row.conversation_id or ""
    tracked = row.tracked if row.tracked and not row.tracked.startswith(CLAIM) else None
    return Trace(**values, tracked=tracked, feedback=feedback_of_row(row))


def feedback_of_row(row: Row[Any]) -> Feedback | None:
    """Return the feedback of a row of a trace that is joined with it; None if it has none."""
    return Feedback(**{name: getattr(row, name) for name in FEEDBACK}) if row.rating else None


def whole_trace(connection: Connection, row: Row[Any]) -> Trace:
    """Build a trace with its spans and passages; see ``trace_of_row``."""
    spans, passages = spans_table.c, passages_table.c
    texts = texts_of(connection, row.id)
    found = connection.execute(select(spans_table).where(spans.trace_id == row.id).order_by(spans.position)).all()
    used = connection.execute(select(passages_table).where(passages.trace_id == row.id).order_by(passages.rank))
    return replace(
        trace_of_row(row),
        spans=tuple(span_of_row(span, texts) for span in found),
        passages=tuple(passage_of_row(passage) for passage in used),
    )


def passage_of_row(row: Row[Any]) -> UsedPassage:
    """Build a used passage from its row."""
    return UsedPassage(row.passage_id, row.rank, bool(row.cited))


def span_of_row(row: Row[Any], texts: Mapping[str, str]) -> Span:
    """Build a span from its row and the large strings of its trace."""
    values = {name: getattr(row, name) for name in _SPAN_ROW}
    return Span(**values | {name: unpacked(values[name], texts) for name in ("input", "output")})
