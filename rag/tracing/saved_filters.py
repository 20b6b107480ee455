"""Filters of traces that a person keeps under a name."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import Engine, delete, insert, select

from rag.database import reading, writing
from rag.errors import FilterError
from rag.trace_tables import saved_filters as table
from rag.tracing.trace_filter import parse_filter

LONGEST_NAME = 120


@dataclass(frozen=True, slots=True)
class SavedFilter:
    """A filter with its name."""

    name: str
    text: str


class SavedFilters:
    """The saved filters of a workspace. Every method may raise DatabaseError."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def list(self) -> tuple[SavedFilter, ...]:
        """Return all saved filters by name."""
        with reading(self._engine) as connection:
            rows = connection.execute(select(table.c.name, table.c.text).order_by(table.c.name)).all()
        return tuple(SavedFilter(row.name, row.text) for row in rows)

    def save(self, name: str, text: str) -> SavedFilter:
        """Save a filter, replacing one of the same name.

        Raises:
            FilterError: The filter is empty or not understood, or the name is empty or too long.
        """
        saved = SavedFilter(" ".join(name.split()), text.strip())
        if not saved.name or len(saved.name) > LONGEST_NAME:
            raise FilterError(
                f"The name of a filter must have 1 to {LONGEST_NAME} characters.", fix="Choose another name."
            )
        if not saved.text:
            raise FilterError("An empty filter cannot be saved.", fix="Type a filter first.")
        parse_filter(saved.text)
        with writing(self._engine) as connection:
            connection.execute(delete(table).where(table.c.name == saved.name))
            connection.execute(insert(table).values(name=saved.name, text=saved.text, created=time.time()))
        return saved

    def delete(self, name: str) -> None:
        """Delete a saved filter, if there is one of this name."""
        with writing(self._engine) as connection:
            connection.execute(delete(table).where(table.c.name == name))
