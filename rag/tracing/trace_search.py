"""Search for a text in question, answer and error of traces, fast also among a million.

On SQLite, an index of trigrams (``trace_tables.create_search``) gives the few traces that may have the text; their
columns then decide, so that the text is found as a substring. Where there are many, or the text is shorter than a
trigram, the traces are read in their order, which soon fills a page. PostgreSQL chooses between its own index of
trigrams and the same.
"""

from __future__ import annotations

import re
from itertools import product

from sqlalchemy import ColumnElement, Connection, any_, bindparam, exc, literal_column, or_, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import Text

from rag.trace_tables import POSTGRESQL_TEXT
from rag.trace_tables import traces as traces_table
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
        return _postgresql_has(wanted)
    columns = (traces_table.c.question, traces_table.c.answer, traces_table.c.error)
    # LIKE ignores the case of ASCII letters; lowering both sides first would take twice as long and find the same.
    found = or_(*(column.contains(wanted, autoescape=True) for column in columns))
    candidates = _candidates(connection, wanted)
    if candidates is None:
        return found
    # The index has no running traces, of which there are few.
    return or_(traces_table.c.id.in_(candidates), traces_table.c.status == "running") & found


def _postgresql_has(wanted: str) -> ColumnElement[bool]:
    def pattern(text: str) -> str:
        # Without ESCAPE, which would hide it from the index.
        return "%" + re.sub(r"([\\%_])", r"\\\1", text) + "%"

    if len(wanted) >= _TRIGRAM:
        # The expression of the index.
        return literal_column(f"({POSTGRESQL_TEXT})", Text).ilike(pattern(wanted))
    # The index would name every trace, and ILIKE change the case of every text.
    letters = ({one for one in (letter, letter.lower(), letter.upper()) if len(one) == 1} for letter in wanted)
    patterns = postgresql.array([pattern("".join(one)) for one in product(*letters)])
    return literal_column(f"({POSTGRESQL_TEXT} || '')", Text).like(any_(patterns))


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
