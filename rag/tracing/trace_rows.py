"""Traces as rows of the tables ``traces`` and ``spans``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from sqlalchemy import Connection, Row, delete, insert

from rag.database import insert_new, insert_or_replace
from rag.tables import LARGEST_COUNT
from rag.tables import spans as spans_table
from rag.tables import traces as traces_table
from rag.tracing.totals import add_up, due_of
from rag.tracing.trace_types import Feedback, Span, Trace
from rag.types import current_model

# Prefix of `tracked` while a process delivers the trace; afterwards, it is the tracker's run.
CLAIM = "claim:"

_OWN = ("tracked", "spans", "feedback")
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
    """Return what to store instead of a trace that the database does not take: a short trace is better than none."""
    if not isinstance(change, Ended) or not change.trace.spans:
        return None
    said = f"The trace could not be stored: {error}"
    return Ended(replace(change.trace, status="error", error=said, spans=()), frozenset(), None)


def write_changes(connection: Connection, changes: Sequence[Change]) -> None:
    """Write changes of traces; those of one trace are in order."""
    # By kind, so that many rows share a statement: all begins before all steps, and all steps before all ends.
    ended = [change for change in changes if isinstance(change, Ended)]
    insert_new(connection, traces_table, [_row(change.trace) for change in changes if isinstance(change, Begun)])
    _insert_spans(connection, [(c.trace_id, c.span) for c in changes if isinstance(c, Stepped)])
    due = due_of(connection, [change.trace for change in ended])
    insert_or_replace(connection, traces_table, [_row(change.trace) for change in ended])
    for change in ended:
        _delete_spans(connection, change)
    _insert_spans(
        connection,
        [(c.trace.id, span) for c in ended for span in c.trace.spans if span.id not in c.stored],
    )
    add_up(connection, due)


def _delete_spans(connection: Connection, change: Ended) -> None:
    column = spans_table.c
    if change.stale is None:
        connection.execute(delete(spans_table).where(column.trace_id == change.trace.id))
    elif change.stale:
        connection.execute(delete(spans_table).where(column.id.in_(change.stale)))


def _insert_spans(connection: Connection, spans: Sequence[tuple[str, Span]]) -> None:
    if spans:
        connection.execute(insert(spans_table), [_span_row(trace_id, span) for trace_id, span in spans])


def _row(trace: Trace) -> dict[str, Any]:
    row = {name: getattr(trace, name) for name in _ROW} | _counts(trace)
    return row | {"conversation_id": trace.conversation_id or None}


def _span_row(trace_id: str, span: Span) -> dict[str, Any]:
    return {name: getattr(span, name) for name in _SPAN_ROW} | _counts(span) | {"trace_id": trace_id}


def _counts(of: Trace | Span) -> dict[str, int | None]:
    """Return the token counts within the range of their columns, which sums may exceed."""
    counts = {name: getattr(of, name) for name in ("input_tokens", "output_tokens", "cached_tokens")}
    return {name: None if count is None else min(max(count, 0), LARGEST_COUNT) for name, count in counts.items()}


def trace_of_row(row: Row[Any], spans: Sequence[Row[Any]]) -> Trace:
    """Build a trace from its row, joined with its feedback, and the rows of its spans."""
    values = {name: getattr(row, name) for name in _ROW}
    values["model"] = current_model(row.model)
    values["conversation_id"] = row.conversation_id or ""
    tracked = row.tracked if row.tracked and not row.tracked.startswith(CLAIM) else None
    return Trace(
        **values,
        tracked=tracked,
        spans=tuple(Span(**{name: getattr(span, name) for name in _SPAN_ROW}) for span in spans),
        feedback=Feedback(row.rating, row.comment, row.at) if row.rating else None,
    )
