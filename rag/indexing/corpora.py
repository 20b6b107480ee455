"""The corpora of a workspace, and their indexes under the current fingerprint."""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import Engine, delete, func, insert, select, update

from rag import tables as db
from rag.database import insert_row, reading, writing
from rag.encoders.encoder import Encoder
from rag.errors import CorpusError, StorageFull, StoreError, VectorStoreError
from rag.indexing.corpus_index import CorpusIndex
from rag.indexing.dense_index import ChromaStore, DenseIndex, is_damage
from rag.indexing.index_state import IndexState, look_at
from rag.indexing.lexical_index import LexicalIndex, drop_lexical
from rag.workspace import Workspace

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

_log = logging.getLogger(__name__)
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,58}[a-z0-9])?")
# Increment when passages are chunked or embedded differently, so that old and new indexes are not mixed.
CHUNKING_VERSION = 1


@dataclass(frozen=True, slots=True)
class CorpusSummary:
    """Counts of a corpus.

    Attributes:
        current: Whether it is indexed under the current fingerprint.
    """

    name: str
    files: int
    documents: int
    passages: int
    current: bool


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A stored text and its source; the offsets of its passages refer to ``text``.

    Attributes:
        path: Absolute path of the file, which may no longer exist.
        pages: Numbers and start offsets of the pages, for sources that have pages.
    """

    id: int
    text: str
    title: str
    source: str
    path: str
    name: str
    pages: tuple[tuple[int, int], ...]


def check_corpus_name(name: str) -> None:
    """Raise CorpusError if a name cannot be that of a corpus."""
    if not _NAME.fullmatch(name):
        raise CorpusError(
            f"The corpus name {name!r} is invalid.",
            fix="Use up to 60 lower-case letters, digits, dots, dashes and underscores.",
        )


def fingerprint(encoder: Encoder, tokens: int) -> str:
    """Return the fingerprint of an index, from the encoder's weights and the chunking: 64 hexadecimal digits."""
    return fingerprint_of(encoder.card.sha256, tokens)


def fingerprint_of(weights_sha256: str, tokens: int) -> str:
    """Return the fingerprint from the hash of the encoder's weights, without loading the encoder."""
    return hashlib.sha256(f"{weights_sha256} {tokens} {CHUNKING_VERSION}".encode()).hexdigest()


def corpus_summaries(engine: Engine, fingerprint: str) -> list[CorpusSummary]:
    """Return all corpora, sorted by name, with their counts under a fingerprint."""
    with reading(engine) as connection:
        rows = connection.execute(select(db.corpora.c.id, db.corpora.c.name).order_by(db.corpora.c.name)).all()
        found = []
        for corpus_id, name in rows:
            index_id = connection.scalar(
                select(db.indexes.c.id).where(
                    db.indexes.c.corpus_id == corpus_id, db.indexes.c.fingerprint == fingerprint
                )
            )
            counts = [
                connection.scalar(select(func.count()).select_from(source).where(condition)) or 0
                for source, condition in (
                    (db.sources, db.sources.c.index_id == index_id),
                    (db.documents.join(db.sources), db.sources.c.index_id == index_id),
                    (db.passages.join(db.texts), db.texts.c.index_id == index_id),
                )
            ]
            files, documents, passages = counts
            found.append(CorpusSummary(name, files, documents, passages, index_id is not None))
    return found


def index_id_of(engine: Engine, name: str, fingerprint: str) -> int:
    """Return the row in ``indexes`` of a corpus under a fingerprint.

    Raises:
        CorpusError: There is no such corpus, or it is indexed under another fingerprint.
    """
    with reading(engine) as connection:
        number = connection.scalar(
            select(db.indexes.c.id)
            .join(db.corpora)
            .where(db.corpora.c.name == name, db.indexes.c.fingerprint == fingerprint)
        )
    if number is None:
        raise _missing(engine, name)
    return int(number)


def _missing(engine: Engine, name: str) -> CorpusError:
    with reading(engine) as connection:
        names = list(connection.scalars(select(db.corpora.c.name).order_by(db.corpora.c.name)))
    if name in names:
        return CorpusError(
            f"The corpus {name} was indexed with another encoder or passage size.",
            fix=f"Run `ragsmith ingest PATH --corpus {name}` again, or restore encoder and chunking.",
        )
    others = f"The corpora are: {', '.join(names)}." if names else "There are no corpora yet."
    return CorpusError(
        f"There is no corpus {name}. {others}",
        fix=f"Create it with `ragsmith ingest PATH --corpus {name}`.",
    )


def stored_states(
    workspace: Workspace, engine: Engine, client: ClientAPI, fingerprint: str | None
) -> dict[str, IndexState]:
    """Compare the stores of every corpus, without loading the encoder and without creating anything.

    Args:
        workspace: The workspace with the lexical indexes.
        engine: The database.
        client: The Chroma client.
        fingerprint: Fingerprint of the indexes to compare; None for all.

    Raises:
        StoreError: A store refuses.
    """
    wanted = select(db.indexes.c.id, db.indexes.c.collection, db.corpora.c.name).join(db.corpora)
    if fingerprint is not None:
        wanted = wanted.where(db.indexes.c.fingerprint == fingerprint)
    collections = {collection.name for collection in client.list_collections()}
    found: dict[str, IndexState] = {}
    with reading(engine) as connection:
        for row in connection.execute(wanted.order_by(db.corpora.c.name, db.indexes.c.id)).all():
            dense = DenseIndex(client, row.collection) if row.collection in collections else None
            folder = workspace.lexical / row.collection
            try:
                lexical = LexicalIndex(folder) if folder.is_dir() else None
            except StoreError:
                found[row.name] = replace(look_at(connection, row.id, dense, None), words=None)
            else:
                found[row.name] = look_at(connection, row.id, dense, lexical)
    return found


class Corpora:
    """Opens indexes, once per process; safe to use from several threads.

    Args:
        workspace: The workspace with the lexical indexes and the embedded Chroma.
        engine: The database.
        encoder: The encoder of the current fingerprint.
        tokens: The passage size of the current fingerprint.
        chroma: The vector store, connected when an index is first opened, so that corpora can be listed while a
            Chroma server is down.
    """

    def __init__(
        self, workspace: Workspace, engine: Engine, encoder: Encoder, tokens: int, chroma: ChromaStore
    ) -> None:
        self._workspace = workspace
        self._engine = engine
        self._encoder = encoder
        self._tokens = tokens
        self._chroma = chroma
        self._open: dict[int, CorpusIndex] = {}
        self._lock = threading.RLock()
        self.fingerprint = fingerprint(encoder, tokens)

    def summaries(self) -> list[CorpusSummary]:
        """Return all corpora, sorted by name."""
        return corpus_summaries(self._engine, self.fingerprint)

    def find(self, name: str) -> CorpusIndex:
        """Return the index of a corpus for searching.

        Raises:
            CorpusError: There is no such corpus, or it is indexed under another fingerprint.
        """
        with reading(self._engine) as connection:
            row = connection.execute(
                select(db.indexes.c.id, db.indexes.c.collection, db.indexes.c.generation)
                .join(db.corpora)
                .where(db.corpora.c.name == name, db.indexes.c.fingerprint == self.fingerprint)
            ).first()
        if row is None:
            raise _missing(self._engine, name)
        with self._lock:
            index = self._open.get(row.id)
            if index is None:
                index = self._opened(name, row.id, row.collection, row.generation)
                index.look()
                self._open[row.id] = index
            elif index.generation != row.generation:
                index.reopen(self._chroma.reopen(), row.generation)
                index.look()
            return index

    def notices(self) -> tuple[str, ...]:
        """Return what is damaged in the open indexes, and how to repair it."""
        with self._lock:
            found = [index.notice for index in self._open.values()]
        return tuple(notice for notice in (self._chroma.notice, *found) if notice)

    def ensure(self, name: str) -> CorpusIndex:
        """Return the index of a corpus for ingestion, creating it if needed.

        Stores that can no longer be opened are replaced by empty ones, which the ingestion fills again from the
        database. The caller must own the workspace's write lock.

        Raises:
            CorpusError: The name is invalid.
            StoreError: A store refuses for a reason other than damage.
        """
        check_corpus_name(name)
        with writing(self._engine) as connection:
            corpus_id = connection.scalar(select(db.corpora.c.id).where(db.corpora.c.name == name))
            if corpus_id is None:
                corpus_id = insert_row(connection, db.corpora, name=name, created=time.time())
            index = connection.execute(
                select(db.indexes.c.id).where(
                    db.indexes.c.corpus_id == corpus_id, db.indexes.c.fingerprint == self.fingerprint
                )
            ).first()
            if index is None:
                connection.execute(
                    insert(db.indexes).values(
                        corpus_id=corpus_id,
                        fingerprint=self.fingerprint,
                        collection=f"{name}-{self.fingerprint[:12]}-{secrets.token_hex(3)}",
                        encoder=self._encoder.card.name,
                        passage_tokens=self._tokens,
                    )
                )
        with self._lock:
            # A killed process may have written without publishing its changes.
            self._reopen_chroma()
            self._replace_lexical(name)
            found = self.find(name)
            found.reopen(self._chroma.client, found.generation)
            self._replace_unusable(found)
        return found

    def _reopen_chroma(self) -> None:
        try:
            self._chroma.reopen()
        except VectorStoreError as error:
            if not (self._chroma.embedded and is_damage(error)):
                raise
            self._set_chroma_aside()

    def _set_chroma_aside(self) -> None:
        client = self._chroma.set_aside()
        for index in self._open.values():
            index.dense.use(client)
            index.look()

    def _replace_lexical(self, name: str) -> None:
        """Replace a lexical index that cannot be opened; the database has all of its content."""
        with reading(self._engine) as connection:
            collection = connection.scalar(
                select(db.indexes.c.collection)
                .join(db.corpora)
                .where(db.corpora.c.name == name, db.indexes.c.fingerprint == self.fingerprint)
            )
        folder = self._workspace.lexical / str(collection)
        try:
            LexicalIndex(folder)
        except StorageFull:
            raise
        except StoreError as error:
            _log.warning("The lexical index %s is being rebuilt: %s", folder, error.message)
            drop_lexical(folder)

    def _replace_unusable(self, index: CorpusIndex) -> None:
        """Replace a side that can be opened but not read."""
        state = index.look()
        if state.words is None:
            drop_lexical(index.lexical.folder)
            index.lexical = LexicalIndex(index.lexical.folder)
        if state.vectors is None:
            try:
                index.dense.empty()
            except VectorStoreError as error:
                if not (self._chroma.embedded and is_damage(error)):
                    raise
                self._set_chroma_aside()
        if None in (state.words, state.vectors):
            # Another process may still use the replaced files.
            index.publish(force=True)
            index.look()

    def _opened(self, name: str, index_id: int, collection: str, generation: int) -> CorpusIndex:
        dense = DenseIndex(self._chroma.client, collection)
        lexical = LexicalIndex(self._workspace.lexical / collection)
        index = CorpusIndex(self._engine, index_id, dense, lexical, self._encoder, self._tokens, generation)
        index.name = name
        return index

    def remove(self, name: str) -> None:
        """Remove a corpus with all its indexes; the ingested files stay.

        Raises:
            CorpusError: There is no such corpus.
        """
        with reading(self._engine) as connection:
            corpus_id = connection.scalar(select(db.corpora.c.id).where(db.corpora.c.name == name))
            rows = connection.execute(
                select(db.indexes.c.id, db.indexes.c.collection).where(db.indexes.c.corpus_id == corpus_id)
            ).all()
        if corpus_id is None:
            raise CorpusError(f"There is no corpus {name}.", fix="See `ragsmith corpora list`.")
        # Connect before anything is removed, so that the corpus stays intact if the server is down.
        client = self._chroma.client
        for index_id, collection in rows:
            with self._lock:
                self._open.pop(index_id, None)
            # Interrupted after this, the corpus is empty instead of claiming to contain the files.
            with writing(self._engine) as connection:
                held = select(db.sources.c.id).where(db.sources.c.index_id == index_id)
                connection.execute(delete(db.documents).where(db.documents.c.source_id.in_(held)))
                connection.execute(delete(db.sources).where(db.sources.c.index_id == index_id))
                connection.execute(delete(db.unread_files).where(db.unread_files.c.index_id == index_id))
                connection.execute(update(db.texts).where(db.texts.c.index_id == index_id).values(state="leaving"))
            DenseIndex(client, collection).drop()
            drop_lexical(self._workspace.lexical / collection)
            with writing(self._engine) as connection:
                texts = select(db.texts.c.id).where(db.texts.c.index_id == index_id)
                connection.execute(delete(db.passages).where(db.passages.c.text_id.in_(texts)))
                connection.execute(delete(db.texts).where(db.texts.c.index_id == index_id))
                connection.execute(delete(db.indexes).where(db.indexes.c.id == index_id))
        with writing(self._engine) as connection:
            connection.execute(delete(db.corpora).where(db.corpora.c.id == corpus_id))

    def document(self, document_id: int) -> StoredDocument:
        """Return a stored text.

        Raises:
            CorpusError: The document does not exist, or no longer exists.
        """
        with reading(self._engine) as connection:
            row = connection.execute(
                select(
                    db.texts.c.text,
                    db.documents.c.title,
                    db.documents.c.record,
                    db.sources.c.path,
                    db.sources.c.name,
                )
                .join(db.documents, db.documents.c.text_id == db.texts.c.id)
                .join(db.sources, db.sources.c.id == db.documents.c.source_id)
                .where(db.texts.c.id == document_id)
                .order_by(db.sources.c.path, db.documents.c.id)
            ).first()
            pages = connection.execute(
                select(db.passages.c.page, func.min(db.passages.c.start))
                .where(db.passages.c.text_id == document_id, db.passages.c.page.is_not(None))
                .group_by(db.passages.c.page)
                .order_by(db.passages.c.page)
            ).all()
        if row is None:
            raise CorpusError(
                f"Document {document_id} is no longer in this workspace.",
                fix="Ask again to get current sources.",
            )
        source = f"{row.path}#{row.record}" if row.record else row.path
        title = row.title or row.name
        return StoredDocument(
            document_id,
            row.text,
            title,
            source,
            row.path,
            row.name,
            tuple((int(p), int(s)) for p, s in pages),
        )
