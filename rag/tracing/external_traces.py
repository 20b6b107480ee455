"""Traces of other programs, whose spans arrive in any order, in several requests, and perhaps twice."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, exists, insert, select, update

from rag.database import insert_new, writing
from rag.masking import Masker
from rag.redaction import without_secrets
from rag.trace_tables import contents as contents_table
from rag.trace_tables import spans as spans_table
from rag.trace_tables import trace_contents as trace_contents_table
from rag.trace_tables import traces as traces_table
from rag.tracing.external_spans import ReceivedSpan, hashed_id
from rag.tracing.external_texts import answer_in, question_in
from rag.tracing.span_contents import Contents, forget_contents, texts_of
from rag.tracing.span_json import kept_text
from rag.tracing.span_tree import arranged
from rag.tracing.trace_masking import TraceMasker, masked_span
from rag.tracing.trace_rows import row_of_span, row_of_trace, span_of_row
from rag.tracing.trace_types import Span, Trace

MOST_SPANS = 10_000
"""Spans of a trace; further ones are rejected."""
PROCESS = "otlp"
"""The process of these traces, which is none of any machine and never counts as dead."""

# What a trace is summed up from. The texts of its steps are not read again for every span that arrives.
_FIGURES = (
    *("id", "parent_id", "position", "name", "kind", "status", "started", "ended", "error"),
    *("input_tokens", "output_tokens", "cached_tokens", "cost_usd"),
)


@dataclass(frozen=True, slots=True)
class Added:
    """What became of received spans.

    Attributes:
        stored: The number of new ones.
        known: The number of those that were stored before.
        rejected: The number of those that cannot be stored; ``reason`` says why.
    """

    stored: int = 0
    known: int = 0
    rejected: int = 0
    reason: str = ""

    def __add__(self, other: Added) -> Added:
        """Add what became of other spans."""
        return Added(
            self.stored + other.stored,
            self.known + other.known,
            self.rejected + other.rejected,
            self.reason or other.reason,
        )


class ExternalTraces:
    """Stores received spans; safe to use from several threads.

    Args:
        masker: Masks personal data in all that is written; by default none.
    """

    def __init__(self, engine: Engine, masker: Masker | None = None) -> None:
        self._engine = engine
        self._masker = masker or Masker()
        # Requests of one program come at the same time, and SQLite has one writer.
        self._lock = threading.Lock()

    def add(self, received: Iterable[ReceivedSpan]) -> Added:
        """Store the spans of a request, all in one transaction.

        Raises:
            DatabaseError: The database refuses.
            StorageFull: The disk is full.
        """
        by_trace: dict[str, list[ReceivedSpan]] = {}
        for one in received:
            by_trace.setdefault(one.trace_id, []).append(one)
        added = Added()
        with self._lock, writing(self._engine) as connection:
            # In one order, so that two processes do not wait for each other.
            for trace_id in sorted(by_trace):
                added += _add(connection, trace_id, _without_personal_data(by_trace[trace_id], self._masker))
        return added


def _without_personal_data(received: Sequence[ReceivedSpan], masker: Masker) -> Sequence[ReceivedSpan]:
    """Mask the spans of one trace; a value that one of them shows is masked in the others, too."""
    if not masker:
        return received
    masking = TraceMasker(masker)
    spans = masking.trace(Trace("", 0.0, "ok", spans=tuple(one.span for one in received))).spans
    return [
        replace(
            one,
            span=replace(span, name=masking.text(span.name)),
            user=masking.text(one.user),
            model=masking.text(one.model),
            # The mark would join the sessions of different people.
            session=one.session if masking.text(one.session) == one.session else hashed_id(one.session),
        )
        for one, span in zip(received, spans, strict=True)
    ]


def _add(connection: Connection, trace_id: str, received: Sequence[ReceivedSpan]) -> Added:
    before = _locked(connection, trace_id, received)
    if before.purpose != "external":
        return Added(rejected=len(received), reason=f"The trace {trace_id} was not sent by another program.")
    stored = _stored(connection, trace_id)
    new = {one.span.id: one.span for one in reversed(received) if one.span.id not in stored}
    room = max(MOST_SPANS - len(stored), 0)
    fresh = dict(list(reversed(new.items()))[:room])
    over = len(new) - len(fresh)
    added = Added(
        len(fresh), len(received) - len(new), over, f"A trace has at most {MOST_SPANS:,} spans." if over else ""
    )
    if not fresh:
        return added
    spans = {span.id: span for span in arranged({**stored, **fresh})}
    root = next(iter(spans.values()))
    secrets = frozenset().union(*(one.secrets for one in received))
    if secrets and stored:
        _mask(connection, trace_id, secrets)
    if root.id in fresh:
        texts = _texts(root)
    elif arranged(stored)[0].id == root.id:
        texts = (before.question, before.answer)
    else:
        texts = _texts(_whole(connection, trace_id, root.id))
    contents = Contents()
    rows = [row_of_span(trace_id, masked_span(spans[span_id], secrets), contents) for span_id in fresh]
    connection.execute(insert(spans_table), rows)
    contents.write(connection)
    _move(connection, stored, spans)
    question, answer = (kept_text(str(without_secrets(text, secrets))) for text in texts)
    trace = _summary(before, list(spans.values()), received)
    values = row_of_trace(replace(trace, question=question, answer=answer))
    connection.execute(update(traces_table).where(traces_table.c.id == trace_id).values(values))
    return added


def _locked(connection: Connection, trace_id: str, received: Sequence[ReceivedSpan]) -> Row[Any]:
    """Return the row of a trace, a new one if there is none, which no other transaction changes meanwhile."""
    started = min(one.span.started for one in received)
    trace = Trace(trace_id, started, "ok", process=PROCESS, purpose="external")
    insert_new(connection, traces_table, [row_of_trace(trace)])
    query = select(traces_table).where(traces_table.c.id == trace_id)
    return connection.execute(query.with_for_update()).one()


def _stored(connection: Connection, trace_id: str) -> dict[str, Span]:
    """Return the stored spans without inputs, outputs and attributes."""
    columns = [spans_table.c[name] for name in _FIGURES]
    rows = connection.execute(select(*columns).where(spans_table.c.trace_id == trace_id))
    return {row.id: Span(**row._mapping) for row in rows}


def _whole(connection: Connection, trace_id: str, span_id: str) -> Span:
    row = connection.execute(select(spans_table).where(spans_table.c.id == span_id)).one()
    return span_of_row(row, texts_of(connection, trace_id))


def _texts(root: Span) -> tuple[str, str]:
    """Return the question and the answer of a trace."""
    return question_in(root.input), answer_in(root.output)


def _move(connection: Connection, stored: Mapping[str, Span], spans: Mapping[str, Span]) -> None:
    """Store the new places of spans that have others before them now."""
    for span_id, span in stored.items():
        moved = spans[span_id]
        if (moved.position, moved.parent_id) != (span.position, span.parent_id):
            query = update(spans_table).where(spans_table.c.id == span_id)
            connection.execute(query.values(position=moved.position, parent_id=moved.parent_id))


def _mask(connection: Connection, trace_id: str, secrets: frozenset[str]) -> None:
    """Mask the secrets of a question that arrives after the steps that repeat it."""
    rows = connection.execute(select(spans_table).where(spans_table.c.trace_id == trace_id)).all()
    texts = texts_of(connection, trace_id)
    forget_contents(connection, [trace_id])
    contents = Contents()
    for row in rows:
        span = masked_span(span_of_row(row, texts), secrets)
        changed = row_of_span(trace_id, span, contents)
        values = {name: changed[name] for name in ("input", "output", "error")}
        connection.execute(update(spans_table).where(spans_table.c.id == row.id).values(values))
    contents.write(connection)
    unnamed = ~exists().where(trace_contents_table.c.sha256 == contents_table.c.sha256)
    for digest in texts:
        connection.execute(delete(contents_table).where(contents_table.c.sha256 == digest, unnamed))


def _summary(before: Row[Any], spans: Sequence[Span], received: Sequence[ReceivedSpan]) -> Trace:
    """Return the trace of all its spans, the root first, without question and answer."""
    root = spans[0]
    started = min(span.started for span in spans)
    ends = [span.ended for span in spans if span.ended is not None]
    calls = _calls(spans)
    costs = [call.cost_usd for call in calls]
    return Trace(
        id=before.id,
        started=started,
        status=root.status,
        error=root.error,
        latency_s=max(ends) - started if ends else None,
        input_tokens=_sum([call.input_tokens for call in calls]),
        output_tokens=_sum([call.output_tokens for call in calls]),
        cached_tokens=sum(call.cached_tokens or 0 for call in calls) or None,
        cost_usd=_sum(costs) if root.cost_usd is None else root.cost_usd,
        model=before.model or next((one.model for one in received if one.model), ""),
        conversation_id=before.conversation_id or next((one.session for one in received if one.session), ""),
        user_name=before.user_name or next((one.user for one in received if one.user), ""),
        process=PROCESS,
        purpose="external",
    )


def _calls(spans: Sequence[Span]) -> list[Span]:
    """Return the calls of models; one within another is the same call, reported by two instrumentations."""
    kinds = {span.id: span.kind for span in spans}
    return [span for span in spans if span.kind == "llm" and kinds.get(span.parent_id or "") != "llm"]


def _sum(counts: Sequence[Any]) -> Any:
    """Return the sum; None without counts, or if one is unknown."""
    if not counts or any(count is None for count in counts):
        return None
    return math.fsum(counts) if any(isinstance(count, float) for count in counts) else sum(counts)
