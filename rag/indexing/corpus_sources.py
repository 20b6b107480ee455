"""The files of a corpus: what was ingested, and how it is forgotten."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from sqlalchemy import Connection, Engine, delete, func, select

from rag import tables as db
from rag.database import reading, writing
from rag.documents.fetching import is_address
from rag.errors import CorpusError
from rag.indexing.corpus_index import PART, CorpusIndex
from rag.indexing.search_words import same_name
from rag.indexing.unread_files import UnreadFile, drop_unread, unread_files

# Files that a message names.
MOST_SHOWN = 3


@dataclass(frozen=True, slots=True)
class CorpusSource:
    """A file of a corpus, or one that could not be read and has never been part of it.

    Attributes:
        id: Its row in ``sources``; None if it has never been read.
        path: Absolute path of the file.
        name: Display name: the path below the ingested folder.
        documents: Number of its records; 1 for a whole file.
        ingested: When it was last read, or tried, in seconds since 1970.
        exists: Whether there is such a file still.
        problems: Sentences about the parts of it that were not read, or were repaired.
        unread: Why its newest content could not be read; empty if it could.
    """

    id: int | None
    path: str
    name: str
    documents: int
    passages: int
    ingested: float
    exists: bool
    problems: tuple[str, ...] = ()
    unread: str = ""

    @property
    def key(self) -> str:
        """Text that stands for it in a list."""
        return str(self.id) if self.id is not None else sha256(self.path.encode()).hexdigest()

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was not read of it, and whether an older text is used instead."""
        if not self.unread:
            return self.problems
        reason = self.unread.removesuffix(".")
        if self.id is None:
            return (f"could not be read: {reason}",)
        day = datetime.fromtimestamp(self.ingested).astimezone().date()
        newest = f"its newest content could not be read ({reason}); the text of {day} is still used"
        return (newest, *self.problems)


@dataclass(frozen=True, slots=True)
class SourcePage:
    """The first files of a corpus, those before all others that could not be read.

    Attributes:
        total: Number of its files.
        unread: Number of the files that could not be read, and are no part of it.
    """

    sources: tuple[CorpusSource, ...]
    total: int
    unread: int = 0


def corpus_sources(engine: Engine, index_id: int, limit: int | None = None) -> list[CorpusSource]:
    """Return the files of an index, sorted by name, after those that could not be read and are no part of it.

    Args:
        limit: How many at most; None for all.
    """
    return list(source_page(engine, index_id, limit).sources)


def source_page(engine: Engine, index_id: int, limit: int | None) -> SourcePage:
    """Return the first files of an index, and how many there are; see ``corpus_sources``."""
    with reading(engine) as connection:
        unread = {file.path: file for file in unread_files(connection, index_id)}
        total = connection.scalar(select(func.count()).where(db.sources.c.index_id == index_id)) or 0
        stored = _stored_sources(connection, index_id, unread, limit)
    never = [
        CorpusSource(None, file.path, file.name, 0, 0, file.at, True, unread=file.reason)
        for file in unread.values()
        if not file.stored
    ]
    return SourcePage((*never, *stored)[:limit], total, len(never))


def _stored_sources(
    connection: Connection, index_id: int, unread: Mapping[str, UnreadFile], limit: int | None
) -> list[CorpusSource]:
    documents = select(func.count()).where(db.documents.c.source_id == db.sources.c.id).scalar_subquery()
    passages = (
        select(func.count())
        .select_from(db.documents.join(db.passages, db.passages.c.text_id == db.documents.c.text_id))
        .where(db.documents.c.source_id == db.sources.c.id)
        .scalar_subquery()
    )
    query = (
        select(db.sources, documents.label("documents"), passages.label("passages"))
        .where(db.sources.c.index_id == index_id)
        .order_by(db.sources.c.name, db.sources.c.path)
        .limit(limit)
    )
    return [
        CorpusSource(
            row.id,
            row.path,
            row.name,
            row.documents,
            row.passages,
            row.ingested,
            os.path.exists(row.path),
            tuple(row.problems),
            unread[row.path].reason if row.path in unread else "",
        )
        for row in connection.execute(query)
    ]


def named_sources(sources: Sequence[CorpusSource], wanted: str, corpus: str) -> list[CorpusSource]:
    """Return the files that a path, a folder, a display name or a file name stands for.

    A path counts before a display name, and that before the bare name of a file.

    Raises:
        CorpusError: There is none, or the name stands for files of several folders.
    """
    # The name of a page is its address, with or without a slash at the end.
    text = same_name(wanted).rstrip(os.sep) or wanted
    path = same_name(os.path.abspath(Path(wanted).expanduser()))
    by_path = [one for one in sources if wanted and _is_in(same_name(one.path), path)]
    if by_path:
        return by_path
    by_name = [one for one in sources if _is_in(same_name(one.name).rstrip(os.sep), text)]
    found = by_name or [one for one in sources if same_name(os.path.basename(one.path)) == text]
    if not found:
        raise CorpusError(
            f"The corpus {corpus} contains no file or folder {wanted}.",
            fix=f"See `ragsmith corpora show {corpus}`.",
        )
    # A display name begins at the ingested folder: others may have the same one.
    places = {_place(one) if by_name else one.path for one in found}
    if len(places) > 1:
        some = ", ".join(sorted(one.path for one in found)[:MOST_SHOWN])
        raise CorpusError(
            f"{wanted} stands for {len(found)} files in several places, such as {some}.", fix="Give a full path."
        )
    return found


def _place(source: CorpusSource) -> str:
    """Return the folder that the display name of a file is relative to; empty for a page of the web."""
    return "" if is_address(source.name) else source.path.removesuffix(source.name)


def _is_in(name: str, wanted: str) -> bool:
    """Whether a name is the wanted one, or below a folder of that name."""
    return name == wanted or name.startswith(wanted + os.sep)


def delete_sources(connection: Connection, ids: Sequence[int]) -> None:
    """Delete the rows of files and of their documents; their texts stay until orphans are removed."""
    for at in range(0, len(ids), PART):
        some = ids[at : at + PART]
        connection.execute(delete(db.documents).where(db.documents.c.source_id.in_(some)))
        connection.execute(delete(db.sources).where(db.sources.c.id.in_(some)))


def forget_sources(index: CorpusIndex, sources: Sequence[CorpusSource]) -> None:
    """Remove files from an index; the files themselves stay.

    The caller must own the workspace's write lock. An interruption leaves texts without a file, which the next
    ingestion removes.

    Raises:
        StoreError: A store refuses.
    """
    try:
        with writing(index.engine) as connection:
            delete_sources(connection, [one.id for one in sources if one.id is not None])
            drop_unread(connection, index.id, [one.path for one in sources])
        index.remove_orphans()
    finally:
        index.publish(force=True)
