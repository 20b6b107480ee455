"""Store what a trace was asked for, its first token, its release and its large texts, and index what it says."""

from __future__ import annotations

from alembic import op
from sqlalchemy import JSON, Column, Float, ForeignKey, Integer, String, Text, exc, text

revision = "0004"
down_revision = "0003"

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
    _create_search()
    op.execute(text("UPDATE schema SET version = 4"))


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
