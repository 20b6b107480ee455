"""Remember which traces a collector has not received yet."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, ForeignKey, String, text

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Create the table; traces of older versions are not sent."""
    op.create_table(
        "trace_exports",
        Column("trace_id", String(36), ForeignKey("traces.id"), primary_key=True),
        Column("process", String(60), nullable=False, index=True),
    )
    op.execute(text("UPDATE schema SET version = 7"))
