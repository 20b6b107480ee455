"""Index traces by their delivery, so that those that wait are found without reading the others."""

from __future__ import annotations

from alembic import op
from sqlalchemy import text

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the index."""
    op.create_index("traces_by_delivery", "traces", ["tracked", "started"])
    op.execute(text("UPDATE schema SET version = 6"))
