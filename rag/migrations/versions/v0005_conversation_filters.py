"""Keep the filters of a conversation with it."""

from __future__ import annotations

from alembic import op
from sqlalchemy import JSON, Column, text

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column; conversations of older versions have no filters."""
    op.add_column("conversations", Column("filters", JSON, nullable=False, server_default=text("'[]'")))
    op.execute(text("UPDATE schema SET version = 5"))
