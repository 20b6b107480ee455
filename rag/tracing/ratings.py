"""Which answers people rated."""

from __future__ import annotations

from sqlalchemy import Engine, select

from rag.database import reading
from rag.tables import feedback as feedback_table
from rag.tracing.trace_store import Rating


def rated_ids(engine: Engine, rating: Rating | None = None, *, corrected: bool = False) -> tuple[str, ...]:
    """Return the ids of rated traces, the newest rating first.

    Args:
        engine: The database.
        rating: Only these ratings; None for both.
        corrected: Whether only answers with a correction are wanted.

    Raises:
        DatabaseError: The database refuses.
    """
    column = feedback_table.c
    query = select(column.trace_id).order_by(column.at.desc(), column.trace_id)
    if rating is not None:
        query = query.where(column.rating == rating)
    if corrected:
        query = query.where(column.correction != "")
    with reading(engine) as connection:
        return tuple(connection.scalars(query))
