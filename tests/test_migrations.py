"""A database of an older version is migrated, all or nothing; one of a newer version is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from old_workspace import query, unpack
from sqlalchemy import Engine, create_engine, inspect, text
from terminal import ROOT, assert_one_line, call

from rag.database import REVISION, open_database
from rag.errors import DatabaseTooNew
from rag.settings import Settings
from rag.tables import metadata
from rag.workspace import Workspace
from ui.doctor.store_checks import check_database

OPEN = """
import sys
from pathlib import Path
from rag.database import open_database
from rag.workspace import Workspace
open_database(Workspace(Path(sys.argv[1]))).dispose()
"""
CRASH = """
import os
from alembic import op
done = []
def create_index(*arguments, **options):
    if done:
        os._exit(9)
    done.append(arguments)
op.create_index = create_index
"""


@pytest.fixture
def old(tmp_path: Path) -> Workspace:
    """The workspace of an older version."""
    return unpack(tmp_path / "old")


@pytest.fixture(scope="module")
def scripts() -> ScriptDirectory:
    """The revisions."""
    config = Config()
    config.set_main_option("script_location", "rag:migrations")
    return ScriptDirectory.from_config(config)


def start(code: str, workspace: Workspace) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, str(workspace.root)], cwd=ROOT)


def revision(workspace: Workspace) -> object:
    ((number,),) = query(workspace, "select version_num from alembic_version")
    return number


def schema(engine: Engine) -> dict[str, Any]:
    """All that a database says of its tables, without the order of columns."""
    look = inspect(engine)
    return {
        table: {
            "columns": {
                column["name"]: (str(column["type"]), column["nullable"]) for column in look.get_columns(table)
            },
            "key": look.get_pk_constraint(table)["constrained_columns"],
            "references": sorted(
                (key["constrained_columns"], key["referred_table"], key["referred_columns"])
                for key in look.get_foreign_keys(table)
            ),
            "unique": sorted(key["column_names"] for key in look.get_unique_constraints(table)),
            "indexes": sorted(
                (index["name"], index["column_names"], index["unique"]) for index in look.get_indexes(table)
            ),
        }
        for table in look.get_table_names()
        if table in metadata.tables
    } | {"search": _search_of(engine)}


def _search_of(engine: Engine) -> dict[str, str]:
    """The index for the search in traces, which SQLAlchemy knows nothing of."""
    query = text(
        "SELECT name, sql FROM sqlite_master"
        " WHERE name LIKE 'trace_text%' OR name IN ('trace_numbers', 'trace_search')"
    )
    with engine.connect() as connection:
        return {row.name: row.sql for row in connection.execute(query)}


def opened_schema(workspace: Workspace) -> dict[str, Any]:
    engine = open_database(workspace)
    try:
        return schema(engine)
    finally:
        engine.dispose()


def test_the_newest_revision_is_the_one_that_the_code_reads(scripts: ScriptDirectory) -> None:
    numbers = [script.revision for script in scripts.walk_revisions()]
    assert numbers == [f"{number:04}" for number in range(int(REVISION), 0, -1)]


def test_a_migrated_database_is_the_same_as_a_new_one(workspace: Workspace, old: Workspace) -> None:
    new = opened_schema(workspace)
    assert new.keys() == metadata.tables.keys() | {"search"}
    assert len(new["search"]) == 9
    assert opened_schema(old) == new
    assert revision(old) == revision(workspace) == REVISION
    assert query(old, "select * from schema") == query(workspace, "select * from schema")


def test_the_tables_that_an_interrupted_start_left_out_are_created(workspace: Workspace, old: Workspace) -> None:
    for table in ("schema", "cells", "messages"):
        query(old, f"drop table {table}")
    assert opened_schema(old) == opened_schema(workspace)


def test_opening_a_database_of_this_revision_imports_no_alembic(workspace: Workspace) -> None:
    code = f"{OPEN}{OPEN}assert not [name for name in sys.modules if name.startswith('alembic')]"
    assert start(code, workspace).wait(60) == 0
    assert revision(workspace) == REVISION


def test_a_crash_in_the_middle_leaves_the_tables_as_they_were(workspace: Workspace, old: Workspace) -> None:
    before = query(old, "select sql from sqlite_master order by name")
    assert start(CRASH + OPEN, old).wait(60) == 9
    assert query(old, "select sql from sqlite_master order by name") == before
    assert opened_schema(old) == opened_schema(workspace)
    assert query(old, "select count(*) from documents") == [(6,)]


@pytest.mark.slow
def test_processes_that_open_an_old_database_at_once_migrate_it_once(workspace: Workspace, old: Workspace) -> None:
    processes = [start(OPEN, old) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert revision(old) == REVISION
    assert opened_schema(old) == opened_schema(workspace)


def test_a_database_of_a_newer_version_is_refused_and_left_alone(workspace: Workspace) -> None:
    open_database(workspace).dispose()
    query(workspace, "update alembic_version set version_num = '0099'")
    before = query(workspace, "select sql from sqlite_master")
    with pytest.raises(
        DatabaseTooNew, match=r"ragsmith\.db was migrated by a newer version of ragsmith"
    ) as raised:
        open_database(workspace)
    assert f"revision 0099, and this version reads revisions up to {REVISION}" in raised.value.message
    assert raised.value.fix == "Update ragsmith, or choose another workspace with RAGSMITH_HOME."
    assert query(workspace, "select sql from sqlite_master") == before
    assert_one_line(call(workspace.root, "traces", "list"), "newer version", "Update ragsmith")
    checked = check_database(Settings(home=workspace.root))
    assert (checked.ok, checked.fix) == (False, raised.value.fix)


@pytest.mark.parametrize("migrated", [False, True], ids=["new", "migrated"])
def test_a_version_from_before_migrations_refuses_and_does_no_harm(
    workspace: Workspace, old: Workspace, scripts: ScriptDirectory, *, migrated: bool
) -> None:
    chosen = old if migrated else workspace
    open_database(chosen).dispose()
    # Such a version creates the tables that it misses, and then reads the largest number here: only 1 is its own.
    engine = create_engine(f"sqlite:///{chosen.database}")
    scripts.get_revision("0001").module.tables.create_all(engine)
    engine.dispose()
    assert query(chosen, "select max(version) from schema") == [(int(REVISION),)]
    assert opened_schema(chosen).keys() > metadata.tables.keys()
