"""Adding a trace that ends to the sums by hour: the ledger, and the counts of answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import Connection, select

from rag.trace_tables import traces as traces_table
from rag.tracing.ledger import entries_of, record
from rag.tracing.measures import count_measures, measures_of
from rag.tracing.processes import process_identity

if TYPE_CHECKING:
    from rag.tracing.trace_types import Trace


def due_of(connection: Connection, traces: Sequence[Trace]) -> list[Trace]:
    """Return the traces that end in this process and are not added yet; asked before their end is stored.

    A trace of another process, such as an imported one, was added where it ended; one of another program never is.
    """
    me = process_identity()
    ended = {
        trace.id: trace
        for trace in traces
        if trace.status != "running" and trace.process == me and trace.purpose != "external"
    }
    if not ended:
        return []
    query = select(traces_table.c.id).where(traces_table.c.id.in_(ended), traces_table.c.status != "running")
    added = set(connection.scalars(query))
    return [trace for trace in ended.values() if trace.id not in added]


def add_up(connection: Connection, traces: Iterable[Trace]) -> None:
    """Add traces that have ended, in the transaction that stores their end.

    Several traces of a transaction belong in one call, which writes the rows in an order that all processes share.
    """
    ended = list(traces)
    record(connection, (entry for trace in ended for entry in entries_of(trace)))
    count_measures(connection, (key for trace in ended for key in measures_of(trace)))
