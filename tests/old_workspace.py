"""A workspace that was written by a version from before the migrations.

Its commands ``ingest``, ``ask``, ``datasets``, ``eval run`` and ``prompts``, and its chat page, have written a
corpus ``mill`` of five files, eleven traces, two of them rated, a conversation, a dataset in two versions with a
candidate, a run of two variants, and a version of a prompt. The folder ``models`` was left out.
"""

from __future__ import annotations

import sqlite3
import tarfile
from pathlib import Path

from rag.workspace import Workspace, open_workspace

ARCHIVE = Path(__file__).with_name("workspace_before_migrations.tar.xz")


def unpack(root: Path) -> Workspace:
    """Write the workspace into a folder."""
    with tarfile.open(ARCHIVE) as archive:
        # Python 3.11 knows filters from its fourth release on.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(root)
    return open_workspace(root)


def query(workspace: Workspace, sql: str) -> list[tuple[object, ...]]:
    """Run one statement on the SQLite file, beside ragsmith."""
    connection = sqlite3.connect(workspace.database)
    try:
        with connection:
            return connection.execute(sql).fetchall()
    finally:
        connection.close()
