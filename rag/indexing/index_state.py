"""Whether the two sides of an index hold what the database says is ready, and the texts that are embedded again.

The counts of three stores and a few vectors are compared: a lost or emptied folder, a graph whose files are gone
while Chroma's own tables are whole, and an older copy of one store beside newer ones all show in them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import Connection, func, select

from rag import tables as db
from rag.documents.chunking import context
from rag.errors import StorageFull, StoreError, VectorStoreError
from rag.indexing.dense_index import DenseIndex, is_damage

if TYPE_CHECKING:
    from rag.indexing.lexical_index import LexicalIndex

# A passage's vector is looked for at so many places; one look takes about a millisecond.
PROBES = 8


@dataclass(frozen=True, slots=True)
class IndexState:
    """What the three stores of an index hold.

    Attributes:
        passages: Ready, as the database says.
        unfinished: On their way in or out; either side may hold them.
        vectors: In Chroma; None where they cannot be read.
        words: Passages in the lexical index; None where it cannot be read.
    """

    passages: int
    unfinished: int = 0
    vectors: int | None = 0
    words: int | None = 0

    @property
    def ok(self) -> bool:
        """Whether both sides hold what they should."""
        return all(
            held is not None and self.passages <= held <= self.passages + self.unfinished
            for held in (self.vectors, self.words)
        )

    def notice(self, corpus: str) -> str:
        """Say what is wrong and what repairs it; empty where nothing is."""
        if self.ok:
            return ""
        sides = (("Chroma", "vectors", self.vectors), ("the lexical index", "passages", self.words))
        parts = [part for side, what, held in sides if (part := self._fault(side, what, held))]
        return (
            f"The index of the corpus {corpus} is damaged: {'; '.join(parts)}. "
            f"The next `ragsmith ingest PATH --corpus {corpus}`, or Add documents, repairs it."
        )

    def _fault(self, side: str, what: str, held: int | None) -> str:
        if held is None:
            return f"the {self.passages:,} {what} in {side} cannot be read"
        if held < self.passages:
            return f"{self.passages - held:,} of {self.passages:,} {what} are missing from {side}"
        surplus = held - self.passages - self.unfinished
        return f"{side} holds {surplus:,} {what} that belong to no document" if surplus > 0 else ""


class StoredPassage(NamedTuple):
    """A passage as the database has it, with the words that are embedded and searched."""

    id: int
    text_id: int
    page: int
    words: str


def look_at(
    connection: Connection, index_id: int, dense: DenseIndex | None, lexical: LexicalIndex | None
) -> IndexState:
    """Compare the stores, in a few milliseconds once Chroma has loaded the collection.

    Args:
        connection: To the database.
        index_id: The row in ``indexes``.
        dense: None where there is no collection, so that it holds nothing.
        lexical: None where there is no folder.

    Raises:
        StoreError: The database refuses, or Chroma for a reason that is no damage.
        StorageFull: The disk has no room left.
    """
    passages, unfinished, probes = _expected(connection, index_id)
    vectors = 0 if dense is None else _vectors(dense, passages, probes)
    words = 0 if lexical is None else _words(lexical)
    return IndexState(passages, unfinished, vectors, words)


def _vectors(dense: DenseIndex, passages: int, probes: Sequence[int]) -> int | None:
    try:
        held = len(dense)
        if held < passages or len(dense.vectors(probes)) == len(probes):
            return held
    except VectorStoreError as error:
        if not is_damage(error):
            raise
    # As many as there should be, but not those; or files that are not what they were.
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
    """Passages that are ready, those that are on their way, and the numbers of some that are ready."""
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
    """The numbers of all passages that are ready, ascending."""
    rows = connection.scalars(
        select(db.passages.c.id)
        .join(db.texts)
        .where(db.texts.c.index_id == index_id, db.texts.c.state == "ready")
        .order_by(db.passages.c.id)
    )
    return [int(number) for number in rows]


def untitled_texts(connection: Connection, index_id: int) -> list[int]:
    """The texts that no file holds: what they were embedded with is not known any more."""
    return list(
        connection.scalars(
            select(db.texts.c.id).where(
                db.texts.c.index_id == index_id, db.texts.c.id.not_in(select(db.documents.c.text_id))
            )
        )
    )


def stored_passages(connection: Connection, ids: Sequence[int]) -> list[StoredPassage]:
    """Passages with the words that they were first embedded with."""
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
    titles = _own_titles(connection, sorted({row.text_id for row in rows}))
    found = []
    for row in rows:
        where = context(titles.get(row.text_id), row.headings)
        found.append(
            StoredPassage(row.id, row.text_id, row.page or 0, f"{where}\n{row.text}" if where else row.text)
        )
    return found


def _own_titles(connection: Connection, text_ids: Sequence[int]) -> dict[int, str]:
    """The titles that stand inside the sources.

    A document carries its file's name where it has no title. All documents of one text share its own title, so
    that a title which is not the name of its file is the text's own.
    """
    rows = connection.execute(
        select(db.documents.c.text_id, db.documents.c.title, db.sources.c.path)
        .join(db.sources, db.sources.c.id == db.documents.c.source_id)
        .where(db.documents.c.text_id.in_(text_ids))
    )
    return {text_id: title for text_id, title, path in rows if title != re.split(r"[/\\]", path)[-1]}
