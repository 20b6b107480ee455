"""Keep what a trace is asked for, its first token, what a cache saved, its release, and large texts once."""

from __future__ import annotations

from alembic import op
from sqlalchemy import JSON, Column, Float, ForeignKey, Integer, String, Text, text

revision = "0004"
down_revision = "0003"


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
