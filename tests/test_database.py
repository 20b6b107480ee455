"""The database says what it is, and what cannot be read with this version."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import delete, select, text

from rag.database import SCHEMA, metadata, open_database, reading, texts, writing
from rag.errors import DatabaseError

if TYPE_CHECKING:
    from rag.workspace import Workspace


def version(workspace: Workspace) -> object:
    engine = open_database(workspace)
    try:
        with engine.connect() as connection:
            return connection.scalar(text("select version from schema"))
    finally:
        engine.dispose()


def test_a_fresh_database_carries_the_form_of_its_tables(workspace: Workspace) -> None:
    assert version(workspace) == SCHEMA
    assert version(workspace) == SCHEMA


def test_a_database_from_before_there_was_a_form_is_taken_as_the_first(workspace: Workspace) -> None:
    engine = open_database(workspace)
    with engine.begin() as connection:
        connection.execute(text("drop table schema"))
    engine.dispose()
    assert version(workspace) == 1


def test_tables_of_another_form_are_refused_and_left_alone(workspace: Workspace) -> None:
    engine = open_database(workspace)
    with engine.begin() as connection:
        connection.execute(text("update schema set version = 99"))
    engine.dispose()
    with pytest.raises(DatabaseError, match="have the form 99, and this one reads") as raised:
        open_database(workspace)
    assert "another workspace" in raised.value.fix
    assert workspace.database.is_file()


def test_processes_that_open_a_fresh_workspace_at_once_agree(workspace: Workspace) -> None:
    # The tables are there, as the slower of two processes finds them; the form is not.
    engine = open_database(workspace)
    with engine.begin() as connection:
        connection.execute(text("delete from schema"))
    failed: list[Exception] = []

    def open_it() -> None:
        try:
            open_database(workspace).dispose()
        except Exception as error:  # noqa: BLE001 - whatever it is, the test tells it
            failed.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.dispose()
    assert not failed
    assert version(workspace) == SCHEMA
    assert "schema" in metadata.tables


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
