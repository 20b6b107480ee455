"""Which answers people rated."""

from __future__ import annotations

from sqlalchemy import Engine, select

from rag.database import reading
from rag.trace_tables import feedback as feedback_table
from rag.tracing.trace_store import Rating, Review


def rated_ids(
    engine: Engine, rating: Rating | None = None, *, corrected: bool = False, review: Review | None = None
) -> tuple[str, ...]:
    """Return the ids of rated traces, the newest rating first.

    Args:
        engine: The database.
        rating: Only these ratings; None for both.
        corrected: Whether only answers with a correction are wanted.
        review: Only answers in this state of their review; None for all.

    Raises:
        DatabaseError: The database refuses.
    """
    column = feedback_table.c
    query = select(column.trace_id).order_by(column.at.desc(), column.trace_id)
    if rating is not None:
        query = query.where(column.rating == rating)
    if corrected:
        query = query.where(column.correction != "")
    if review is not None:
        query = query.where(column.review == review)
    with reading(engine) as connection:
        return tuple(connection.scalars(query))
