"""Search for a text in question, answer and error of traces, fast also among a million.

On SQLite, an index of trigrams (``rag.tables.create_search``) gives the few traces that may have the text; their
columns then decide, so that the text is found as a substring. Where there are many, or the text is shorter than a
trigram, the traces are read in their order, which soon fills a page. PostgreSQL chooses between its own index of
trigrams and the same.
"""

from __future__ import annotations

import re

from sqlalchemy import ColumnElement, Connection, bindparam, exc, literal_column, or_, text
from sqlalchemy.types import Text

from rag.tables import POSTGRESQL_TEXT
from rag.tables import traces as traces_table
from rag.types import whole

MOST_CANDIDATES = 2_000
"""Traces up to which the index decides what is read."""
_TRIGRAM = 3
# More of them exclude hardly anything.
_MOST_TRIGRAMS = 30


def has_text(connection: Connection, wanted: str) -> ColumnElement[bool]:
    """Return the condition on ``traces`` that question, answer or error has a text, regardless of case.

    Args:
        connection: Where the condition will be used; it may already read the index.
        wanted: Any text, which is taken literally.
    """
    wanted = whole(wanted)
    if connection.dialect.name == "postgresql":
        # The expression of the index, and a pattern without ESCAPE, which would hide it from the index.
        literal = re.sub(r"([\\%_])", r"\\\1", wanted)
        return literal_column(f"({POSTGRESQL_TEXT})", Text).ilike(f"%{literal}%")
    columns = (traces_table.c.question, traces_table.c.answer, traces_table.c.error)
    found = or_(*(column.icontains(wanted, autoescape=True) for column in columns))
    candidates = _candidates(connection, wanted)
    if candidates is None:
        return found
    # The index has no running traces, of which there are few.
    return or_(traces_table.c.id.in_(candidates), traces_table.c.status == "running") & found


def _candidates(connection: Connection, wanted: str) -> list[str] | None:
    """Return the ids of the traces with all trigrams of a text; None if the index does not help."""
    trigrams = list(dict.fromkeys(wanted[at : at + _TRIGRAM] for at in range(len(wanted) - _TRIGRAM + 1)))
    if not trigrams or "\x00" in wanted:
        return None
    words = " ".join('"' + trigram.replace('"', '""') + '"' for trigram in trigrams[:_MOST_TRIGRAMS])
    query = text("SELECT rowid FROM trace_texts WHERE trace_texts MATCH :words LIMIT :most")
    try:
        numbers = connection.scalars(query, {"words": words, "most": MOST_CANDIDATES + 1}).all()
    except exc.OperationalError:
        # SQLite without FTS5.
        return None
    if len(numbers) > MOST_CANDIDATES:
        return None
    ids = text("SELECT trace_id FROM trace_numbers WHERE number IN :numbers")
    return list(connection.scalars(ids.bindparams(bindparam("numbers", expanding=True)), {"numbers": numbers}))
