"""Keep with each question which corpus it was asked of."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Text, text

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the column; older questions count as asked of the corpus that their conversation has now."""
    op.add_column("exchanges", Column("corpus", Text, nullable=False, server_default=""))
    op.execute(
        text(
            "UPDATE exchanges SET corpus = coalesce((SELECT corpus FROM conversations"
            " WHERE conversations.id = exchanges.conversation_id), '')"
        )
    )
    op.execute(text("UPDATE schema SET version = 11"))
