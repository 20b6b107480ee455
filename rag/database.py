"""The tables of the workspace, and the one way to open them.

SQLite in WAL mode by default; any other database through an SQLAlchemy URL. A corpus has one index for each
fingerprint. Rows that describe passages hang below an index:

    corpora ─ indexes ─┬─ files ── entries ──┐
                       └─ texts ── passages  │
                              └──────────────┘

A file has one entry, or one for each of its records; an entry names the text that it holds. Two entries with
the same text share it, so that it is embedded once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    exc,
    func,
    insert,
    select,
)

from rag.errors import DatabaseError, StorageFull
from rag.redaction import redact, without_password
from rag.workspace import Workspace

# Bridges another process's short write; a writer never holds the lock while it embeds.
BUSY_S = 10.0

# Raise when a table changes its columns, and say in ``_agree`` how an older one is brought up to date.
SCHEMA = 1

LARGEST_COUNT = 2**31 - 1
"""The largest whole number that a column of the type Integer takes in every database."""

metadata = MetaData()

schema = Table("schema", metadata, Column("version", Integer, primary_key=True, autoincrement=False))

corpora = Table(
    "corpora",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(120), nullable=False, unique=True),
    Column("created", Float, nullable=False),
)

indexes = Table(
    "indexes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("corpus_id", ForeignKey("corpora.id"), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    # Carries a random part: two workspaces may share a Chroma server, and their passage numbers are their own.
    Column("collection", String(200), nullable=False),
    Column("encoder", String(300), nullable=False),
    Column("tokens", Integer, nullable=False),
    # Counts the ingestions that changed something: another process that has the index open reads it anew.
    Column("generation", Integer, nullable=False, default=0),
    UniqueConstraint("corpus_id", "fingerprint"),
)

files = Table(
    "files",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("index_id", ForeignKey("indexes.id"), nullable=False),
    Column("path", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("loader", Integer, nullable=False),
    Column("ingested", Float, nullable=False),
    UniqueConstraint("index_id", "path"),
)

texts = Table(
    "texts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("index_id", ForeignKey("indexes.id"), nullable=False),
    Column("digest", String(64), nullable=False),
    # "pending" until both indexes hold its passages, "leaving" until neither does; `recover` undoes the rest.
    Column("state", String(10), nullable=False, index=True),
    Column("text", Text, nullable=False),
    UniqueConstraint("index_id", "digest"),
)

entries = Table(
    "entries",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("file_id", ForeignKey("files.id"), nullable=False, index=True),
    Column("text_id", ForeignKey("texts.id"), nullable=False, index=True),
    Column("record", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("date", String(10)),
    Column("metadata", JSON, nullable=False),
)

passages = Table(
    "passages",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("text_id", ForeignKey("texts.id"), nullable=False, index=True),
    Column("start", Integer, nullable=False),
    Column("end", Integer, nullable=False),
    Column("page", Integer),
    Column("headings", JSON, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("text", Text, nullable=False),
    # A number is never used twice: a left-over of a crash in Chroma must not meet a new passage.
    sqlite_autoincrement=True,
)

traces = Table(
    "traces",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("started", Float, nullable=False, index=True),
    Column("latency_s", Float),
    Column("status", String(12), nullable=False),
    Column("question", Text, nullable=False),
    Column("answer", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("input_tokens", Integer),
    Column("output_tokens", Integer),
    Column("cost_usd", Float),
    Column("corpus", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("release", Text, nullable=False),
    Column("conversation_id", String(36), index=True),
    # The process that answers, so that a later start can tell a trace in progress from an interrupted one.
    Column("process", String(60), nullable=False),
    Column("tracked", String(60)),
)

spans = Table(
    "spans",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("trace_id", ForeignKey("traces.id"), nullable=False, index=True),
    Column("parent_id", String(36)),
    Column("position", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", String(20), nullable=False),
    Column("status", String(12), nullable=False),
    Column("started", Float, nullable=False),
    Column("ended", Float),
    Column("input", JSON, nullable=False),
    Column("output", JSON, nullable=False),
    Column("error", Text, nullable=False),
    Column("input_tokens", Integer),
    Column("output_tokens", Integer),
    Column("cost_usd", Float),
    Column("attributes", JSON, nullable=False),
)

feedback = Table(
    "feedback",
    metadata,
    Column("trace_id", ForeignKey("traces.id"), primary_key=True),
    Column("rating", String(4), nullable=False),
    Column("comment", Text, nullable=False),
    Column("at", Float, nullable=False),
)

conversations = Table(
    "conversations",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("title", Text, nullable=False),
    Column("corpus", Text, nullable=False),
    Column("updated", Float, nullable=False, index=True),
)

messages = Table(
    "messages",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("conversation_id", ForeignKey("conversations.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("question", Text, nullable=False),
    Column("trace_id", String(36)),
    # The answer as it was shown: rag.types.Answer as JSON.
    Column("answer", JSON),
    Index("messages_in_order", "conversation_id", "position", unique=True),
)


datasets = Table(
    "datasets",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(120), nullable=False, unique=True),
    Column("created", Float, nullable=False),
)

dataset_versions = Table(
    "dataset_versions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("dataset_id", ForeignKey("datasets.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("saved", Float, nullable=False),
    Column("by", Text, nullable=False),
    Column("message", Text, nullable=False),
    # Of the digests of its cases, in order.
    Column("sha256", String(64), nullable=False),
    Column("size", Integer, nullable=False),
    UniqueConstraint("dataset_id", "version"),
)

cases = Table(
    "cases",
    metadata,
    # Versions that hold the same case share it.
    Column("sha256", String(64), primary_key=True),
    # rag.evaluation.cases.Case as JSON.
    Column("content", JSON, nullable=False),
)

dataset_cases = Table(
    "dataset_cases",
    metadata,
    Column("version_id", ForeignKey("dataset_versions.id"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("case_sha256", ForeignKey("cases.sha256"), nullable=False),
)

candidates = Table(
    "candidates",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("dataset_id", ForeignKey("datasets.id"), nullable=False, index=True),
    Column("case_sha256", ForeignKey("cases.sha256"), nullable=False),
    # "waiting", "accepted" or "rejected": what a person turned down is not proposed again.
    Column("state", String(10), nullable=False),
    UniqueConstraint("dataset_id", "case_sha256"),
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", Text, nullable=False),
    Column("started", Float, nullable=False, index=True),
    Column("ended", Float),
    Column("status", String(12), nullable=False),
    Column("error", Text, nullable=False),
    Column("dataset", String(120), nullable=False),
    Column("dataset_version", Integer, nullable=False),
    Column("dataset_sha256", String(64), nullable=False),
    # rag.evaluation.run_store.Plan as JSON.
    Column("plan", JSON, nullable=False),
    Column("process", String(60), nullable=False),
    Column("tracked", String(60)),
)

cells = Table(
    "cells",
    metadata,
    Column("evaluation_id", ForeignKey("evaluations.id"), primary_key=True),
    Column("variant", Integer, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("status", String(12), nullable=False),
    Column("answer", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("scores", JSON, nullable=False),
    # What the judge said.
    Column("remark", Text, nullable=False),
    Column("passages", JSON, nullable=False),
    Column("trace_id", String(36), nullable=False),
    Column("latency_s", Float),
    Column("input_tokens", Integer),
    Column("output_tokens", Integer),
    Column("cost_usd", Float),
    Column("cached", Integer, nullable=False),
)

answer_cache = Table(
    "answer_cache",
    metadata,
    # Of all that decides an answer: release, state of the index, question and history.
    Column("key", String(64), primary_key=True),
    Column("made", Float, nullable=False),
    Column("answer", JSON, nullable=False),
)


def open_database(workspace: Workspace, url: str | None = None) -> Engine:
    """Open the database and make the tables that are missing.

    Args:
        workspace: Where SQLite lives when no URL is given.
        url: An SQLAlchemy URL, as ``postgresql+psycopg://user@host/name``.

    Raises:
        DatabaseError: It cannot be reached, or is locked or damaged.
        StorageFull: The disk has no room left.
    """
    target = url or f"sqlite:///{workspace.database}"
    try:
        options: dict[str, Any] = {"connect_args": {"timeout": BUSY_S}} if target.startswith("sqlite") else {}
        engine = create_engine(target, **options)
    except (exc.ArgumentError, exc.NoSuchModuleError, ModuleNotFoundError) as error:
        raise DatabaseError(
            f"The database_url is not usable: {redact(str(error).replace(target, without_password(target)))}.",
            fix="Give an SQLAlchemy URL and install its driver, or remove the setting.",
        ) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    with database_errors(engine):
        metadata.create_all(engine)
        _agree(engine)
    return engine


def _agree(engine: Engine) -> None:
    """See that the tables are those of this version."""
    with engine.connect() as connection:
        version = connection.scalar(select(func.max(schema.c.version)))
    if version is None:
        try:
            with engine.begin() as connection:
                connection.execute(insert(schema).values(version=SCHEMA))
        except exc.IntegrityError:
            return  # Another process was quicker.
    elif version != SCHEMA:
        raise DatabaseError(
            f"The database {engine.url.render_as_string(hide_password=True)} was written by another version of "
            f"ragsmith: its tables have the form {version}, and this one reads {SCHEMA}.",
            fix="Use the version that wrote it, or another workspace.",
        )


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # NORMAL keeps the file whole after a crash of the process; only a power cut may lose the last commits.
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def shown_url(engine: Engine) -> str:
    """Return where the database is, without a password."""
    return without_password(engine.url.render_as_string(hide_password=True))


@contextmanager
def database_errors(engine: Engine) -> Iterator[None]:
    """Translate what SQLAlchemy raises.

    Raises:
        StorageFull: The disk has no room left.
        DatabaseError: Anything else that the database refuses.
    """
    try:
        yield
    except exc.DBAPIError as error:
        reason = redact(str(error.orig))
        where = shown_url(engine)
        if "disk is full" in reason:
            raise StorageFull(
                f"Cannot write to the database {where}: the disk is full.",
                fix="Free some space and run the same command again; what was finished is kept.",
            ) from error
        fix = (
            "Another process holds it: wait until it has finished, or stop it."
            if "locked" in reason
            else "Check that the file or server is whole and reachable: `ragsmith doctor` says more."
        )
        raise DatabaseError(f"The database {where} refuses: {reason}.", fix=fix) from error
    except OverflowError as error:
        # SQLite's driver says so before the statement reaches the database; PostgreSQL's is a DBAPIError.
        if "too large" not in str(error):
            raise
        raise DatabaseError(
            "A number is too large for the database: it must fit into 64 bits.",
            fix="Check the ids and counts of the request.",
        ) from error


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection for reads.

    Raises:
        DatabaseError: The database refuses.
    """
    with database_errors(engine), engine.connect() as connection:
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction: all of it is kept, or nothing.

    Raises:
        StorageFull: The disk has no room left.
        DatabaseError: The database refuses.
    """
    with database_errors(engine), engine.begin() as connection:
        yield connection


def insert_row(connection: Connection, table: Table, **values: Any) -> int:
    """Insert one row into a table with a numbered key.

    Returns:
        The row's number.
    """
    made = connection.execute(insert(table).values(**values))
    return int(made.inserted_primary_key[0])  # type: ignore[index]  # it is there for such a table
