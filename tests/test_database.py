"""The database opens in many processes at once, and its errors are ours."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from old_workspace import query
from sqlalchemy import delete, select

from rag.database import REVISION, open_database, reading, writing
from rag.errors import DatabaseError
from rag.tables import texts

if TYPE_CHECKING:
    from rag.workspace import Workspace


def test_a_new_database_carries_its_revision_and_is_opened_again(workspace: Workspace) -> None:
    for _ in range(2):
        open_database(workspace).dispose()
        assert query(workspace, "select version_num from alembic_version") == [(REVISION,)]


def test_a_database_that_lost_its_content_is_not_replaced(workspace: Workspace) -> None:
    workspace.database.touch()
    open_database(workspace).dispose()
    workspace.database.write_bytes(b"")
    (workspace.lexical / "notes-1").mkdir(parents=True)
    with pytest.raises(DatabaseError, match=r"ragsmith\.db is empty \(0 bytes\)"):
        open_database(workspace)
    assert workspace.database.stat().st_size == 0


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ("update alembic_version set version_num = 'abcd'", "abcd"),
        ("update alembic_version set version_num = '0000'", "0000"),
        ("delete from alembic_version", "none"),
    ],
)
def test_a_revision_that_nobody_wrote_is_named_and_left_alone(
    workspace: Workspace, change: str, shown: str
) -> None:
    open_database(workspace).dispose()
    query(workspace, change)
    with pytest.raises(DatabaseError, match=f"names the revision {shown}, which ragsmith does not know"):
        open_database(workspace)


def test_those_that_open_a_new_workspace_at_once_agree(workspace: Workspace) -> None:
    failed: list[Exception] = []

    def open_it() -> None:
        try:
            open_database(workspace).dispose()
        except Exception as error:  # noqa: BLE001 - the test reports it
            failed.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert query(workspace, "select version_num from alembic_version") == [(REVISION,)]


def test_a_number_that_no_column_takes_is_an_error_of_ours(workspace: Workspace) -> None:
    engine = open_database(workspace)
    with pytest.raises(DatabaseError, match="too large for the database") as raised, reading(engine) as connection:
        connection.execute(select(texts.c.id).where(texts.c.id == 10**23)).all()
    assert "ids" in raised.value.fix
    with pytest.raises(DatabaseError, match="too large"), writing(engine) as connection:
        connection.execute(delete(texts).where(texts.c.id == 2**63))
    # Any other overflow is a fault of ours, and stays what it is.
    with pytest.raises(OverflowError), reading(engine):
        float("1").__class__(10) ** 400
    engine.dispose()
