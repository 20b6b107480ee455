"""Deletion of old traces, by age and by size."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Text, cast, delete, exists, func, select, type_coerce

from rag.database import reading, writing
from rag.trace_tables import contents, feedback, spans, trace_contents, trace_exports, trace_passages, traces

DAY_S = 86_400.0
MEGABYTE = 1_000_000

# Traces and texts of a transaction: an answer never waits long for its turn to write.
_CHUNK = 200
# Bytes of a row and its indexes beside its texts.
_ROW_BYTES = 300


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept.

    Attributes:
        days: Older traces are deleted; None keeps traces of any age.
        megabytes: The oldest traces are deleted until the texts of the others take less; None keeps any number.
            The file of the database keeps its size, and new traces fill the space.
        keep_rated: Whether traces with a rating are kept in any case.
    """

    days: float | None = None
    megabytes: float | None = None
    keep_rated: bool = False

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is ever deleted."""
        return self.days is None and self.megabytes is None


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was deleted, or would be: traces, and texts that no other trace has."""

    traces: int = 0
    texts: int = 0


def prune(engine: Engine, retention: Retention, *, dry_run: bool = False) -> Pruned:
    """Delete the traces that are not kept, and the texts that no trace names any more.

    Traces that are still running stay. Other processes may read and write meanwhile; an interrupted call has
    deleted whole traces.

    Args:
        engine: The database.
        retention: What is kept.
        dry_run: Whether to count traces only, and delete nothing.

    Raises:
        DatabaseError: The database refuses.
    """
    deletable = [traces.c.status != "running"]
    if retention.keep_rated:
        deletable.append(~exists().where(feedback.c.trace_id == traces.c.id))
    bounds = [traces.c.started < bound for bound in _bounds(engine, retention)]
    if not bounds:
        return Pruned()
    wanted = [*deletable, bounds[0] if len(bounds) == 1 else bounds[0] | bounds[1]]
    if dry_run:
        with reading(engine) as connection:
            return Pruned(connection.scalar(select(func.count()).select_from(traces).where(*wanted)) or 0)
    deleted = 0
    while found := _delete_some(engine, wanted):
        deleted += found
    return Pruned(deleted, _delete_texts(engine))


def _bounds(engine: Engine, retention: Retention) -> Iterator[float]:
    """Yield the times before which traces are deleted."""
    if retention.days is not None:
        yield time.time() - retention.days * DAY_S
    if retention.megabytes is not None:
        with reading(engine) as connection:
            bound = _size_bound(connection, retention.megabytes * MEGABYTE)
        if bound is not None:
            yield bound


def _size_bound(connection: Connection, most: float) -> float | None:
    """Return the start of the oldest trace that fits into ``most`` bytes with all newer ones; None if all do."""
    newest = connection.execute(select(traces.c.id, traces.c.started).order_by(traces.c.started.desc()))
    known: set[str] = set()
    total, oldest = 0.0, float("inf")
    while chunk := newest.fetchmany(_CHUNK):
        sizes = _sizes(connection, [row.id for row in chunk], known)
        for row in chunk:
            total += sizes.get(row.id, 0) + _ROW_BYTES
            if total > most:
                return oldest
            oldest = row.started
    return None


def _sizes(connection: Connection, ids: Sequence[str], known: set[str]) -> dict[str, int]:
    """Return the bytes of traces, newest first; a text counts for the newest trace that names it."""
    data = _length(spans.c.input) + _length(spans.c.output) + _ROW_BYTES
    query = select(spans.c.trace_id, func.sum(data)).where(spans.c.trace_id.in_(ids)).group_by(spans.c.trace_id)
    sizes = {trace_id: int(size) for trace_id, size in connection.execute(query)}
    named = (
        select(trace_contents.c.trace_id, contents.c.sha256, func.length(contents.c.text))
        .join(contents, contents.c.sha256 == trace_contents.c.sha256)
        .where(trace_contents.c.trace_id.in_(ids))
    )
    newest_first = {trace_id: place for place, trace_id in enumerate(ids)}
    for trace_id, digest, size in sorted(connection.execute(named), key=lambda row: newest_first[row[0]]):
        if digest not in known:
            known.add(digest)
            sizes[trace_id] = sizes.get(trace_id, 0) + size + _ROW_BYTES
    return sizes


def _length(column: ColumnElement[Any]) -> ColumnElement[int]:
    # Left to itself, SQLAlchemy reads JSON null as NULL on PostgreSQL.
    return func.coalesce(func.length(cast(type_coerce(column, Text), Text)), 0)


def _delete_some(engine: Engine, wanted: Sequence[ColumnElement[bool]]) -> int:
    with writing(engine) as connection:
        ids = connection.scalars(select(traces.c.id).where(*wanted).order_by(traces.c.started).limit(_CHUNK)).all()
        if ids:
            for table in (spans, trace_contents, trace_passages, trace_exports, feedback):
                connection.execute(delete(table).where(table.c.trace_id.in_(ids)))
            connection.execute(delete(traces).where(traces.c.id.in_(ids)))
        return len(ids)


def _delete_texts(engine: Engine) -> int:
    unnamed = select(contents.c.sha256).where(~exists().where(trace_contents.c.sha256 == contents.c.sha256))
    with reading(engine) as connection:
        left = iter(connection.scalars(unnamed).all())
    deleted = 0
    while chunk := list(islice(left, _CHUNK)):
        with writing(engine) as connection:
            # A trace may have named one since.
            still = contents.c.sha256.in_(unnamed.where(contents.c.sha256.in_(chunk)))
            deleted += connection.execute(delete(contents).where(still)).rowcount
    return deleted
