"""Large strings of spans, stored once for all traces.

Passages and prompts occur in several steps of a trace, and passages in many traces. A large string is replaced in
the JSON of its span by ``{"@content": SHA-256}``, and stored in the table ``contents``. The table
``trace_contents`` names those of each trace, so that those without a trace can be deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256

from sqlalchemy import Connection, delete, select

from rag.database import insert_new
from rag.redaction import JSON
from rag.tables import contents as contents_table
from rag.tables import trace_contents as trace_contents_table

LARGE = 500
"""Characters from which a string is stored apart; a passage has about 900."""

_REFERENCE = "@content"
_MISSING = "<this text is missing in the database>"


class Contents:
    """The large strings of the spans that are written in one transaction."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._named: set[tuple[str, str]] = set()

    def packed(self, trace_id: str, value: JSON) -> JSON:
        """Return a value of a span with references in place of its large strings, which are kept for ``write``."""
        if isinstance(value, str):
            if len(value) < LARGE:
                return value
            digest = sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
            self._texts[digest] = value
            self._named.add((trace_id, digest))
            return {_REFERENCE: digest}
        if isinstance(value, list):
            return [self.packed(trace_id, item) for item in value]
        if isinstance(value, dict):
            packed = {key: self.packed(trace_id, item) for key, item in value.items()}
            # A value that looks like a reference is wrapped, so that it is none.
            return {_REFERENCE: [packed]} if packed.keys() == {_REFERENCE} else packed
        return value

    def write(self, connection: Connection) -> None:
        """Store the strings, and which trace names which."""
        # In one order, so that two processes do not wait for each other.
        texts = [{"sha256": digest, "text": text} for digest, text in sorted(self._texts.items())]
        insert_new(connection, contents_table, texts)
        named = [{"trace_id": trace_id, "sha256": digest} for trace_id, digest in sorted(self._named)]
        insert_new(connection, trace_contents_table, named)


def texts_of(connection: Connection, trace_id: str) -> dict[str, str]:
    """Return the large strings of a trace by hash."""
    query = (
        select(contents_table.c.sha256, contents_table.c.text)
        .join(trace_contents_table, trace_contents_table.c.sha256 == contents_table.c.sha256)
        .where(trace_contents_table.c.trace_id == trace_id)
    )
    return {row.sha256: row.text for row in connection.execute(query)}


def unpacked(value: JSON, texts: Mapping[str, str]) -> JSON:
    """Return a stored value with its large strings in their places."""
    if isinstance(value, list):
        return [unpacked(item, texts) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {_REFERENCE}:
        inner = value[_REFERENCE]
        if isinstance(inner, str):
            return texts.get(inner, _MISSING)
        if isinstance(inner, list) and len(inner) == 1 and isinstance(inner[0], dict):
            return {key: unpacked(item, texts) for key, item in inner[0].items()}
    return {key: unpacked(item, texts) for key, item in value.items()}


def forget_contents(connection: Connection, trace_ids: Iterable[str]) -> None:
    """Delete which strings some traces name; the strings stay."""
    connection.execute(delete(trace_contents_table).where(trace_contents_table.c.trace_id.in_(list(trace_ids))))
