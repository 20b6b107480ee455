"""The traces that wait for a collector: a row for each, deleted once the collector has it.

A row belongs to the process that sends the trace, at first the one that answered. What a dead process has left is
taken over, and what the process had sent without deleting the row is sent again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Select, delete, func, select, update

from rag.database import insert_new, reading, writing
from rag.trace_tables import trace_exports, traces
from rag.tracing.processes import is_dead, process_identity

if TYPE_CHECKING:
    from rag.tracing.trace_types import Trace


def enqueue(connection: Connection, waiting: Iterable[Trace]) -> None:
    """Queue traces of this process, in the transaction that stores them; those of other programs are left out."""
    me = process_identity()
    rows = [
        {"trace_id": trace.id, "process": me}
        for trace in waiting
        if trace.process == me and trace.purpose != "external"
    ]
    insert_new(connection, trace_exports, rows)


class ExportQueue:
    """The queue of this process. Every method may raise DatabaseError; those that write, StorageFull."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def count(self) -> int:
        """Return how many finished traces wait for this process, with those of dead processes."""
        with reading(self._engine) as connection:
            query = select(func.count()).select_from(_mine(_owners(connection)).subquery())
            return connection.scalar(query) or 0

    def take(self, limit: int) -> Sequence[str]:
        """Return the ids of finished traces to send, oldest first; those of dead processes become this one's."""
        me = process_identity()
        with reading(self._engine) as connection:
            query = _mine(_owners(connection)).order_by(traces.c.started).limit(limit)
            found = connection.execute(query).all()
        won = {row.trace_id for row in found if row.process == me}
        column = trace_exports.c
        for row in found:
            if row.process == me:
                continue
            unchanged = (column.trace_id == row.trace_id, column.process == row.process)
            with writing(self._engine) as connection:
                if connection.execute(update(trace_exports).where(*unchanged).values(process=me)).rowcount:
                    won.add(row.trace_id)
        return [row.trace_id for row in found if row.trace_id in won]

    def remove(self, ids: Sequence[str]) -> None:
        """Delete traces from the queue, because the collector has them or will never take them."""
        with writing(self._engine) as connection:
            connection.execute(delete(trace_exports).where(trace_exports.c.trace_id.in_(ids)))


def _owners(connection: Connection) -> list[str]:
    """Return the owners of rows whose traces this process may send: itself and the dead."""
    me = process_identity()
    owners = connection.scalars(select(trace_exports.c.process).distinct()).all()
    return [owner for owner in owners if owner == me or is_dead(owner)]


def _mine(owners: Sequence[str]) -> Select[Any]:
    return (
        select(trace_exports.c.trace_id, trace_exports.c.process)
        .join(traces, traces.c.id == trace_exports.c.trace_id)
        .where(trace_exports.c.process.in_(owners), traces.c.status != "running")
    )
