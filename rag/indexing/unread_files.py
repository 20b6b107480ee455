"""The files of a corpus that could not be read when they were last ingested, and why."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, bindparam, delete, insert, select

from rag import tables as db

# Stands for the bytes of a name that are not UTF-8.
_UNDECODABLE = "\ufffd"


@dataclass(frozen=True, slots=True)
class UnreadFile:
    """A file or folder that could not be read.

    Attributes:
        path: Absolute path.
        name: Display name: the path below the ingested folder, or the address of a page.
        at: When it was tried, in seconds since 1970.
        stored: Whether the corpus has a text of it, from an earlier ingestion.
    """

    path: str
    name: str
    reason: str
    at: float
    stored: bool = False


def unread_file(path: str, name: str, reason: str) -> UnreadFile:
    """Return a file that was tried now, with a path and a name that every database stores."""
    return UnreadFile(_storable(path), _storable(name), reason, time.time())


def unread_files(connection: Connection, index_id: int) -> list[UnreadFile]:
    """Return the files that could not be read and still exist, sorted by name."""
    unread, sources = db.unread_files.c, db.sources.c
    same = (sources.index_id == unread.index_id) & (sources.path == unread.path)
    rows = connection.execute(
        select(unread.path, unread.name, unread.reason, unread.at, sources.id.is_not(None))
        .select_from(db.unread_files.outerjoin(db.sources, same))
        .where(unread.index_id == index_id)
        .order_by(unread.name, unread.path)
    )
    found = [UnreadFile(*row) for row in rows]
    return [file for file in found if os.path.lexists(file.path) or _UNDECODABLE in file.path]


def replace_unread(
    connection: Connection, index_id: int, files: Sequence[UnreadFile], roots: Sequence[Path]
) -> None:
    """Store files that could not be read, in place of themselves and of all that are stored below some roots."""
    stored = connection.scalars(select(db.unread_files.c.path).where(db.unread_files.c.index_id == index_id)).all()
    again = {file.path for file in files}
    drop_unread(
        connection,
        index_id,
        [path for path in stored if path in again or any(Path(path).is_relative_to(root) for root in roots)],
    )
    rows = {
        file.path: {
            "index_id": index_id,
            "path": file.path,
            "name": file.name,
            "reason": file.reason,
            "at": file.at,
        }
        for file in files
    }
    if rows:
        connection.execute(insert(db.unread_files), list(rows.values()))


def drop_unread(connection: Connection, index_id: int, paths: Sequence[str]) -> None:
    """Take files off the list, as they have been read or forgotten."""
    if paths:
        unread = db.unread_files.c
        one = delete(db.unread_files).where(unread.index_id == index_id, unread.path == bindparam("gone"))
        connection.execute(one, [{"gone": path} for path in paths])


def _storable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
