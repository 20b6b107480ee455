"""Traces: one for each answered question, with a span for each step, kept in the database.

Only this module writes the tables ``traces``, ``spans`` and ``feedback``; ``prompt_usage`` reads them as well.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from sqlalchemy import ColumnElement, Engine, Row, and_, delete, func, insert, or_, select, update

from rag.database import reading, writing
from rag.errors import TraceNotFound
from rag.redaction import JSON, redact
from rag.tables import LARGEST_COUNT
from rag.tables import feedback as feedback_table
from rag.tables import spans as spans_table
from rag.tables import traces as traces_table
from rag.tracing.processes import interrupt_dead, is_dead, process_identity

Status = Literal["running", "ok", "error", "cancelled", "interrupted", "abstained"]
Rating = Literal["up", "down"]

SHORTEST_ID = 6

# What `tracked` holds while a process delivers a trace; afterwards it holds the tracker's run.
_CLAIM = "claim:"

# What it holds for a trace that was made while tracking was off: turning it on later must not send it.
WITHHELD = "off"


@dataclass(frozen=True, slots=True)
class Span:
    """One step of an answer.

    Attributes:
        parent_id: None for the root.
        position: Place among the spans of the trace in order of their start, from 0.
        kind: LangChain's run type: ``chain``, ``llm``, ``retriever``, ``tool`` …
        started, ended: Seconds since the epoch; ``ended`` is None where the step was left standing.
        input, output: As JSON, with secrets masked.
        error: Type and message; empty where nothing failed.
        input_tokens, output_tokens: None where the model did not say.
        cost_usd: None is unknown.
    """

    id: str
    parent_id: str | None
    position: int
    name: str
    kind: str
    status: Status
    started: float
    ended: float | None = None
    input: JSON = None
    output: JSON = None
    error: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    attributes: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a person thinks of an answer; ``at`` in seconds since the epoch."""

    rating: Rating
    comment: str
    at: float


@dataclass(frozen=True, slots=True)
class Trace:
    """One answered question.

    Attributes:
        started: Seconds since the epoch.
        latency_s: None while it runs.
        question, answer, error: With secrets masked.
        input_tokens, output_tokens: Over all models that were asked; None where one did not say.
        cost_usd: None is unknown, and never shown as 0.
        prompt: ``NAME@VERSION``.
        process: The process that answers, as ``process_identity`` names it.
        tracked: The tracker's run that holds it, or ``off``; None until it was delivered.
        spans: In order of their start; empty in a list.
    """

    id: str
    started: float
    status: Status
    question: str = ""
    answer: str = ""
    error: str = ""
    latency_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    corpus: str = ""
    model: str = ""
    prompt: str = ""
    release: str = ""
    conversation_id: str = ""
    process: str = field(default_factory=process_identity)
    tracked: str | None = None
    spans: tuple[Span, ...] = ()
    feedback: Feedback | None = None


@dataclass(frozen=True, slots=True)
class TracePage:
    """A part of a list, newest first; ``total`` counts all that match, on every page."""

    traces: tuple[Trace, ...]
    total: int


_OWN = ("tracked", "spans", "feedback")
_ROW = tuple(f.name for f in fields(Trace) if f.name not in _OWN)
_SPAN_ROW = tuple(f.name for f in fields(Span))


class TraceStore:
    """The traces in the database. Every method may raise DatabaseError; those that write, StorageFull."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def begin(self, trace: Trace) -> None:
        """Keep a trace that has just begun, so that a crash leaves a mark."""
        self.save(trace)

    def save(self, trace: Trace) -> None:
        """Write a trace with its spans, all or nothing. It replaces an earlier state of the same trace.

        Feedback and delivery stay as they are: others write them. Counts of tokens come from whatever server
        answered, and are kept as far as a column takes them.
        """
        row = {name: getattr(trace, name) for name in _ROW} | _counts(trace)
        row["conversation_id"] = trace.conversation_id or None
        rows = [
            {name: getattr(span, name) for name in _SPAN_ROW} | _counts(span) | {"trace_id": trace.id}
            for span in trace.spans
        ]
        with writing(self._engine) as connection:
            changed = connection.execute(update(traces_table).where(traces_table.c.id == trace.id).values(row))
            if changed.rowcount == 0:
                connection.execute(insert(traces_table).values(row))
            else:
                connection.execute(delete(spans_table).where(spans_table.c.trace_id == trace.id))
            if rows:
                connection.execute(insert(spans_table), rows)

    def get(self, trace_id: str) -> Trace:
        """A trace with its spans and feedback.

        Args:
            trace_id: The whole id, or six or more characters of its beginning or of its end that no other
                trace shares. (LangChain's ids begin with the time, so that neighbours differ at the end.)

        Raises:
            TraceNotFound: No trace, or more than one, has that id.
        """
        wanted = trace_id.strip()
        column = traces_table.c.id
        with reading(self._engine) as connection:
            found = connection.execute(_with_feedback().where(column == wanted)).all()
            if not found and len(wanted) >= SHORTEST_ID:
                part = or_(column.startswith(wanted, autoescape=True), column.endswith(wanted, autoescape=True))
                found = connection.execute(_with_feedback().where(part).limit(2)).all()
            if len(found) != 1:
                raise _not_found(trace_id, several=len(found) > 1)
            spans = connection.execute(
                select(spans_table).where(spans_table.c.trace_id == found[0].id).order_by(spans_table.c.position)
            ).all()
        return _trace(found[0], spans)

    def list(
        self,
        *,
        limit: int,
        before: float | None = None,
        status: Status | None = None,
        text: str | None = None,
    ) -> TracePage:
        """The newest traces, without their spans.

        Args:
            limit: At most so many.
            before: Only those that started earlier, in seconds since the epoch: the next page begins at the
                last trace's ``started``.
            status: Only those with this status.
            text: Only those with this text in question, answer or error, in either case.
        """
        wanted: list[ColumnElement[bool]] = []
        if status is not None:
            wanted.append(traces_table.c.status == status)
        if text:
            columns = (traces_table.c.question, traces_table.c.answer, traces_table.c.error)
            wanted.append(or_(*(column.icontains(text, autoescape=True) for column in columns)))
        query = _with_feedback().where(*wanted).order_by(traces_table.c.started.desc(), traces_table.c.id.desc())
        if before is not None:
            query = query.where(traces_table.c.started < before)
        with reading(self._engine) as connection:
            rows = connection.execute(query.limit(limit)).all()
            total = connection.scalar(select(func.count()).select_from(traces_table).where(*wanted)) or 0
        return TracePage(tuple(_trace(row, ()) for row in rows), total)

    def rate(self, trace_id: str, rating: Rating | None, comment: str = "") -> None:
        """Keep what a person thinks of an answer; None takes it back.

        Raises:
            TraceNotFound: No trace has that id.
        """
        found = self.get(trace_id).id
        values = {"rating": rating, "comment": redact(comment), "at": time.time()}
        with writing(self._engine) as connection:
            connection.execute(delete(feedback_table).where(feedback_table.c.trace_id == found))
            if rating is not None:
                connection.execute(insert(feedback_table).values(trace_id=found, **values))

    def recover(self) -> int:
        """Mark the traces that a process left running when it died as interrupted.

        Returns:
            How many. Those of a process that lives, or that ran on another host, stay as they are.
        """
        error = "The process ended before the answer was finished."
        return interrupt_dead(self._engine, traces_table, error=error)

    def undelivered(self, limit: int) -> tuple[str, ...]:
        """Ids of finished traces that wait for this process to deliver them, oldest first.

        Those are its own, and those whose process has died: neither delivered nor claimed, or claimed by a
        process that has died.
        """
        return tuple(waiting_id for waiting_id, _claim in self._waiting(limit))

    def claim(self, limit: int) -> tuple[Trace, ...]:
        """Take waiting traces for delivery, with their spans, so that no other process delivers them.

        ``mark_tracked`` ends a claim, ``release`` gives it back, and the death of the process frees it.
        """
        mine = _CLAIM + process_identity()
        won: list[str] = []
        for waiting_id, held in self._waiting(limit):
            unchanged = traces_table.c.tracked.is_(None) if held is None else traces_table.c.tracked == held
            with writing(self._engine) as connection:
                changed = connection.execute(
                    update(traces_table).where(traces_table.c.id == waiting_id, unchanged).values(tracked=mine)
                )
            if changed.rowcount:
                won.append(waiting_id)
        return tuple(self.get(waiting_id) for waiting_id in won)

    def mark_tracked(self, ids: Iterable[str], run_id: str) -> None:
        """Note that a tracker's run holds these traces."""
        self._set_tracked(ids, run_id)

    def release(self, ids: Iterable[str]) -> None:
        """Give claimed traces back, so that they are delivered later."""
        self._set_tracked(ids, None)

    def withhold(self) -> None:
        """Note that this process's traces are not for a tracker, now or later: tracking is off."""
        own = and_(traces_table.c.process == process_identity(), traces_table.c.tracked.is_(None))
        with writing(self._engine) as connection:
            connection.execute(update(traces_table).where(own).values(tracked=WITHHELD))

    def _set_tracked(self, ids: Iterable[str], value: str | None) -> None:
        with writing(self._engine) as connection:
            for trace_id in ids:
                connection.execute(update(traces_table).where(traces_table.c.id == trace_id).values(tracked=value))

    def _waiting(self, limit: int) -> Sequence[tuple[str, str | None]]:
        """Ids of the traces that may be claimed, and the dead process's claim that each still carries."""
        me = process_identity()
        column = traces_table.c
        free = or_(column.tracked.is_(None), column.tracked.startswith(_CLAIM))
        finished = and_(column.status != "running", free, column.tracked.is_distinct_from(_CLAIM + me))
        groups = select(column.process, column.tracked).where(finished).distinct()
        with reading(self._engine) as connection:
            takeable = [
                and_(
                    column.process == process,
                    column.tracked.is_(None) if tracked is None else column.tracked == tracked,
                )
                for process, tracked in connection.execute(groups).all()
                if (tracked is None and process == me) or is_dead((tracked or process).removeprefix(_CLAIM))
            ]
            if not takeable:
                return []
            query = select(column.id, column.tracked).where(finished, or_(*takeable))
            rows = connection.execute(query.order_by(column.started).limit(limit)).all()
        return [(row.id, row.tracked) for row in rows]


def _counts(of: Trace | Span) -> dict[str, int | None]:
    """The token counts as their columns take them: a sum may be too large where no part of it is."""
    counts = {"input_tokens": of.input_tokens, "output_tokens": of.output_tokens}
    return {name: None if count is None else min(max(count, 0), LARGEST_COUNT) for name, count in counts.items()}


def _with_feedback() -> Any:
    columns = (feedback_table.c.rating, feedback_table.c.comment, feedback_table.c.at)
    return select(traces_table, *columns).join(
        feedback_table, feedback_table.c.trace_id == traces_table.c.id, isouter=True
    )


def _trace(row: Row[Any], spans: Sequence[Row[Any]]) -> Trace:
    values = {name: getattr(row, name) for name in _ROW}
    values["conversation_id"] = row.conversation_id or ""
    tracked = row.tracked if row.tracked and not row.tracked.startswith(_CLAIM) else None
    return Trace(
        **values,
        tracked=tracked,
        spans=tuple(Span(**{name: getattr(span, name) for name in _SPAN_ROW}) for span in spans),
        feedback=Feedback(row.rating, row.comment, row.at) if row.rating else None,
    )


def _not_found(trace_id: str, *, several: bool) -> TraceNotFound:
    if several:
        return TraceNotFound(f"More than one trace has {trace_id} in its id.", fix="Give more of the id.")
    if len(trace_id.strip()) < SHORTEST_ID:
        return TraceNotFound(
            f"No trace has the id {trace_id!r}.", fix=f"Give at least {SHORTEST_ID} characters of the id."
        )
    return TraceNotFound(f"No trace has the id {trace_id!r}.", fix="`ragsmith traces list` shows them.")
