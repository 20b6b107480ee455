"""Let spans refer to large lists that are stored once.

Older spans stay as they are. Versions that do not know such lists refuse the workspace.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import text

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Name the new version."""
    op.execute(text("UPDATE schema SET version = 10"))
