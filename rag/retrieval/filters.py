"""Search filters, applied alike to the dense and the lexical side."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, literal, select

from rag import tables as db
from rag.documents.fetching import is_address
from rag.errors import FilterError
from rag.indexing.search_words import same_name
from rag.types import Filters, Metadata


@dataclass(frozen=True, slots=True)
class Described:
    """What filters look at: a document of a file.

    Attributes:
        record: Id of the record; empty for a whole file.
        day: Date of the document, as ``YYYY-MM-DD``.
    """

    path: str
    name: str
    record: str
    title: str
    day: str | None
    metadata: Metadata


def filters_of(conditions: Iterable[str]) -> Filters | None:
    """Return the filters that a person has typed; None for none.

    Args:
        conditions: ``FIELD=VALUE`` for metadata, or the name, path or address of a source.

    Raises:
        FilterError: A condition has no field or no value, or there are two sources.
    """
    sources: list[str] = []
    where: list[tuple[str, str]] = []
    for condition in conditions:
        field, equals, value = (part.strip() for part in condition.partition("="))
        if not equals or is_address(condition.strip()):
            sources.append(condition.strip())
        elif not field or not value:
            raise FilterError(f"The filter {condition!r} must be FIELD=VALUE or the name of a source.")
        elif field.casefold() == "source":
            sources.append(value)
        else:
            where.append((field, value))
    if len(sources) > 1:
        raise FilterError(
            f"No passage is of two sources, {sources[0]} and {sources[1]}.", fix="Remove one of the filters."
        )
    return Filters(source=sources[0] if sources else None, where=tuple(where)) if sources or where else None


def matches(filters: Filters, document: Described) -> bool:
    """Whether a document matches all conditions but the page."""
    if filters.source and not _is_source(document, filters.source):
        return False
    if filters.title and filters.title.casefold() != document.title.casefold():
        return False
    if filters.glob and not any(
        fnmatch.fnmatchcase(text, same_name(filters.glob)) for text in _source_names(document)
    ):
        return False
    if not all(_has(document, field, value) for field, value in filters.where):
        return False
    if (filters.after or filters.before) and document.day is None:
        return False
    if filters.after and (document.day or "") < filters.after.isoformat():
        return False
    return not (filters.before and (document.day or "") > filters.before.isoformat())


def _source_names(document: Described) -> tuple[str, ...]:
    path, name, record = same_name(document.path), same_name(document.name), document.record
    return (path, name, f"{path}#{record}", f"{name}#{record}") if record else (path, name)


def _is_source(document: Described, wanted: str) -> bool:
    return same_name(wanted) in (*_source_names(document), same_name(document.path).rpartition("/")[2])


def _has(document: Described, field: str, value: str) -> bool:
    """Whether a field of the metadata, or what a document is shown with, has a value."""
    wanted, named = same_name(value).casefold(), field.casefold()
    if named == "source" and _is_source(document, value):
        return True
    shown = {"title": document.title, "name": document.name, "date": document.day or ""}
    for name, found in (*shown.items(), *document.metadata.items()):
        text = same_name(str(found)).casefold()
        if name.casefold() == named and (wanted == text or wanted in text.split(", ")):
            return True
    return False


def field_names(connection: Connection, index_id: int) -> list[str]:
    """Return the names of the fields that the documents of an index have in their metadata, sorted."""
    found = connection.scalars(
        select(db.documents.c.metadata).join(db.sources).where(db.sources.c.index_id == index_id)
    )
    return sorted({name for metadata in found for name in metadata})


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
            if matches(filters, Described(path, name, record, title, day, metadata or {}))
        }
    )
