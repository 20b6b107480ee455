"""What has changed in the index of a corpus since a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, func, select

from rag import tables as db
from rag.database import reading
from rag.types import Hit


@dataclass(frozen=True, slots=True)
class CorpusChanges:
    """Changes of a corpus.

    Attributes:
        added: Number of files that were added or replaced.
        missing: Number of earlier passages that are no longer indexed.
    """

    added: int
    missing: int


def changes_since(engine: Engine, index_id: int, since: float, found: Sequence[Hit]) -> CorpusChanges:
    """Compare an index with what was known of it at a time.

    Args:
        engine: The database.
        index_id: The row in ``indexes``.
        since: Seconds since the epoch.
        found: Passages that a search found then.

    Raises:
        DatabaseError: The database refuses.
    """
    later = select(func.count()).where(db.sources.c.index_id == index_id, db.sources.c.ingested > since)
    known = (
        select(db.passages.c.id)
        .join(db.texts)
        .where(db.texts.c.index_id == index_id, db.passages.c.id.in_([hit.passage.id for hit in found]))
    )
    with reading(engine) as connection:
        added = connection.scalar(later) or 0
        known_ids = set(connection.scalars(known))
    return CorpusChanges(added, sum(hit.passage.id not in known_ids for hit in found))
