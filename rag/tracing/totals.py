"""Adding a trace that ends to the sums by hour: the ledger, and the counts of answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sqlalchemy import Connection, select

from rag.tables import traces as traces_table
from rag.tracing.ledger import entries_of, record
from rag.tracing.measures import count_measures, measures_of
from rag.tracing.processes import process_identity

if TYPE_CHECKING:
    from rag.tracing.trace_store import Trace


def is_due(connection: Connection, trace: Trace) -> bool:
    """Whether a trace ends in this process and is not added yet; asked before it is stored.

    A trace of another process, such as an imported one, was added where it ended.
    """
    if trace.status == "running" or trace.process != process_identity():
        return False
    before = connection.scalar(select(traces_table.c.status).where(traces_table.c.id == trace.id))
    return before in (None, "running")


def add_up(connection: Connection, traces: Iterable[Trace]) -> None:
    """Add traces that have ended, in the transaction that stores their end.

    Several traces of a transaction belong in one call, which writes the rows in an order that all processes share.
    """
    ended = list(traces)
    record(connection, (entry for trace in ended for entry in entries_of(trace)))
    count_measures(connection, (key for trace in ended for key in measures_of(trace)))
