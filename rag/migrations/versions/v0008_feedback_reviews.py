"""Keep with feedback whether a person has accepted it."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, String, Text, text

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the columns; every thumbs-down of an older version waits for a review."""
    op.add_column("feedback", Column("review", String(10), nullable=False, server_default=""))
    op.add_column("feedback", Column("reviewer", Text, nullable=False, server_default=""))
    op.execute(text("UPDATE feedback SET review = 'pending' WHERE rating = 'down'"))
    op.execute(text("UPDATE schema SET version = 8"))
