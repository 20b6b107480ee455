"""Consistency of an index: comparison of both sides with the database, and the passages to rebuild.

Comparing the counts of three stores and probing a few vectors detects a lost or emptied folder, missing graph
files next to intact Chroma tables, and an old copy of one store next to newer ones.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import Connection, func, select

from rag import tables as db
from rag.documents.chunking import context, name_as_title
from rag.errors import StorageFull, StoreError, VectorStoreError
from rag.indexing.dense_index import DenseIndex, is_damage
from rag.types import Metadata

if TYPE_CHECKING:
    from rag.indexing.lexical_index import LexicalIndex

# Number of vectors to probe, at about a millisecond each.
PROBES = 8
# Characters of a value of the metadata that is searched, and of all of them.
LONGEST_FIELD, LONGEST_FIELDS = 80, 400


@dataclass(frozen=True, slots=True)
class IndexState:
    """Counts of the three stores of an index.

    Attributes:
        passages: Ready passages in the database.
        unfinished: Passages that are being added or removed, which a side may or may not contain.
        vectors: Vectors in Chroma; None if they cannot be read.
        words: Passages in the lexical index; None if it cannot be read.
    """

    passages: int
    unfinished: int = 0
    vectors: int | None = 0
    words: int | None = 0

    @property
    def ok(self) -> bool:
        """Whether both sides are consistent with the database."""
        return all(
            count is not None and self.passages <= count <= self.passages + self.unfinished
            for count in (self.vectors, self.words)
        )

    def notice(self, corpus: str) -> str:
        """Describe the damage and its repair; empty if there is none."""
        if self.ok:
            return ""
        sides = (("Chroma", "vectors", self.vectors), ("the lexical index", "passages", self.words))
        parts = [part for side, what, count in sides if (part := self._fault(side, what, count))]
        return (
            f"The index of the corpus {corpus} is damaged: {'; '.join(parts)}. "
            f"The next `ragsmith ingest PATH --corpus {corpus}`, or Add documents, repairs it."
        )

    def _fault(self, side: str, what: str, count: int | None) -> str:
        if count is None:
            return f"the {self.passages:,} {what} in {side} cannot be read"
        if count < self.passages:
            return f"{self.passages - count:,} of {self.passages:,} {what} are missing from {side}"
        surplus = count - self.passages - self.unfinished
        return f"{side} contains {surplus:,} {what} that belong to no document" if surplus > 0 else ""


class StoredPassage(NamedTuple):
    """A passage from the database, with the text that is embedded and searched.

    Attributes:
        name: The name of its file, where it stands for a missing title.
        fields: Values of its document's metadata, which only the lexical index contains.
    """

    id: int
    text_id: int
    page: int
    words: str
    name: str = ""
    fields: str = ""


def look_at(
    connection: Connection, index_id: int, dense: DenseIndex | None, lexical: LexicalIndex | None
) -> IndexState:
    """Compare the stores, in a few milliseconds once Chroma has loaded the collection.

    Args:
        connection: Connection to the database.
        index_id: The row in ``indexes``.
        dense: The collection; None if it does not exist.
        lexical: The lexical index; None if it does not exist.

    Raises:
        StoreError: The database refuses, or Chroma for a reason other than damage.
        StorageFull: The disk is full.
    """
    passages, unfinished, probes = _expected(connection, index_id)
    vectors = 0 if dense is None else _vectors(dense, passages, probes)
    words = 0 if lexical is None else _words(lexical)
    return IndexState(passages, unfinished, vectors, words)


def _vectors(dense: DenseIndex, passages: int, probes: Sequence[int]) -> int | None:
    try:
        count = len(dense)
        if count < passages or len(dense.vectors(probes)) == len(probes):
            return count
    except VectorStoreError as error:
        if not is_damage(error):
            raise
    # The count is right but the probed vectors are missing, or the files are damaged.
    return None


def _words(lexical: LexicalIndex) -> int | None:
    try:
        lexical.probe()
        return len(lexical)
    except StorageFull:
        raise
    except StoreError:
        return None


def _expected(connection: Connection, index_id: int) -> tuple[int, int, list[int]]:
    """Return the counts of ready and unfinished passages, and the ids of some ready ones."""
    mine = db.passages.join(db.texts)
    rows = connection.execute(
        select(db.texts.c.state, func.count(), func.min(db.passages.c.id), func.max(db.passages.c.id))
        .select_from(mine)
        .where(db.texts.c.index_id == index_id)
        .group_by(db.texts.c.state)
    )
    found = {state: (int(count), int(first), int(last)) for state, count, first, last in rows}
    ready, first, last = found.pop("ready", (0, 0, 0))
    unfinished = sum(count for count, _, _ in found.values())
    places = {first + (last - first) * part // (PROBES - 1) for part in range(PROBES)} if ready else set()
    nearest = (
        select(db.passages.c.id)
        .select_from(mine)
        .where(db.texts.c.index_id == index_id, db.texts.c.state == "ready")
        .order_by(db.passages.c.id)
        .limit(1)
    )
    probes = {connection.scalar(nearest.where(db.passages.c.id >= place)) for place in places}
    return ready, unfinished, sorted(int(number) for number in probes if number is not None)


def ready_ids(connection: Connection, index_id: int) -> list[int]:
    """Return the ids of all ready passages, ascending."""
    rows = connection.scalars(
        select(db.passages.c.id)
        .join(db.texts)
        .where(db.texts.c.index_id == index_id, db.texts.c.state == "ready")
        .order_by(db.passages.c.id)
    )
    return [int(number) for number in rows]


def untitled_texts(connection: Connection, index_id: int) -> list[int]:
    """Return the texts that no file contains, whose title for the embedding is no longer known."""
    return list(
        connection.scalars(
            select(db.texts.c.id).where(
                db.texts.c.index_id == index_id, db.texts.c.id.not_in(select(db.documents.c.text_id))
            )
        )
    )


def stored_passages(connection: Connection, ids: Sequence[int]) -> list[StoredPassage]:
    """Return passages with the text they were originally embedded with."""
    rows = connection.execute(
        select(
            db.passages.c.id,
            db.passages.c.text_id,
            db.passages.c.page,
            db.passages.c.headings,
            db.passages.c.text,
        )
        .where(db.passages.c.id.in_(ids))
        .order_by(db.passages.c.id)
    ).all()
    titles = _titles(connection, sorted({row.text_id for row in rows}))
    found = []
    for row in rows:
        title, name, fields = titles.get(row.text_id, ("", "", ""))
        where = context(title or name, row.headings)
        words = f"{where}\n{row.text}" if where else row.text
        found.append(StoredPassage(row.id, row.text_id, row.page or 0, words, name, fields))
    return found


def title_instead(name: str, record: str) -> str:
    """Return what is embedded in place of a missing title; nothing for the record of a file with many."""
    return "" if record else name_as_title(name)


def searched_fields(metadata: Metadata) -> str:
    """Return the short values of a document's metadata, by which a record may be looked for."""
    values = (" ".join(str(value).split()) for value in metadata.values() if not isinstance(value, bool))
    return " ".join(value for value in values if len(value) <= LONGEST_FIELD)[:LONGEST_FIELDS]


def _titles(connection: Connection, text_ids: Sequence[int]) -> dict[int, tuple[str, str, str]]:
    """Return the titles of texts, what stands for missing ones, and their searched fields.

    A document has the file name as title if its source has none. All documents of a text share its own title, so
    that any title other than the file name is the text's own. Of several names, that of the first file is taken.
    """
    rows = connection.execute(
        select(
            db.documents.c.text_id,
            db.documents.c.title,
            db.documents.c.record,
            db.documents.c.metadata,
            db.sources.c.path,
        )
        .join(db.sources, db.sources.c.id == db.documents.c.source_id)
        .where(db.documents.c.text_id.in_(text_ids))
        .order_by(db.documents.c.id.desc())
    )
    titles = {}
    for text_id, title, record, metadata, path in rows:
        name = re.split(r"[/\\]", path)[-1]
        own, instead = ("", title_instead(name, record)) if title == name else (title, "")
        titles[text_id] = own, instead, searched_fields(metadata)
    return titles
