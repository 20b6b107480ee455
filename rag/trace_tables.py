"""The tables of traces: their steps, what they cost, how they were rated, and the index of their texts.

A trace has the rows of its steps, and what they share with others is stored once:

    traces ─┬─ spans
            ├─ trace_contents ─ contents
            ├─ trace_passages
            ├─ trace_exports
            └─ feedback

A change here needs a revision in ``rag/migrations/versions`` with the same change for existing databases.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    exc,
    text,
)

from rag.tables import metadata

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
    # The answering process, to distinguish running from interrupted traces.
    Column("process", String(60), nullable=False),
    Column("tracked", String(60)),
    # rag.types.Purpose
    Column("purpose", String(12), nullable=False, server_default="chat"),
    Column("user_name", Text, nullable=False, server_default=""),
    Column("first_token_s", Float),
    Column("cached_tokens", Integer),
    Column("saved_usd", Float),
    # The day of the price list.
    Column("prices", String(10), nullable=False, server_default=""),
    # The version of ragsmith.
    Column("code", String(40), nullable=False, server_default=""),
    # The trace that this one replays.
    Column("replay_of", String(36), index=True),
    # Conditions and orders of the list.
    Index("traces_by_status", "status", "started"),
    Index("traces_by_purpose", "purpose", "started"),
    Index("traces_by_prompt", "prompt", "started"),
    Index("traces_by_latency", "latency_s", "started", "purpose"),
    Index("traces_by_cost", "cost_usd", "started", "purpose"),
    # Those that wait for their delivery.
    Index("traces_by_delivery", "tracked", "started"),
    # All that lists and charts of many traces read, so that their texts are not.
    Index(
        "traces_in_time",
        "started",
        "id",
        "purpose",
        "status",
        "latency_s",
        "first_token_s",
        "cost_usd",
        "input_tokens",
        "output_tokens",
    ),
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
    Column("first_token_s", Float),
    Column("cached_tokens", Integer),
    Column("saved_usd", Float),
)

# Large strings of spans, and large lists as JSON, stored once; see rag.tracing.span_contents.
contents = Table(
    "contents",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("text", Text, nullable=False),
)

trace_contents = Table(
    "trace_contents",
    metadata,
    Column("trace_id", ForeignKey("traces.id"), primary_key=True),
    Column("sha256", ForeignKey("contents.sha256"), primary_key=True, index=True),
)

trace_passages = Table(
    "trace_passages",
    metadata,
    Column("trace_id", ForeignKey("traces.id"), primary_key=True),
    # Passages may be replaced, and their traces stay.
    Column("passage_id", Integer, primary_key=True, autoincrement=False, index=True),
    # From 1, in the order of the prompt.
    Column("rank", Integer, nullable=False),
    Column("cited", Integer, nullable=False),
)

# The traces that a collector has not received yet; see rag.tracing.export_queue.
trace_exports = Table(
    "trace_exports",
    metadata,
    Column("trace_id", ForeignKey("traces.id"), primary_key=True),
    # The process that sends it.
    Column("process", String(60), nullable=False, index=True),
)

# What was spent on work that is no trace: judging, training, ingestion.
expenses = Table(
    "expenses",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False, index=True),
    Column("purpose", String(12), nullable=False),
    # The run or corpus that it was spent on.
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

# What the leaf steps of finished traces and the expenses have cost, summed by hour; see rag.tracing.ledger. It
# outlives the traces.
ledger = Table(
    "ledger",
    metadata,
    # Start of the hour in the time zone of the machine that wrote it, in seconds since the epoch.
    Column("hour", Float, primary_key=True),
    Column("purpose", String(12), primary_key=True),
    Column("step", String(60), primary_key=True),
    Column("model", String(200), primary_key=True),
    Column("prompt", String(200), primary_key=True),
    Column("release", String(12), primary_key=True),
    Column("user_name", String(100), primary_key=True),
    Column("calls", Integer, nullable=False),
    # Those of the calls whose cost is unknown.
    Column("unknown", Integer, nullable=False),
    # 64 bits: sums over an hour exceed 32.
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    # Of the machine.
    Column("seconds", Float, nullable=False),
    Column("cost_usd", Float, nullable=False),
    Column("saved_usd", Float, nullable=False),
    # Rows in the order of the key: sums of a time read them one after the other.
    sqlite_with_rowid=False,
)

# How answers ended and how long they took, counted by hour; see rag.tracing.measures.
measures = Table(
    "measures",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("hour", Float, primary_key=True),
    Column("purpose", String(12), primary_key=True),
    Column("release", String(12), primary_key=True),
    Column("prompt", String(200), primary_key=True),
    Column("bucket", Integer, primary_key=True, autoincrement=False),
    Column("count", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

saved_filters = Table(
    "saved_filters",
    metadata,
    Column("name", String(120), primary_key=True),
    Column("text", Text, nullable=False),
    Column("created", Float, nullable=False),
)

feedback = Table(
    "feedback",
    metadata,
    Column("trace_id", ForeignKey("traces.id"), primary_key=True),
    Column("rating", String(4), nullable=False),
    Column("comment", Text, nullable=False),
    Column("at", Float, nullable=False),
    # The answer as it should have been.
    Column("correction", Text, nullable=False, server_default=""),
    # rag.tracing.trace_types.Review
    Column("review", String(10), nullable=False, server_default=""),
    Column("reviewer", Text, nullable=False, server_default=""),
)

# The index of the texts of finished traces, for rag.tracing.trace_search: on SQLite, trigrams in FTS5 without the
# texts themselves, which triggers keep in step; on PostgreSQL, those of pg_trgm.
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
SQLITE_SEARCH = (
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
POSTGRESQL_TEXT = _TEXT.format("traces.").replace("char", "chr")
POSTGRESQL_SEARCH = (
    "CREATE EXTENSION IF NOT EXISTS pg_trgm",
    f"CREATE INDEX traces_by_text ON traces USING gin (({POSTGRESQL_TEXT}) gin_trgm_ops)",
)
_SEARCH = {"sqlite": SQLITE_SEARCH, "postgresql": POSTGRESQL_SEARCH}


def create_search(connection: Connection) -> None:
    """Create the full text index of the traces, which a database without FTS5 or pg_trgm does without."""
    try:
        with connection.begin_nested():
            for statement in _SEARCH.get(connection.dialect.name, ()):
                connection.execute(text(statement))
    except exc.DBAPIError:
        # The search then reads the texts, which is slow with a million of them.
        return
