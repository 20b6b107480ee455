"""Keep alerts, the state of their last check, and their notices."""

from __future__ import annotations

from alembic import op
from sqlalchemy import JSON, Column, Float, ForeignKey, Integer, String, Text, text

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "alerts",
        Column("name", String(120), primary_key=True),
        Column("metric", String(20), nullable=False),
        Column("alert_at", Float, nullable=False),
        Column("warn_at", Float),
        Column("direction", String(5), nullable=False),
        Column("window_s", Float, nullable=False),
        Column("filter", Text, nullable=False),
        Column("no_data", String(5), nullable=False),
        Column("renotify_s", Float),
        Column("channels", JSON, nullable=False),
        Column("level", String(7), nullable=False),
        Column("since", Float),
        Column("value", Float),
        Column("checked", Float),
        Column("notified", Float),
    )
    op.create_table(
        "alert_notices",
        Column("id", String(36), primary_key=True),
        Column("alert", String(120), ForeignKey("alerts.name"), nullable=False, index=True),
        Column("channel", String(10), nullable=False),
        Column("at", Float, nullable=False),
        Column("message", JSON, nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("next_at", Float, index=True),
        Column("sent", Float),
        Column("error", Text, nullable=False),
    )
    op.execute(text("UPDATE schema SET version = 9"))
