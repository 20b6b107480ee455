"""Traces as a list: filtered, sorted by any column, in pages, with their neighbours.

A page begins behind a trace and not at a number, so that a page deep in the list is as fast as the first one and
new traces shift nothing. Traces without the sorted value come last, in both directions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Engine, Select, func, not_, select, true, tuple_

from rag.database import reading
from rag.errors import FilterError
from rag.trace_tables import feedback as feedback_table
from rag.trace_tables import trace_passages as passages_table
from rag.trace_tables import traces as traces_table
from rag.tracing.filter_conditions import COLUMNS, condition
from rag.tracing.trace_filter import fields_in, parse_filter
from rag.tracing.trace_store import Trace, TraceStore

Sort = Literal[
    "started", "status", "question", "latency", "first_token", "tokens", "cost", "feedback", "model", "prompt",
    "release", "user", "purpose",
]  # fmt: skip
Order = Literal["asc", "desc"]

UNASKED = ("evaluation", "lab")
"""Purposes that are left out, unless the filter names ``purpose``: nobody asked those questions for an answer."""

MOST_COUNTED = 10_000
"""Matches of a search for words that are counted: reading the texts of more takes seconds."""

_row = traces_table.c
_id: ColumnElement[str] = _row.id
_RATING = (
    select(feedback_table.c.rating).where(feedback_table.c.trace_id == _row.id).correlate(traces_table)
).scalar_subquery()
_ASKED: ColumnElement[bool] = _row.purpose.not_in(UNASKED)
SORTS: Mapping[str, ColumnElement[Any]] = {
    **{name: COLUMNS[name] for name in ("started", "status", "question", "latency", "first_token", "tokens")},
    **{name: COLUMNS[name] for name in ("cost", "model", "prompt", "release", "user", "purpose")},
    "feedback": _RATING,
}
# Fields whose texts are read to find a word in them.
_TEXTS = frozenset({"text", "question", "answer", "error"})
# Whether a trace has a value in the column of a sort; the other columns have one in every trace.
_VALUED: Mapping[str, ColumnElement[bool]] = {
    **{name: COLUMNS[name].is_not(None) for name in ("latency", "first_token", "tokens", "cost")},
    # Not by the rating, which would be looked up for every trace.
    "feedback": _id.in_(select(feedback_table.c.trace_id)),
}


@dataclass(frozen=True, slots=True)
class TraceQuery:
    """What a list shows.

    Attributes:
        filter: A text of the filter language.
        since, until: Only traces that started from ``since`` on and before ``until``, in seconds since the epoch.
    """

    filter: str = ""
    sort: Sort = "started"
    order: Order = "desc"
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Cursor:
    """The place of a trace in a list: its sorted value and its id."""

    value: str | float | None
    id: str


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of a list.

    Attributes:
        traces: Without their spans.
        next: The cursor for the page behind it; None on the last page.
        total: All matching traces; where words are searched, at most ``MOST_COUNTED``.
        hidden: Traces of evaluations and the lab that would match, and are left out; counted in the same way.
    """

    traces: tuple[Trace, ...]
    next: Cursor | None
    total: int
    hidden: int
    capped: bool = False

    @property
    def total_label(self) -> str:
        """The total for display, such as ``1,204`` or ``10,000+``."""
        return f"{self.total:,}{'+' if self.capped else ''}"


@dataclass(frozen=True, slots=True)
class PassageAnswers:
    """The newest traces whose prompt had a passage; ``cited`` are the ids of those whose answer cites it."""

    traces: tuple[Trace, ...]
    cited: frozenset[str]
    total: int


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Ids of the traces before and behind one in a list; empty at its ends."""

    previous: str = ""
    next: str = ""


class TraceQueries:
    """Reads lists of traces. Every method may raise DatabaseError and FilterError.

    Args:
        engine: The database.
        traces: Reads the traces of a page.
    """

    def __init__(self, engine: Engine, traces: TraceStore) -> None:
        self._engine = engine
        self._traces = traces

    def page(self, query: TraceQuery, *, limit: int, after: Cursor | None = None) -> Listing:
        """Return a page of at most ``limit`` traces, behind a cursor."""
        self._traces.flush()
        with reading(self._engine) as connection:
            total, hidden, capped = _counts(connection, query)
            # To find nothing in many texts takes long, so they are not read twice.
            kept = conditions(query, connection) if total or capped else None
            found = [] if kept is None else _behind(connection, query, kept, after, limit + 1)
        ids = [cursor.id for cursor in found[:limit]]
        more = found[limit - 1] if len(found) > limit else None
        return Listing(self._traces.brief(ids), more, total, hidden, capped)

    def walk(self, query: TraceQuery, *, limit: int | None = None, size: int = 500) -> Iterator[str]:
        """Yield the ids of all matching traces in order, at most ``limit``."""
        self._traces.flush()
        after: Cursor | None = None
        left = limit
        while left is None or left > 0:
            wanted = size if left is None else min(size, left)
            with reading(self._engine) as connection:
                found = _behind(connection, query, conditions(query, connection), after, wanted)
            yield from (cursor.id for cursor in found)
            if len(found) < wanted:
                return
            after = found[-1]
            left = None if left is None else left - len(found)

    def session(self, conversation_id: str) -> tuple[Trace, ...]:
        """Return all traces of a conversation, oldest first."""
        self._traces.flush()
        found = select(_id).where(_row.conversation_id == conversation_id).order_by(_row.started, _id)
        with reading(self._engine) as connection:
            return self._traces.brief(connection.scalars(found).all())

    def with_passage(self, passage_id: int, *, limit: int) -> PassageAnswers:
        """Return the newest traces whose prompt had a passage."""
        used = traces_table.join(passages_table, passages_table.c.trace_id == _id)
        mine = passages_table.c.passage_id == passage_id
        cited = passages_table.c.cited
        with reading(self._engine) as connection:
            rows = connection.execute(
                select(_id, cited).select_from(used).where(mine).order_by(_row.started.desc()).limit(limit)
            ).all()
            total = connection.scalar(select(func.count()).select_from(passages_table).where(mine)) or 0
        ids = [row[0] for row in rows]
        return PassageAnswers(self._traces.brief(ids), frozenset(row[0] for row in rows if row[1]), total)

    def neighbours(self, query: TraceQuery, trace_id: str) -> Neighbours:
        """Return the traces before and behind one; without any if the list does not have it."""
        column = SORTS[query.sort]
        with reading(self._engine) as connection:
            kept = conditions(query, connection)
            row = connection.execute(select(column, _id).where(_id == trace_id, *kept)).one_or_none()
            if row is None:
                return Neighbours()
            here = Cursor(row[0], row[1])
            following = _behind(connection, query, kept, here, 1)
            before = _before(connection, query, kept, here)
        return Neighbours(before, following[0].id if following else "")


def query_of(text: str, sort: str = "", *, since: float | None = None, until: float | None = None) -> TraceQuery:
    """Return the query for a filter and a sort such as ``cost`` (largest first) or ``cost:asc``.

    Raises:
        FilterError: There is no such sort, or the filter is not understood.
    """
    parse_filter(text)
    name, _, order = (sort or "started").strip().lower().partition(":")
    known = next((each for each in SORTS if each == name), None)
    if known is None or order not in ("", "asc", "desc"):
        raise FilterError(
            f"Traces cannot be sorted by {sort!r}.",
            fix=f"Use one of {', '.join(SORTS)}, with :asc for the smallest first.",
        )
    direction: Order = "asc" if order == "asc" else "desc"
    return TraceQuery(text.strip(), known, direction, since, until)  # type: ignore[arg-type]


def conditions(query: TraceQuery, connection: Connection) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions for the traces that a query shows.

    Raises:
        FilterError: The filter is not understood.
    """
    matching, all_purposes = _matching(query, connection)
    return matching if all_purposes else (*matching, _ASKED)


def _matching(query: TraceQuery, connection: Connection) -> tuple[tuple[ColumnElement[bool], ...], bool]:
    """Return the conditions without that on purposes, and whether the filter names them itself."""
    parsed = parse_filter(query.filter)
    ends = (
        None if query.since is None else _row.started >= query.since,
        None if query.until is None else _row.started < query.until,
    )
    matching = (*(end for end in ends if end is not None), condition(parsed, time.time(), connection))
    return matching, "purpose" in fields_in(parsed)


def _counts(connection: Connection, query: TraceQuery) -> tuple[int, int, bool]:
    """Return how many traces a query shows, how many it hides for their purpose, and whether there are more."""
    matching, all_purposes = _matching(query, connection)
    asked = true() if all_purposes else _ASKED
    rows = select(asked.label("asked")).select_from(traces_table).where(*matching)
    if _TEXTS.isdisjoint(fields_in(parse_filter(query.filter))):
        found, most = rows.subquery(), None
    else:
        found, most = rows.limit(MOST_COUNTED).subquery(), MOST_COUNTED
    # One pass for both: the hidden ones alone would be looked up row by row.
    shown = func.count().filter(found.c.asked)
    count, every = connection.execute(select(shown, func.count()).select_from(found)).one()
    return count, every - count, every == most


def _behind(
    connection: Connection,
    query: TraceQuery,
    kept: Sequence[ColumnElement[bool]],
    after: Cursor | None,
    limit: int,
) -> list[Cursor]:
    """Return the next places of the list: those with a value, then those without.

    They are read apart, because no index is in the order "unknown last" in both directions.
    """
    column = SORTS[query.sort]
    valued = _VALUED.get(query.sort)
    found: list[Cursor] = []
    if after is None or after.value is not None:
        ordered = _ordered(query.order, column, kept if valued is None else [*kept, valued], after)
        found = _cursors(connection, ordered.limit(limit))
        after = None
    if valued is not None and len(found) < limit:
        # By start, because their ids may be in any order.
        bare = select(column, _id).where(*kept, not_(valued)).order_by(_row.started.desc(), _id.desc())
        if after is not None:
            bare = bare.where(_started_before(after.id))
        found += _cursors(connection, bare.limit(limit - len(found)))
    return found


def _started_before(trace_id: str) -> ColumnElement[bool]:
    started = select(traces_table.c.started).where(_id == trace_id).correlate(None).scalar_subquery()
    return tuple_(_row.started, _id) < tuple_(started, trace_id)


def _ordered(
    order: Order, column: ColumnElement[Any], kept: Sequence[ColumnElement[bool]], after: Cursor | None
) -> Select[Any]:
    place = tuple_(column, _id)
    found = select(column, _id).where(*kept)
    if after is not None:
        here = tuple_(after.value, after.id)
        found = found.where(place > here if order == "asc" else place < here)
    if order == "asc":
        return found.order_by(column.asc(), _id.asc())
    return found.order_by(column.desc(), _id.desc())


def _before(connection: Connection, query: TraceQuery, kept: Sequence[ColumnElement[bool]], here: Cursor) -> str:
    column = SORTS[query.sort]
    turned: Order = "desc" if query.order == "asc" else "asc"
    valued = _VALUED.get(query.sort, true())
    if here.value is not None:
        before = _cursors(connection, _ordered(turned, column, [*kept, valued], here).limit(1))
        return before[0].id if before else ""
    started = select(traces_table.c.started).where(_id == here.id).correlate(None).scalar_subquery()
    bare = (
        select(column, _id)
        .where(*kept, not_(valued), tuple_(_row.started, _id) > tuple_(started, here.id))
        .order_by(_row.started.asc(), _id.asc())
    )
    before = _cursors(connection, bare.limit(1)) or _cursors(
        connection, _ordered(turned, column, [*kept, valued], None).limit(1)
    )
    return before[0].id if before else ""


def _cursors(connection: Connection, found: Select[Any]) -> list[Cursor]:
    return [Cursor(row[0], row[1]) for row in connection.execute(found)]
