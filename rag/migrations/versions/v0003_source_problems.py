"""Keep what could not be read of a source beside it."""

from __future__ import annotations

from alembic import op
from sqlalchemy import JSON, Column, text

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column; what older versions left out becomes known when the source is loaded again."""
    op.add_column("sources", Column("problems", JSON, nullable=False, server_default=text("'[]'")))
    op.execute(text("UPDATE schema SET version = 3"))
