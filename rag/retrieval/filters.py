"""Narrowing a search to some sources, in the same way on both sides."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from datetime import date

from sqlalchemy import Connection, select

from rag import tables as db


@dataclass(frozen=True, slots=True)
class Filters:
    """What a passage must fulfil; None demands nothing.

    Attributes:
        source: The source's path or name, or the file name alone.
        title: The title, upper and lower case alike.
        glob: A pattern for the path or the name, as ``*/guides/*.md``.
        page: The page, from 1.
        after, before: The date of the document, both ends included.
    """

    source: str | None = None
    title: str | None = None
    glob: str | None = None
    page: int | None = None
    after: date | None = None
    before: date | None = None

    @property
    def by_document(self) -> bool:
        """Whether anything but the page is demanded."""
        return any((self.source, self.title, self.glob, self.after, self.before))

    def matches(self, path: str, name: str, record: str, title: str, day: str | None) -> bool:
        """Whether a document fulfils everything but the page."""
        full, short = (f"{path}#{record}", f"{name}#{record}") if record else (path, name)
        if self.source and self.source not in (full, short, path, name, path.rpartition("/")[2]):
            return False
        if self.title and self.title.casefold() != title.casefold():
            return False
        if self.glob and not any(fnmatch.fnmatchcase(each, self.glob) for each in (path, name, full, short)):
            return False
        if (self.after or self.before) and day is None:
            return False
        if self.after and (day or "") < self.after.isoformat():
            return False
        return not (self.before and (day or "") > self.before.isoformat())


def matching_texts(connection: Connection, index_id: int, filters: Filters) -> list[int]:
    """The numbers of the texts of documents that match, ascending."""
    rows = connection.execute(
        select(
            db.documents.c.text_id,
            db.sources.c.path,
            db.sources.c.name,
            db.documents.c.record,
            db.documents.c.title,
            db.documents.c.date,
        )
        .join(db.sources)
        .where(db.sources.c.index_id == index_id)
    )
    return sorted(
        {
            text_id
            for text_id, path, name, record, title, day in rows
            if filters.matches(path, name, record, title, day)
        }
    )
