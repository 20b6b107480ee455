"""Stored traces of questions, with a span for every step.

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
from rag.types import Purpose, current_model

Status = Literal["running", "ok", "error", "cancelled", "interrupted", "abstained", "filtered"]
Rating = Literal["up", "down"]

SHORTEST_ID = 6

# Prefix of `tracked` while a process delivers the trace; afterwards, it is the tracker's run.
_CLAIM = "claim:"

# `tracked` of traces from while tracking was off, which must not be delivered later.
WITHHELD = "off"


@dataclass(frozen=True, slots=True)
class Span:
    """One step of an answer.

    Attributes:
        parent_id: None for the root.
        position: Position among the spans of the trace in order of their start, from 0.
        kind: LangChain's run type: ``chain``, ``llm``, ``retriever``, ``tool`` …
        started, ended: Seconds since the epoch; ``ended`` is None if the step did not end.
        input, output: JSON with masked secrets.
        error: Type and message; empty without an error.
        input_tokens, output_tokens: None if the model did not report them.
        cost_usd: None means unknown.
        first_token_s: Seconds until a model wrote its first token; None if it wrote none or is no model.
        cached_tokens: Those of the input tokens that the server had read before; None if it does not say.
        saved_usd: What the answer of a cache had cost when it was asked; None for other steps.
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
    first_token_s: float | None = None
    cached_tokens: int | None = None
    saved_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    """A rating of an answer; ``at`` in seconds since the epoch."""

    rating: Rating
    comment: str
    at: float


@dataclass(frozen=True, slots=True)
class Trace:
    """One answered question.

    Attributes:
        started: Seconds since the epoch.
        latency_s: None while it runs.
        question, answer, error: Texts with masked secrets.
        input_tokens, output_tokens: Sums over all model calls; None if a model did not report them.
        cost_usd: None means unknown, and is never shown as 0.
        prompt: ``NAME@VERSION``.
        process: ``process_identity`` of the answering process.
        purpose: What the question was asked for.
        user_name: The user who asked, if known.
        first_token_s: Seconds from the question to the first token of the answer; None without one.
        cached_tokens, saved_usd: Sums over all model calls, as in ``Span``; None if no call has one.
        prices: The day of the price list, ``YYYY-MM-DD``; empty if unknown.
        code: The version of ragsmith; empty for traces of older versions.
        replay_of: Id of the replayed trace, if any.
        tracked: The tracker's run with the trace, or ``off``; None until it was delivered.
        spans: Spans in order of their start; empty in lists.
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
    purpose: Purpose = "chat"
    user_name: str = ""
    first_token_s: float | None = None
    cached_tokens: int | None = None
    saved_usd: float | None = None
    prices: str = ""
    code: str = ""
    replay_of: str | None = None
    tracked: str | None = None
    spans: tuple[Span, ...] = ()
    feedback: Feedback | None = None


@dataclass(frozen=True, slots=True)
class TracePage:
    """A page of a list, newest first; ``total`` counts all matching traces."""

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
        """Store a new trace, so that it survives a crash."""
        self.save(trace)

    def save(self, trace: Trace) -> None:
        """Store a trace with its spans in one transaction, replacing its earlier state.

        Feedback and delivery stay unchanged. Token counts are untrusted, and limited to the range of their column.
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
        """Return a trace with its spans and feedback.

        Args:
            trace_id: The complete id, or a unique prefix or suffix of at least six characters. (LangChain's ids
                start with the time, so neighbours differ at the end.)

        Raises:
            TraceNotFound: There is no such trace, or more than one.
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

    def brief(self, ids: Sequence[str]) -> tuple[Trace, ...]:
        """Return traces without their spans, in the order of their ids; ids of no trace are left out."""
        with reading(self._engine) as connection:
            rows = connection.execute(_with_feedback().where(traces_table.c.id.in_(ids))).all()
        found = {row.id: _trace(row, ()) for row in rows}
        return tuple(found[trace_id] for trace_id in ids if trace_id in found)

    def list(
        self,
        *,
        limit: int,
        before: float | None = None,
        status: Status | None = None,
        text: str | None = None,
    ) -> TracePage:
        """List the newest traces, without their spans.

        Args:
            limit: Maximum number of traces.
            before: Only traces that started before, in seconds since the epoch; for the next page, the last
                trace's ``started``.
            status: Only traces with this status.
            text: Only traces with this text in question, answer or error, regardless of case.
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

    def rate(self, trace_id: str, rating: Rating | None, comment: str = "", *, at: float | None = None) -> None:
        """Store the rating of an answer; None removes it.

        Args:
            at: When it was given, in seconds since the epoch; None for now.

        Raises:
            TraceNotFound: There is no such trace.
        """
        found = self.get(trace_id).id
        values = {"rating": rating, "comment": redact(comment), "at": time.time() if at is None else at}
        with writing(self._engine) as connection:
            connection.execute(delete(feedback_table).where(feedback_table.c.trace_id == found))
            if rating is not None:
                connection.execute(insert(feedback_table).values(trace_id=found, **values))

    def recover(self) -> int:
        """Mark the running traces of dead processes of this host as interrupted, and return their number."""
        error = "The process ended before the answer was finished."
        return interrupt_dead(self._engine, traces_table, error=error)

    def undelivered(self, limit: int) -> tuple[str, ...]:
        """Return the ids of finished traces for delivery by this process, oldest first.

        These are its own traces and those of dead processes, unless they were delivered or are claimed by a
        living process.
        """
        return tuple(waiting_id for waiting_id, _claim in self._waiting(limit))

    def claim(self, limit: int) -> tuple[Trace, ...]:
        """Claim undelivered traces, with their spans, so that no other process delivers them.

        A claim ends with ``mark_tracked``, ``release`` or the death of the process.
        """
        mine = _CLAIM + process_identity()
        won: list[str] = []
        for waiting_id, claim in self._waiting(limit):
            unchanged = traces_table.c.tracked.is_(None) if claim is None else traces_table.c.tracked == claim
            with writing(self._engine) as connection:
                changed = connection.execute(
                    update(traces_table).where(traces_table.c.id == waiting_id, unchanged).values(tracked=mine)
                )
            if changed.rowcount:
                won.append(waiting_id)
        return tuple(self.get(waiting_id) for waiting_id in won)

    def mark_tracked(self, ids: Iterable[str], run_id: str) -> None:
        """Mark traces as delivered to a tracker's run."""
        self._set_tracked(ids, run_id)

    def release(self, ids: Iterable[str]) -> None:
        """Release claimed traces, so that they are delivered later."""
        self._set_tracked(ids, None)

    def withhold(self) -> None:
        """Exclude the traces of this process from tracking, now and later."""
        own = and_(traces_table.c.process == process_identity(), traces_table.c.tracked.is_(None))
        with writing(self._engine) as connection:
            connection.execute(update(traces_table).where(own).values(tracked=WITHHELD))

    def _set_tracked(self, ids: Iterable[str], value: str | None) -> None:
        with writing(self._engine) as connection:
            for trace_id in ids:
                connection.execute(update(traces_table).where(traces_table.c.id == trace_id).values(tracked=value))

    def _waiting(self, limit: int) -> Sequence[tuple[str, str | None]]:
        """Return the ids of claimable traces, with the claim of a dead process if there is one."""
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
    """Return the token counts within the range of their columns, which sums may exceed."""
    counts = {"input_tokens": of.input_tokens, "output_tokens": of.output_tokens}
    return {name: None if count is None else min(max(count, 0), LARGEST_COUNT) for name, count in counts.items()}


def _with_feedback() -> Any:
    columns = (feedback_table.c.rating, feedback_table.c.comment, feedback_table.c.at)
    return select(traces_table, *columns).join(
        feedback_table, feedback_table.c.trace_id == traces_table.c.id, isouter=True
    )


def _trace(row: Row[Any], spans: Sequence[Row[Any]]) -> Trace:
    values = {name: getattr(row, name) for name in _ROW}
    values["model"] = current_model(row.model)
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
        return TraceNotFound(
            f"More than one trace has {trace_id} in its id.", fix="Use more characters of the id."
        )
    if len(trace_id.strip()) < SHORTEST_ID:
        return TraceNotFound(
            f"No trace has the id {trace_id!r}.", fix=f"Use at least {SHORTEST_ID} characters of the id."
        )
    return TraceNotFound(f"No trace has the id {trace_id!r}.", fix="`ragsmith traces list` shows them.")
