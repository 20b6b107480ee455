"""Opening the database of the workspace, and transactions on it.

SQLite in WAL mode by default; any other database through an SQLAlchemy URL. The tables are in ``rag.tables``
and ``rag.trace_tables``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from sqlalchemy import Connection, Engine, Insert, Table, create_engine, event, exc, insert, inspect, select, text
from sqlalchemy.dialects import postgresql, sqlite

from rag import tables
from rag.errors import DatabaseError, DatabaseTooNew, StorageFull
from rag.redaction import redact, without_password
from rag.trace_tables import create_search
from rag.workspace import Workspace

# Long enough for short writes of other processes, which never hold the lock while embedding.
BUSY_S = 10.0

REVISION = "0011"
"""The revision of the tables: the newest in ``rag/migrations/versions``, whose numbers ascend."""

# Any number that all processes share.
_MIGRATION_LOCK = 7_241_630


def open_database(workspace: Workspace, url: str | None = None) -> Engine:
    """Open the database; create its tables, or migrate those of an older version.

    Args:
        workspace: Location of the SQLite database if there is no URL.
        url: An SQLAlchemy URL, such as ``postgresql+psycopg://user@host/name``.

    Raises:
        DatabaseError: The database is unreachable, locked or damaged.
        DatabaseTooNew: A newer version of ragsmith has migrated it.
        StorageFull: The disk is full.
    """
    if url is None:
        _check_not_emptied(workspace)
    target = url or f"sqlite:///{workspace.database}"
    try:
        options: dict[str, Any] = {"connect_args": {"timeout": BUSY_S}} if target.startswith("sqlite") else {}
        engine = create_engine(target, **options)
    except (exc.ArgumentError, exc.NoSuchModuleError, ModuleNotFoundError) as error:
        raise DatabaseError(
            "database_url must be a usable SQLAlchemy URL: "
            f"{redact(str(error).replace(target, without_password(target)))}.",
            fix="Correct the URL and install its driver, or remove the setting.",
        ) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    with database_errors(engine):
        with engine.connect() as connection:
            current = _revision(connection) == REVISION
        if not current:
            with _migration(engine) as connection:
                _bring_up_to_date(connection)
    return engine


def _check_not_emptied(workspace: Workspace) -> None:
    """Refuse an empty file beside indexes: it has lost its content, which new tables would hide."""
    file = workspace.database
    is_empty = file.is_file() and not file.stat().st_size
    if is_empty and workspace.lexical.is_dir() and any(workspace.lexical.iterdir()):
        raise DatabaseError(
            f"The database {file} is empty (0 bytes), but the workspace has indexes.",
            fix="Restore a copy of it, or delete it and ingest again, which loses conversations and traces.",
        )


def _revision(connection: Connection) -> str | None:
    """Return the revision of the tables; None without tables, or if they are older than revisions."""
    if not inspect(connection).has_table(tables.alembic_version.name):
        return None
    return ", ".join(connection.scalars(select(tables.alembic_version.c.version_num))) or "none"


@contextmanager
def _migration(engine: Engine) -> Iterator[Connection]:
    """Run a migration in one transaction, which other processes wait for.

    A crash leaves the tables unchanged, so the next start repeats the migration.
    """
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            # The driver starts no transaction for DDL.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        yield connection
        connection.commit()


def _bring_up_to_date(connection: Connection) -> None:
    # Checked again, because another process may have migrated before this one had the lock.
    revision = _revision(connection)
    if revision == REVISION:
        return
    if revision is not None and revision.isdecimal() and int(revision) > int(REVISION):
        raise DatabaseTooNew(
            f"The database {shown_url(connection.engine)} was migrated by a newer version of ragsmith: its tables "
            f"have revision {revision}, and this version reads revisions up to {REVISION}.",
            fix="Update ragsmith, or choose another workspace with RAGSMITH_HOME.",
        )
    if revision is not None and revision not in {f"{number:04}" for number in range(1, int(REVISION))}:
        raise DatabaseError(
            f"The database {shown_url(connection.engine)} cannot be migrated: its table alembic_version names the "
            f"revision {revision}, which ragsmith does not know.",
            fix="Restore a copy of the database, or choose another workspace with RAGSMITH_HOME.",
        )
    if revision is None and tables.metadata.tables.keys().isdisjoint(inspect(connection).get_table_names()):
        tables.metadata.create_all(connection)
        create_search(connection)
        connection.execute(insert(tables.alembic_version).values(version_num=REVISION))
        connection.execute(insert(tables.schema).values(version=int(REVISION)))
        return
    # The import takes half a second.
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", "rag:migrations")
    command.upgrade(config, REVISION)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # With NORMAL, the file survives a crash of the process; only a power failure may lose the last commits.
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def shown_url(engine: Engine) -> str:
    """Return the URL of the database without a password."""
    return without_password(engine.url.render_as_string(hide_password=True))


@contextmanager
def database_errors(engine: Engine) -> Iterator[None]:
    """Translate errors of SQLAlchemy.

    Raises:
        StorageFull: The disk is full.
        DatabaseError: The database refuses for any other reason.
    """
    try:
        yield
    except exc.DBAPIError as error:
        reason = redact(str(error.orig))
        where = shown_url(engine)
        if "disk is full" in reason:
            raise StorageFull(
                f"Cannot write to the database {where}: the disk is full.",
                fix="Free some space and run the command again; finished work is kept.",
            ) from error
        fix = (
            "Another process has locked it: wait until it has finished, or stop it."
            if "locked" in reason
            else "Check that the file is intact, or the server reachable: `ragsmith doctor` shows more."
        )
        raise DatabaseError(f"The database {where} refuses: {reason}.", fix=fix) from error
    except OverflowError as error:
        # Raised by SQLite's driver itself; PostgreSQL raises a DBAPIError.
        if "too large" not in str(error):
            raise
        raise DatabaseError(
            "A number is too large for the database: it must fit into 64 bits.",
            fix="Check the ids and counts of the request.",
        ) from error


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Open a connection for reads.

    Raises:
        DatabaseError: The database refuses.
    """
    with database_errors(engine), engine.connect() as connection:
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Open a transaction.

    Raises:
        StorageFull: The disk is full.
        DatabaseError: The database refuses.
    """
    with database_errors(engine), engine.begin() as connection:
        yield connection


def insert_row(connection: Connection, table: Table, **values: Any) -> int:
    """Insert a row into a table with an integer key, and return its key."""
    inserted = connection.execute(insert(table).values(**values))
    return int(inserted.inserted_primary_key[0])  # type: ignore[index]  # integer keys are always returned


def insert_new(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, except those whose key exists."""
    if rows:
        connection.execute(_insert_new(connection.dialect.name, table), rows)


def insert_or_replace(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows; where a key exists, set the other columns that ``rows`` name. All rows name the same ones."""
    if rows:
        connection.execute(_insert_or_replace(connection.dialect.name, table, tuple(rows[0])), rows)


def insert_or_add(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], amounts: tuple[str, ...]
) -> None:
    """Insert rows; where a key exists, add the columns ``amounts`` to those of its row."""
    if rows:
        connection.execute(_insert_or_add(connection.dialect.name, table, amounts), rows)


# Statements are kept: building one takes longer than executing it.
@cache
def _insert_new(dialect: str, table: Table) -> Insert:
    return _insert(dialect, table).on_conflict_do_nothing()


@cache
def _insert_or_replace(dialect: str, table: Table, columns: tuple[str, ...]) -> Insert:
    query = _insert(dialect, table)
    changed = {name: query.excluded[name] for name in columns if not table.c[name].primary_key}
    return query.on_conflict_do_update(index_elements=list(table.primary_key.columns), set_=changed)


@cache
def _insert_or_add(dialect: str, table: Table, amounts: tuple[str, ...]) -> Insert:
    query = _insert(dialect, table)
    added = {name: table.c[name] + query.excluded[name] for name in amounts}
    return query.on_conflict_do_update(index_elements=list(table.primary_key.columns), set_=added)


def _insert(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    # Both dialects spell it in the same way, but SQLAlchemy has no common statement.
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
