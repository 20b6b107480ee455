"""Large strings and lists of spans, stored once for all traces.

Passages and prompts occur in several steps of a trace, and passages in many traces. A large string is replaced in
the JSON of its span by ``{"@content": SHA-256}``, and stored in the table ``contents``; a large list, such as the
passages that a search found, by ``{"@content": {"json": SHA-256}}``, and stored as JSON. The table
``trace_contents`` names those of each trace, so that those without a trace can be deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256

from sqlalchemy import Connection, delete, select

from rag.database import insert_new
from rag.redaction import JSON
from rag.trace_tables import contents as contents_table
from rag.trace_tables import trace_contents as trace_contents_table

LARGE = 500
"""Characters from which a string, or the JSON of a list, is stored apart; a passage has about 900."""

_REFERENCE = "@content"
_JSON = "json"
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_MISSING = "<this text is missing in the database>"


class Contents:
    """The large strings and lists of the spans that are written in one transaction."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._named: set[tuple[str, str]] = set()
        # What was packed already, by trace and identity: the steps of an answer share the same passages.
        self._packed: dict[tuple[str, int], JSON] = {}

    def packed(self, trace_id: str, value: JSON) -> JSON:
        """Return a value of a span with references in place of its large parts, which are kept for ``write``.

        The value must not change or be deleted until then.
        """
        if isinstance(value, str):
            return value if len(value) < LARGE else {_REFERENCE: self._kept(trace_id, value)}
        if not isinstance(value, list | dict):
            return value
        known = (trace_id, id(value))
        if known not in self._packed:
            self._packed[known] = (
                self._packed_list(trace_id, value)
                if isinstance(value, list)
                else self._packed_fields(trace_id, value)
            )
        return self._packed[known]

    def _packed_list(self, trace_id: str, value: list[JSON]) -> JSON:
        packed: JSON = [self.packed(trace_id, item) for item in value]
        text = _encode(packed)
        return packed if len(text) < LARGE else {_REFERENCE: {_JSON: self._kept(trace_id, text)}}

    def _packed_fields(self, trace_id: str, value: dict[str, JSON]) -> JSON:
        packed = {key: self.packed(trace_id, item) for key, item in value.items()}
        # A value that looks like a reference is wrapped, so that it is none.
        return {_REFERENCE: [packed]} if packed.keys() == {_REFERENCE} else packed

    def _kept(self, trace_id: str, text: str) -> str:
        digest = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        self._texts[digest] = text
        self._named.add((trace_id, digest))
        return digest

    def write(self, connection: Connection) -> None:
        """Store the large parts, and which trace names which."""
        # In one order, so that two processes do not wait for each other.
        texts = [{"sha256": digest, "text": text} for digest, text in sorted(self._texts.items())]
        insert_new(connection, contents_table, texts)
        named = [{"trace_id": trace_id, "sha256": digest} for trace_id, digest in sorted(self._named)]
        insert_new(connection, trace_contents_table, named)


def texts_of(connection: Connection, trace_id: str) -> dict[str, str]:
    """Return the large parts of a trace by hash."""
    query = (
        select(contents_table.c.sha256, contents_table.c.text)
        .join(trace_contents_table, trace_contents_table.c.sha256 == contents_table.c.sha256)
        .where(trace_contents_table.c.trace_id == trace_id)
    )
    return {row.sha256: row.text for row in connection.execute(query)}


def unpacked(value: JSON, texts: Mapping[str, str]) -> JSON:
    """Return a stored value with its large parts in their places."""
    if isinstance(value, list):
        return [unpacked(item, texts) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {_REFERENCE}:
        match value[_REFERENCE]:
            case str(digest):
                return texts.get(digest, _MISSING)
            case {"json": str(digest)}:
                return unpacked(json.loads(texts[digest]), texts) if digest in texts else _MISSING
            case [dict(fields)]:
                return {key: unpacked(item, texts) for key, item in fields.items()}
    return {key: unpacked(item, texts) for key, item in value.items()}


def forget_contents(connection: Connection, trace_ids: Iterable[str]) -> None:
    """Delete which large parts some traces name; these stay."""
    connection.execute(delete(trace_contents_table).where(trace_contents_table.c.trace_id.in_(list(trace_ids))))
