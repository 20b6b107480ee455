"""Store what a trace was asked for, its release and its large texts, index what it says, and list unread files."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from math import ceil, log
from typing import Any

from alembic import op
from sqlalchemy import JSON, BigInteger, Column, Float, ForeignKey, Integer, String, Text, exc, text

revision = "0004"
down_revision = "0003"

_STEPS = ("condense", "retrieve", "read", "prompt", "generate", "ground")
_TEXT = "{0}question || char(10) || {0}answer || char(10) || {0}error"
_ADD_TEXT = f"""
    INSERT INTO trace_numbers (trace_id) VALUES (new.id);
    INSERT INTO trace_texts (rowid, text)
        SELECT number, {_TEXT.format("new.")} FROM trace_numbers WHERE trace_id = new.id;
"""  # noqa: S608 - names of ours
_REMOVE_TEXT = f"""
    INSERT INTO trace_texts (trace_texts, rowid, text)
        SELECT 'delete', number, {_TEXT.format("old.")} FROM trace_numbers WHERE trace_id = old.id;
    DELETE FROM trace_numbers WHERE trace_id = old.id;
"""  # noqa: S608 - names of ours
_SQLITE_SEARCH = (
    "CREATE TABLE trace_numbers (number INTEGER PRIMARY KEY, trace_id VARCHAR(36) NOT NULL UNIQUE)",
    f"""CREATE VIEW trace_search AS SELECT number, {_TEXT.format("")} AS text
    FROM trace_numbers JOIN traces ON traces.id = trace_numbers.trace_id""",  # noqa: S608 - names of ours
    """CREATE VIRTUAL TABLE trace_texts USING fts5(
        text, content='trace_search', content_rowid='number', tokenize='trigram', detail='none', columnsize=0
    )""",
    f"CREATE TRIGGER trace_text_added AFTER INSERT ON traces WHEN new.status <> 'running' BEGIN{_ADD_TEXT}END",
    f"""CREATE TRIGGER trace_text_changed AFTER UPDATE OF status, question, answer, error ON traces
    WHEN new.status <> 'running' BEGIN{_REMOVE_TEXT}{_ADD_TEXT}END""",
    f"CREATE TRIGGER trace_text_removed AFTER DELETE ON traces BEGIN{_REMOVE_TEXT}END",
)
_POSTGRESQL_TEXT = _TEXT.format("traces.").replace("char", "chr")
_POSTGRESQL_SEARCH = (
    "CREATE EXTENSION IF NOT EXISTS pg_trgm",
    f"CREATE INDEX traces_by_text ON traces USING gin (({_POSTGRESQL_TEXT}) gin_trgm_ops)",
)
_SEARCH = {"sqlite": _SQLITE_SEARCH, "postgresql": _POSTGRESQL_SEARCH}


def upgrade() -> None:
    """Add columns and tables; the traces of evaluations are those that name a run as their conversation."""
    for column in (
        Column("purpose", String(12), nullable=False, server_default="chat"),
        Column("user_name", Text, nullable=False, server_default=""),
        Column("first_token_s", Float),
        Column("cached_tokens", Integer),
        Column("saved_usd", Float),
        Column("prices", String(10), nullable=False, server_default=""),
        Column("code", String(40), nullable=False, server_default=""),
        Column("replay_of", String(36)),
    ):
        op.add_column("traces", column)
    for column in (Column("first_token_s", Float), Column("cached_tokens", Integer), Column("saved_usd", Float)):
        op.add_column("spans", column)
    op.add_column("feedback", Column("correction", Text, nullable=False, server_default=""))
    op.create_index("ix_traces_replay_of", "traces", ["replay_of"])
    op.create_index("traces_by_status", "traces", ["status", "started"])
    op.create_index("traces_by_purpose", "traces", ["purpose", "started"])
    op.create_index("traces_by_prompt", "traces", ["prompt", "started"])
    op.create_index("traces_by_latency", "traces", ["latency_s", "started", "purpose"])
    op.create_index("traces_by_cost", "traces", ["cost_usd", "started", "purpose"])
    figures = ["status", "latency_s", "first_token_s", "cost_usd", "input_tokens", "output_tokens"]
    op.create_index("traces_in_time", "traces", ["started", "id", "purpose", *figures])
    op.execute(
        text("UPDATE traces SET purpose = 'evaluation' WHERE conversation_id IN (SELECT id FROM evaluation_runs)")
    )
    _create_tables()
    _fill_ledger()
    _fill_measures()
    _create_search()
    op.execute(text("UPDATE schema SET version = 4"))


def _fill_ledger() -> None:
    """Add the costs of the leaf spans of the stored traces."""
    leaves = text(
        'SELECT t.started AS at, t.purpose, t.model, t.prompt, t."release", p.name AS parent, s.name, s.kind, '
        "s.started, s.ended, s.input_tokens, s.output_tokens, s.cost_usd "
        "FROM traces t JOIN spans s ON s.trace_id = t.id LEFT JOIN spans p ON p.id = s.parent_id "
        "WHERE t.status <> 'running' AND NOT EXISTS (SELECT 1 FROM spans c WHERE c.parent_id = s.id)"
    )
    connection = op.get_bind()
    sums: dict[tuple[Any, ...], list[float]] = {}
    for row in connection.execute(leaves):
        hour = _hour(row.at)
        step = next((name for name in (row.name, row.parent) if name in _STEPS), row.name)[:60]
        billed = row.kind == "llm" and row.model.startswith("openai:")
        amounts = (
            int(row.kind == "llm" or step in ("retrieve", "read", "ground")),
            int(row.cost_usd is None),
            row.input_tokens or 0,
            row.output_tokens or 0,
            0.0 if billed or row.ended is None else max(row.ended - row.started, 0.0),
            row.cost_usd or 0.0,
        )
        model = "extractive" if row.model == "embedded" else row.model
        key = (hour, row.purpose, step, model[:200], row.prompt[:200], row.release[:12])
        sums[key] = [one + other for one, other in zip(sums.get(key, [0] * 6), amounts, strict=True)]
    if sums:
        connection.execute(
            text(
                'INSERT INTO ledger (hour, purpose, step, model, prompt, "release", user_name, calls, unknown, '
                "input_tokens, output_tokens, cached_tokens, seconds, cost_usd, saved_usd) VALUES (:k0, :k1, :k2, "
                ":k3, :k4, :k5, '', :a0, :a1, :a2, :a3, 0, :a4, :a5, 0)"
            ),
            [
                {f"k{at}": part for at, part in enumerate(key)}
                | {f"a{at}": part for at, part in enumerate(amounts)}
                for key, amounts in sums.items()
            ],
        )


def _fill_measures() -> None:
    """Count how the stored traces have ended, how long they took, and their thumbs."""
    ended = text(
        'SELECT t.started, t.purpose, t."release", t.prompt, t.status, t.latency_s, f.rating '
        "FROM traces t LEFT JOIN feedback f ON f.trace_id = t.id WHERE t.status <> 'running'"
    )
    connection = op.get_bind()
    counts: Counter[tuple[Any, ...]] = Counter()
    for row in connection.execute(ended):
        group = (_hour(row.started), row.purpose, row.release[:12], row.prompt[:200])
        counts[(*group, f"status/{row.status}", 0)] += 1
        if row.rating:
            counts[(*group, f"thumb/{row.rating}", 0)] += 1
        if row.latency_s is not None:
            # In buckets that grow by 15 % from a millisecond on.
            longer = row.latency_s > 0.001
            counts[(*group, "latency", ceil(log(row.latency_s / 0.001, 1.15)) if longer else 0)] += 1
    if counts:
        connection.execute(
            text(
                'INSERT INTO measures (hour, purpose, "release", prompt, name, bucket, "count") '
                "VALUES (:k0, :k1, :k2, :k3, :k4, :k5, :number)"
            ),
            [
                {f"k{at}": part for at, part in enumerate(key)} | {"number": number}
                for key, number in counts.items()
            ],
        )


def _hour(at: float) -> float:
    """Return the start of the hour of a time, in the time zone of this machine."""
    return datetime.fromtimestamp(at).astimezone().replace(minute=0, second=0, microsecond=0).timestamp()


def _create_tables() -> None:
    op.create_table(
        "contents",
        Column("sha256", String(64), primary_key=True),
        Column("text", Text, nullable=False),
    )
    op.create_table(
        "trace_contents",
        Column("trace_id", String(36), ForeignKey("traces.id"), primary_key=True),
        Column("sha256", String(64), ForeignKey("contents.sha256"), primary_key=True, index=True),
    )
    op.create_table(
        "trace_passages",
        Column("trace_id", String(36), ForeignKey("traces.id"), primary_key=True),
        Column("passage_id", Integer, primary_key=True, autoincrement=False, index=True),
        Column("rank", Integer, nullable=False),
        Column("cited", Integer, nullable=False),
    )
    op.create_table(
        "releases",
        Column("name", String(12), primary_key=True),
        Column("first_used", Float, nullable=False),
        Column("content", JSON, nullable=False),
    )
    op.create_table(
        "expenses",
        Column("id", Integer, primary_key=True),
        Column("at", Float, nullable=False, index=True),
        Column("purpose", String(12), nullable=False),
        Column("subject", Text, nullable=False),
        Column("model", Text, nullable=False),
        Column("prompt", Text, nullable=False),
        Column("release", Text, nullable=False),
        Column("user_name", Text, nullable=False),
        Column("seconds", Float),
        Column("input_tokens", Integer),
        Column("output_tokens", Integer),
        Column("cached_tokens", Integer),
        Column("cost_usd", Float),
        Column("saved_usd", Float),
        Column("prices", String(10), nullable=False),
    )
    op.create_table(
        "ledger",
        Column("hour", Float, primary_key=True),
        Column("purpose", String(12), primary_key=True),
        Column("step", String(60), primary_key=True),
        Column("model", String(200), primary_key=True),
        Column("prompt", String(200), primary_key=True),
        Column("release", String(12), primary_key=True),
        Column("user_name", String(100), primary_key=True),
        Column("calls", Integer, nullable=False),
        Column("unknown", Integer, nullable=False),
        Column("input_tokens", BigInteger, nullable=False),
        Column("output_tokens", BigInteger, nullable=False),
        Column("cached_tokens", BigInteger, nullable=False),
        Column("seconds", Float, nullable=False),
        Column("cost_usd", Float, nullable=False),
        Column("saved_usd", Float, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "measures",
        Column("name", String(40), primary_key=True),
        Column("hour", Float, primary_key=True),
        Column("purpose", String(12), primary_key=True),
        Column("release", String(12), primary_key=True),
        Column("prompt", String(200), primary_key=True),
        Column("bucket", Integer, primary_key=True, autoincrement=False),
        Column("count", BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "unread_files",
        Column("index_id", Integer, ForeignKey("indexes.id"), primary_key=True),
        Column("path", Text, primary_key=True),
        Column("name", Text, nullable=False),
        Column("reason", Text, nullable=False),
        Column("at", Float, nullable=False),
    )
    op.create_table(
        "saved_filters",
        Column("name", String(120), primary_key=True),
        Column("text", Text, nullable=False),
        Column("created", Float, nullable=False),
    )


def _create_search() -> None:
    connection = op.get_bind()
    try:
        with connection.begin_nested():
            for statement in _SEARCH.get(connection.dialect.name, ()):
                op.execute(text(statement))
            if connection.dialect.name == "sqlite":
                finished = "SELECT id FROM traces WHERE status <> 'running'"
                op.execute(text(f"INSERT INTO trace_numbers (trace_id) {finished}"))
                op.execute(text("INSERT INTO trace_texts (trace_texts) VALUES ('rebuild')"))
    except exc.DBAPIError:
        # A database without FTS5 or pg_trgm; the search then reads the texts.
        return
