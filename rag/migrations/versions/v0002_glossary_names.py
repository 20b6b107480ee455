"""Name tables and columns by what they are: sources, documents, exchanges, evaluation runs."""

from __future__ import annotations

from alembic import op
from sqlalchemy import text

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Rename; no row changes but the number that makes versions from before migrations refuse."""
    op.drop_index("ix_entries_file_id", "entries")
    op.drop_index("ix_entries_text_id", "entries")
    op.rename_table("files", "sources")
    op.alter_column("sources", "loader", new_column_name="loader_version")
    op.rename_table("entries", "documents")
    op.alter_column("documents", "file_id", new_column_name="source_id")
    op.create_index("ix_documents_source_id", "documents", ["source_id"])
    op.create_index("ix_documents_text_id", "documents", ["text_id"])
    op.alter_column("indexes", "tokens", new_column_name="passage_tokens")

    # Those versions create the tables that they miss before they refuse: an index must not be in their way.
    op.drop_index("messages_in_order", "messages")
    op.rename_table("messages", "exchanges")
    op.create_index("exchanges_in_order", "exchanges", ["conversation_id", "position"], unique=True)

    op.drop_index("ix_evaluations_started", "evaluations")
    op.rename_table("evaluations", "evaluation_runs")
    op.create_index("ix_evaluation_runs_started", "evaluation_runs", ["started"])
    op.alter_column("cells", "evaluation_id", new_column_name="run_id")
    op.alter_column("cells", "remark", new_column_name="rationale")
    op.alter_column("answer_cache", "made", new_column_name="created")

    op.execute(text("DELETE FROM schema"))
    op.execute(text("INSERT INTO schema (version) VALUES (2)"))
