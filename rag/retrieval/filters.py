"""Search filters, applied alike to the dense and the lexical side."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from datetime import date

from sqlalchemy import Connection, literal, select

from rag import tables as db
from rag.indexing.search_words import same_name
from rag.types import Metadata


@dataclass(frozen=True, slots=True)
class Filters:
    """Conditions on a passage; None means no condition.

    Attributes:
        source: Path or name of the source, or the file name alone.
        title: Title, compared case-insensitively.
        glob: Pattern for the path or the name, such as ``*/guides/*.md``.
        page: Page, from 1.
        after, before: Range of the document's date, both ends included.
        where: Names and values of metadata, compared case-insensitively; of a list, one item is enough.
    """

    source: str | None = None
    title: str | None = None
    glob: str | None = None
    page: int | None = None
    after: date | None = None
    before: date | None = None
    where: tuple[tuple[str, str], ...] = ()

    @property
    def by_document(self) -> bool:
        """Whether there is a condition on the document, beyond the page."""
        return any((self.source, self.title, self.glob, self.after, self.before, self.where))

    def matches(self, path: str, name: str, record: str, title: str, day: str | None, metadata: Metadata) -> bool:
        """Whether a document of a file matches all conditions but the page."""
        path, name = same_name(path), same_name(name)
        full, short = (f"{path}#{record}", f"{name}#{record}") if record else (path, name)
        if self.source and same_name(self.source) not in (full, short, path, name, path.rpartition("/")[2]):
            return False
        if self.title and self.title.casefold() != title.casefold():
            return False
        if self.glob and not any(
            fnmatch.fnmatchcase(text, same_name(self.glob)) for text in (path, name, full, short)
        ):
            return False
        if not all(_has(metadata, field, value) for field, value in self.where):
            return False
        if (self.after or self.before) and day is None:
            return False
        if self.after and (day or "") < self.after.isoformat():
            return False
        return not (self.before and (day or "") > self.before.isoformat())


def _has(metadata: Metadata, field: str, value: str) -> bool:
    wanted = same_name(value).casefold()
    for name, found in metadata.items():
        if name.casefold() == field.casefold():
            text = same_name(str(found)).casefold()
            return wanted == text or wanted in text.split(", ")
    return False


def matching_texts(connection: Connection, index_id: int, filters: Filters) -> list[int]:
    """Return the ids of the texts with a matching document, ascending."""
    rows = connection.execute(
        select(
            db.documents.c.text_id,
            db.sources.c.path,
            db.sources.c.name,
            db.documents.c.record,
            db.documents.c.title,
            db.documents.c.date,
            # A large corpus has many of them to decode.
            db.documents.c.metadata if filters.where else literal(None),
        )
        .join(db.sources)
        .where(db.sources.c.index_id == index_id)
    )
    return sorted(
        {
            text_id
            for text_id, path, name, record, title, day, metadata in rows
            if filters.matches(path, name, record, title, day, metadata or {})
        }
    )
