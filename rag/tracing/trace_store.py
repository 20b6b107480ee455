"""Stored traces of questions, with a span for every step.

The traces of answers are written by a thread, which no answer waits for; every reader here first lets it write
what is queued. Only this module, ``trace_rows``, ``external_traces`` and ``trace_retention`` write the tables
``traces``, ``spans`` and ``feedback``.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, and_, delete, func, insert, or_, select, update

from rag.database import reading, writing
from rag.errors import FeedbackError, TraceNotFound
from rag.masking import Masker
from rag.redaction import redact
from rag.trace_tables import feedback as feedback_table
from rag.trace_tables import traces as traces_table
from rag.tracing.measures import THUMB, count_measures, measure_key
from rag.tracing.processes import interrupt_dead, is_dead, process_identity
from rag.tracing.totals import add_up
from rag.tracing.trace_masking import TraceMasker
from rag.tracing.trace_rows import (
    CLAIM,
    FEEDBACK,
    Begun,
    Change,
    Ended,
    Stepped,
    trace_of_row,
    whole_trace,
    without_steps,
    write_changes,
)
from rag.tracing.trace_search import has_text
from rag.tracing.trace_types import Feedback, Rating, Review, Span, Status, Trace, TracePage
from rag.tracing.trace_writer import TraceWriter

__all__ = ["Feedback", "Rating", "Review", "Span", "Status", "Trace", "TracePage", "TraceStore"]

SHORTEST_ID = 6

MOST_COUNTED = 10_000
"""Maximum number that is counted of the traces with a text."""

# Seconds that an answer waits for its trace to be written, and a reader for those that wait.
ANSWER_WAIT_S = 0.001
READER_WAIT_S = 2.0


@dataclass(frozen=True, slots=True)
class Backlog:
    """The traces that wait for delivery.

    Attributes:
        oldest: When the oldest of them started, in seconds since the epoch; None without any.
    """

    traces: int
    oldest: float | None


class TraceStore:
    """The traces in the database. Every method may raise DatabaseError; those that write, StorageFull.

    Args:
        engine: The database.
        masker: Masks personal data in all that is written; by default none.
        withheld: Whether the traces of this store are excluded from tracking, now and later.
        exported: Whether the traces of this process are also queued for a collector; see ``ExportQueue``.
    """

    def __init__(
        self, engine: Engine, masker: Masker | None = None, *, withheld: bool = False, exported: bool = False
    ) -> None:
        self._engine = engine
        self._masker = masker or Masker()
        self._write = partial(write_changes, withheld=withheld, exported=exported)
        self._writer: TraceWriter[Change] = TraceWriter(engine, self._write, without_steps)
        # The steps of running traces that were queued, by trace and id, and what masks the next ones.
        self._queued: dict[str, dict[str, Span]] = {}
        self._masking: dict[str, TraceMasker] = {}

    @property
    def engine(self) -> Engine:
        """The database."""
        return self._engine

    def begin(self, trace: Trace) -> None:
        """Queue a new trace, so that it survives a crash.

        Raises:
            DatabaseError: The database refuses, as far as that is known: the last attempt to write has failed.
            StorageFull: The same, because the disk is full.
        """
        if refusal := self._writer.refusal:
            raise type(refusal)(refusal.message, fix=refusal.fix)
        self._queued[trace.id] = {}
        masking = self._masking[trace.id] = TraceMasker(self._masker)
        self._writer.put(Begun(masking.trace(trace)))

    def save_span(self, trace_id: str, span: Span) -> None:
        """Queue a finished step of a trace that was begun; that of any other is not stored."""
        if (queued := self._queued.get(trace_id)) is not None:
            queued[span.id] = masked = self._masking[trace_id].span(span)
            self._writer.put(Stepped(trace_id, masked))

    def finish(self, trace: Trace) -> None:
        """Queue the end of a trace, which replaces its earlier state, and wait at most one millisecond for it.

        A slow or refusing database is not waited for: the thread goes on, and its errors are logged.
        """
        queued = self._queued.pop(trace.id, {})
        trace = self._masked(trace)
        unchanged = {span.id for span in trace.spans if queued.get(span.id) == span}
        number = self._writer.put(Ended(trace, frozenset(unchanged), frozenset(queued.keys() - unchanged)))
        self._writer.wait(number, timeout_s=ANSWER_WAIT_S)

    def save(self, trace: Trace) -> None:
        """Store a trace with its spans in one transaction, replacing its earlier state.

        A trace that ends in this process is added to the ledger and to the counts of answers; see ``totals``.
        Feedback and delivery stay unchanged. Token counts are untrusted, and limited to the range of their column.
        """
        self.flush()
        self._queued.pop(trace.id, None)
        masked = self._masked(trace)
        with writing(self._engine) as connection:
            self._write(connection, [Ended(masked, frozenset(), None)])

    def _masked(self, trace: Trace) -> Trace:
        return self._masking.pop(trace.id, TraceMasker(self._masker)).trace(trace)

    def flush(self, timeout_s: float = READER_WAIT_S) -> None:
        """Wait until everything that was queued is stored, at most ``timeout_s`` seconds."""
        self._writer.wait(timeout_s=timeout_s)

    def close(self) -> None:
        """Store what is queued, and end the thread that writes."""
        self._writer.close()

    def get(self, trace_id: str) -> Trace:
        """Return a trace with its spans and feedback.

        Args:
            trace_id: The complete id, or a unique prefix or suffix of at least six characters. (LangChain's ids
                start with the time, so neighbours differ at the end.)

        Raises:
            TraceNotFound: There is no such trace, or more than one.
        """
        self.flush()
        wanted = trace_id.strip()
        column = traces_table.c.id
        with reading(self._engine) as connection:
            found = connection.execute(_with_feedback().where(column == wanted)).all()
            if not found and len(wanted) >= SHORTEST_ID:
                part = or_(column.startswith(wanted, autoescape=True), column.endswith(wanted, autoescape=True))
                found = connection.execute(_with_feedback().where(part).limit(2)).all()
            if len(found) != 1:
                raise _not_found(trace_id, several=len(found) > 1)
            return whole_trace(connection, found[0])

    def brief(self, ids: Sequence[str]) -> tuple[Trace, ...]:
        """Return traces without their spans, in the order of their ids; ids of no trace are left out."""
        with reading(self._engine) as connection:
            rows = connection.execute(_with_feedback().where(traces_table.c.id.in_(ids))).all()
        found = {row.id: trace_of_row(row) for row in rows}
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
            text: Only traces with this text in question, answer or error, regardless of case; of these, at most
                10,000 are counted.
        """
        self.flush()
        wanted: list[ColumnElement[bool]] = []
        if status is not None:
            wanted.append(traces_table.c.status == status)
        with reading(self._engine) as connection:
            if text:
                wanted.append(has_text(connection, text))
            matching = select(traces_table.c.id).where(*wanted)
            counted = (matching.limit(MOST_COUNTED) if text else matching).subquery()
            total = connection.scalar(select(func.count()).select_from(counted)) or 0
            query = _with_feedback().where(*wanted)
            if before is not None:
                query = query.where(traces_table.c.started < before)
            query = query.order_by(traces_table.c.started.desc(), traces_table.c.id.desc())
            # To find nothing in many texts takes long, so they are not read twice.
            rows = connection.execute(query.limit(limit)).all() if total else ()
        return TracePage(tuple(trace_of_row(row) for row in rows), total)

    def rate(
        self,
        trace_id: str,
        rating: Rating | None,
        comment: str = "",
        correction: str = "",
        *,
        at: float | None = None,
    ) -> None:
        """Store the rating of an answer, with what was said about it; None removes it.

        A thumbs-down waits for a review, also where an earlier one was reviewed.

        Args:
            at: When it was given, in seconds since the epoch; None for now.

        Raises:
            TraceNotFound: There is no such trace.
        """
        trace = self.get(trace_id)
        found = trace.id
        values = {
            "rating": rating,
            "comment": self._masker.text(redact(comment)),
            "at": time.time() if at is None else at,
            "correction": self._masker.text(redact(correction)),
            "review": "pending" if rating == "down" else "",
        }
        with writing(self._engine) as connection:
            before = connection.scalar(select(feedback_table.c.rating).where(feedback_table.c.trace_id == found))
            connection.execute(delete(feedback_table).where(feedback_table.c.trace_id == found))
            if before is not None:
                count_measures(connection, [measure_key(trace, THUMB + before)], -1)
            if rating is not None:
                count_measures(connection, [measure_key(trace, THUMB + rating)])
                connection.execute(insert(feedback_table).values(trace_id=found, **values))

    def review(self, trace_id: str, review: Review, *, by: str, correction: str | None = None) -> Feedback:
        """Store a person's decision about a thumbs-down, which may replace an earlier one.

        Args:
            review: ``accepted`` to learn the correction, ``rejected``, or ``pending`` to decide again.
            by: The person who decides.
            correction: The answer as it should have been; None keeps the stored one.

        Raises:
            TraceNotFound: There is no such trace.
            FeedbackError: It has no thumbs-down, or is to be accepted without a correction.
        """
        trace = self.get(trace_id)
        found = trace.feedback
        if found is None or found.rating != "down":
            raise FeedbackError(
                f"The answer {trace.id} has no thumbs-down, so there is nothing to review.",
                fix="`ragsmith feedback review` lists what waits for a review.",
            )
        wanted = found.correction if correction is None else self._masker.text(redact(correction.strip()))
        if review == "accepted" and not wanted:
            raise FeedbackError(
                f"The answer {trace.id} has no correction to accept.",
                fix="Write the right answer with --correct TEXT, or reject it.",
            )
        reviewer = self._masker.text(by)
        values = {"review": review, "reviewer": reviewer, "correction": wanted}
        with writing(self._engine) as connection:
            own = feedback_table.c.trace_id == trace.id
            connection.execute(update(feedback_table).where(own).values(values))
        return replace(found, review=review, reviewer=reviewer, correction=wanted)

    def recover(self) -> int:
        """Mark the running traces of dead processes of this host as interrupted, and return their number."""
        error = "The process ended before the answer was finished."
        return interrupt_dead(self._engine, traces_table, _add_up_interrupted, error=error)

    def undelivered(self, limit: int) -> tuple[str, ...]:
        """Return the ids of finished traces that wait for delivery, oldest first; see ``claim``."""
        return tuple(waiting_id for waiting_id, _claim in self._waiting(limit))

    def backlog(self) -> Backlog:
        """Return how many traces wait for delivery; those that a living process delivers do not wait."""
        self.flush()
        query = select(func.count(), func.min(traces_table.c.started))
        with reading(self._engine) as connection:
            count, oldest = connection.execute(query.where(self._waits(connection))).one()
        return Backlog(count, oldest)

    def claim(self, limit: int) -> tuple[Trace, ...]:
        """Claim undelivered traces, with their spans, so that no other process delivers them.

        Those of other processes are claimed too, from a database server only those of this host: another host has
        a workspace of its own. A claim ends with ``mark_tracked``, ``release`` or the death of the process.
        """
        mine = CLAIM + process_identity()
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

    def _set_tracked(self, ids: Iterable[str], value: str | None) -> None:
        with writing(self._engine) as connection:
            for trace_id in ids:
                connection.execute(update(traces_table).where(traces_table.c.id == trace_id).values(tracked=value))

    def _waiting(self, limit: int) -> Sequence[tuple[str, str | None]]:
        """Return the ids of claimable traces, with the claim of a dead process if there is one."""
        self.flush()
        column = traces_table.c
        with reading(self._engine) as connection:
            query = select(column.id, column.tracked).where(self._waits(connection))
            rows = connection.execute(query.order_by(column.started).limit(limit)).all()
        return [(row.id, row.tracked) for row in rows]

    def _waits(self, connection: Connection) -> ColumnElement[bool]:
        """Return the condition of own traces that are finished, not delivered, and not claimed by the living."""
        tracked, process = traces_table.c.tracked, traces_table.c.process
        claimed: ColumnElement[bool] = tracked.startswith(CLAIM)
        if self._engine.dialect.name == "sqlite":
            # Its LIKE ignores the case, and so does not use the index; no character of a claim is after "~".
            claimed = tracked.between(CLAIM, f"{CLAIM}~")
        claims = connection.scalars(select(tracked).where(claimed).distinct())
        left = [claim for claim in claims if claim and is_dead(claim.removeprefix(CLAIM))]
        free: ColumnElement[bool] = tracked.is_(None)
        if self._engine.dialect.name != "sqlite":
            host = process_identity().rsplit(":", 2)[0]
            free = and_(free, process.startswith(f"{host}:", autoescape=True))
        own = traces_table.c.purpose != "external"
        return and_(traces_table.c.status != "running", own, or_(free, tracked.in_(left)) if left else free)


def _add_up_interrupted(connection: Connection, ids: Sequence[str]) -> None:
    """Add up what is stored of traces whose process has died."""
    rows = [connection.execute(_with_feedback().where(traces_table.c.id == trace_id)).one() for trace_id in ids]
    add_up(connection, [whole_trace(connection, row) for row in rows])


def _with_feedback(*others: ColumnElement[Any]) -> Any:
    rated = (feedback_table.c[name] for name in FEEDBACK)
    joined = traces_table.join(feedback_table, feedback_table.c.trace_id == traces_table.c.id, isouter=True)
    return select(traces_table, *rated, *others).select_from(joined)


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
