"""The index of one corpus under one fingerprint: three stores that are kept in step.

The database is the truth. A text is written there as ``pending`` first, then to Chroma and to the lexical
index, then marked ``ready``; on its way out it is ``leaving`` until both have forgotten it. Whatever a crash
leaves in between, ``mend`` takes back, and the next ingestion does again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, delete, func, insert, select, update

from rag import database as db
from rag.chunking import context
from rag.dense import DenseEntry, DenseIndex
from rag.documents import Chunk, Document
from rag.encoder.base import Encoder
from rag.lexical import LexicalEntry, LexicalIndex

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from sqlalchemy import Connection

# SQLite takes 32,766 variables in a statement; lists of numbers go through in parts.
PART = 10_000


@dataclass(frozen=True, slots=True)
class PreparedText:
    """A document that was cut and waits for a place in the index.

    Attributes:
        digest: Identity of the text: equal digests are stored once.
    """

    digest: str
    document: Document
    chunks: tuple[Chunk, ...]

    def embedded(self, chunk: Chunk) -> str:
        """What the encoder reads of a chunk: where it stands, then its text."""
        where = context(self.document.title, chunk.headings)
        text = self.document.text[chunk.start : chunk.end]
        return f"{where}\n{text}" if where else text


def digest_of(document: Document) -> str:
    """The identity of what is indexed of a document: its text, its own title, its structure."""
    shape = [(block.start, block.end, block.kind, block.headings, block.page) for block in document.blocks]
    told = json.dumps([document.title, shape], ensure_ascii=True)
    return hashlib.sha256(f"{told}\0{document.text}".encode("utf-8", "replace")).hexdigest()


class CorpusIndex:
    """Adds and removes texts, and opens both sides for searching.

    Args:
        engine: The workspace's database.
        index_id: The row in ``indexes``.
        dense: The Chroma collection.
        lexical: The tantivy index.
        encoder: The encoder of the fingerprint.
        tokens: The size of passages of the fingerprint.
        generation: Of the row in ``indexes``, as it was when the sides were opened.
    """

    def __init__(
        self,
        engine: Engine,
        index_id: int,
        dense: DenseIndex,
        lexical: LexicalIndex,
        encoder: Encoder,
        tokens: int,
        generation: int,
    ) -> None:
        self.engine = engine
        self.tokens = tokens
        self.generation = generation
        self._changed = False
        self.id = index_id
        self.dense = dense
        self.lexical = lexical
        self.encoder = encoder

    def known(self, digests: Iterable[str]) -> dict[str, int]:
        """Which of these texts the index holds, and their numbers."""
        wanted = list(digests)
        found: dict[str, int] = {}
        with db.reading(self.engine) as connection:
            for at in range(0, len(wanted), PART):
                rows = connection.execute(
                    select(db.texts.c.digest, db.texts.c.id).where(
                        db.texts.c.index_id == self.id,
                        db.texts.c.state == "ready",
                        db.texts.c.digest.in_(wanted[at : at + PART]),
                    )
                )
                found.update((digest, number) for digest, number in rows)
        return found

    def add(
        self, texts: Sequence[PreparedText], on_progress: Callable[[int], None] | None = None
    ) -> dict[str, int]:
        """Index texts that are not there yet.

        Args:
            texts: With distinct digests.
            on_progress: Called with the number of passages embedded since the last call.

        Returns:
            The number of each text, by digest.

        Raises:
            StoreError: A store refuses; what was begun is taken back by ``mend``.
        """
        self._changed = True
        numbers: dict[str, int] = {}
        rows: list[dict[str, Any]] = []
        with db.writing(self.engine) as connection:
            for text in texts:
                numbers[text.digest] = text_id = self._new_text(connection, text)
                rows.extend(_passage_rows(text, text_id))
            ids = self._new_passages(connection, rows)
        words = [text.embedded(chunk) for text in texts for chunk in text.chunks]
        if ids:
            vectors = self.encoder.embed_passages(words, on_progress)
            self.dense.add(
                [
                    DenseEntry(number, row["text_id"], row["page"] or 0)
                    for number, row in zip(ids, rows, strict=True)
                ],
                vectors,
            )
            self.lexical.write(
                add=[
                    LexicalEntry(number, row["text_id"], row["page"] or 0, word)
                    for number, row, word in zip(ids, rows, words, strict=True)
                ]
            )
        with db.writing(self.engine) as connection:
            self._set_state(connection, list(numbers.values()), "ready")
        return numbers

    def _new_text(self, connection: Connection, text: PreparedText) -> int:
        return db.insert_row(
            connection,
            db.texts,
            index_id=self.id,
            digest=text.digest,
            state="pending",
            text=text.document.text,
        )

    def _new_passages(self, connection: Connection, rows: list[dict[str, Any]]) -> list[int]:
        if not rows:
            return []
        made = connection.execute(
            insert(db.passages).returning(db.passages.c.id, sort_by_parameter_order=True), rows
        )
        return [int(number) for number in made.scalars()]

    def _set_state(self, connection: Connection, text_ids: Sequence[int], state: str) -> None:
        for at in range(0, len(text_ids), PART):
            some = text_ids[at : at + PART]
            connection.execute(update(db.texts).where(db.texts.c.id.in_(some)).values(state=state))

    def mend(self) -> int:
        """Take back what a crash left half-way in or out.

        Returns:
            How many texts were taken back.
        """
        with db.reading(self.engine) as connection:
            unfinished = list(
                connection.scalars(
                    select(db.texts.c.id).where(db.texts.c.index_id == self.id, db.texts.c.state != "ready")
                )
            )
        self._forget(unfinished)
        return len(unfinished)

    def remove_orphans(self) -> int:
        """Remove the texts that no file holds any more.

        Returns:
            How many there were.
        """
        with db.writing(self.engine) as connection:
            held = select(db.entries.c.text_id)
            orphans = list(
                connection.scalars(
                    select(db.texts.c.id).where(db.texts.c.index_id == self.id, db.texts.c.id.not_in(held))
                )
            )
            self._set_state(connection, orphans, "leaving")
        self._forget(orphans)
        return len(orphans)

    def _forget(self, text_ids: Sequence[int]) -> None:
        for at in range(0, len(text_ids), PART):
            some = text_ids[at : at + PART]
            with db.reading(self.engine) as connection:
                ids = list(connection.scalars(select(db.passages.c.id).where(db.passages.c.text_id.in_(some))))
            if ids:
                self._changed = True
                self.dense.remove(ids)
                self.lexical.write(remove=ids)
            with db.writing(self.engine) as connection:
                connection.execute(delete(db.entries).where(db.entries.c.text_id.in_(some)))
                connection.execute(delete(db.passages).where(db.passages.c.text_id.in_(some)))
                connection.execute(delete(db.texts).where(db.texts.c.id.in_(some)))

    def publish(self) -> None:
        """Let other processes know that something changed, if it did."""
        if not self._changed:
            return
        with db.writing(self.engine) as connection:
            mine = db.indexes.c.id == self.id
            connection.execute(update(db.indexes).where(mine).values(generation=db.indexes.c.generation + 1))
            self.generation = connection.scalar(select(db.indexes.c.generation).where(mine)) or 0
        self._changed = False

    def reopen(self, client: ClientAPI, generation: int) -> None:
        """See what another process has written."""
        self.dense.use(client)
        self.lexical.refresh()
        self.generation = generation

    def passage_count(self) -> int:
        """Passages that are ready to be found."""
        with db.reading(self.engine) as connection:
            found = connection.scalar(
                select(func.count())
                .select_from(db.passages.join(db.texts))
                .where(db.texts.c.index_id == self.id, db.texts.c.state == "ready")
            )
        return int(found or 0)


def _passage_rows(text: PreparedText, text_id: int) -> list[dict[str, Any]]:
    return [
        {
            "text_id": text_id,
            "start": chunk.start,
            "end": chunk.end,
            "page": chunk.page,
            "headings": list(chunk.headings),
            "tokens": chunk.tokens,
            "text": text.document.text[chunk.start : chunk.end],
        }
        for chunk in text.chunks
    ]
