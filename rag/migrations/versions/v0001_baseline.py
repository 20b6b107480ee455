"""Create the tables as they were before migrations, or recognise those that are there."""

from __future__ import annotations

from alembic import op
from sqlalchemy import (
    JSON,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

revision = "0001"
down_revision = None

tables = MetaData()


def upgrade() -> None:
    """Create the tables that are missing."""
    tables.create_all(op.get_bind())


Table("schema", tables, Column("version", Integer, primary_key=True, autoincrement=False))

Table(
    "corpora",
    tables,
    Column("id", Integer, primary_key=True),
    Column("name", String(120), nullable=False, unique=True),
    Column("created", Float, nullable=False),
)

Table(
    "indexes",
    tables,
    Column("id", Integer, primary_key=True),
    Column("corpus_id", ForeignKey("corpora.id"), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("collection", String(200), nullable=False),
    Column("encoder", String(300), nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("generation", Integer, nullable=False, default=0),
    UniqueConstraint("corpus_id", "fingerprint"),
)

Table(
    "files",
    tables,
    Column("id", Integer, primary_key=True),
    Column("index_id", ForeignKey("indexes.id"), nullable=False),
    Column("path", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("loader", Integer, nullable=False),
    Column("ingested", Float, nullable=False),
    UniqueConstraint("index_id", "path"),
)

Table(
    "texts",
    tables,
    Column("id", Integer, primary_key=True),
    Column("index_id", ForeignKey("indexes.id"), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("state", String(10), nullable=False, index=True),
    Column("text", Text, nullable=False),
    UniqueConstraint("index_id", "digest"),
)

Table(
    "entries",
    tables,
    Column("id", Integer, primary_key=True),
    Column("file_id", ForeignKey("files.id"), nullable=False, index=True),
    Column("text_id", ForeignKey("texts.id"), nullable=False, index=True),
    Column("record", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("date", String(10)),
    Column("metadata", JSON, nullable=False),
)

Table(
    "passages",
    tables,
    Column("id", Integer, primary_key=True),
    Column("text_id", ForeignKey("texts.id"), nullable=False, index=True),
    Column("start", Integer, nullable=False),
    Column("end", Integer, nullable=False),
    Column("page", Integer),
    Column("headings", JSON, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("text", Text, nullable=False),
    sqlite_autoincrement=True,
)

Table(
    "traces",
    tables,
    Column("id", String(36), primary_key=True),
    Column("started", Float, nullable=False, index=True),
    Column("latency_s", Float),
    Column("status", String(12), nullable=False),
    Column("question", Text, nullable=False),
    Column("answer", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("input_tokens", Integer),
    Column("output_tokens", Integer),
    Column("cost_usd", Float),
    Column("corpus", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("release", Text, nullable=False),
    Column("conversation_id", String(36), index=True),
    Column("process", String(60), nullable=False),
    Column("tracked", String(60)),
)

Table(
    "spans",
    tables,
    Column("id", String(36), primary_key=True),
    Column("trace_id", ForeignKey("traces.id"), nullable=False, index=True),
    Column("parent_id", String(36)),
    Column("position", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", String(20), nullable=False),
    Column("status", String(12), nullable=False),
    Column("started", Float, nullable=False),
    Column("ended", Float),
    Column("input", JSON, nullable=False),
    Column("output", JSON, nullable=False),
    Column("error", Text, nullable=False),
    Column("input_tokens", Integer),
    Column("output_tokens", Integer),
    Column("cost_usd", Float),
    Column("attributes", JSON, nullable=False),
)

Table(
    "feedback",
    tables,
    Column("trace_id", ForeignKey("traces.id"), primary_key=True),
    Column("rating", String(4), nullable=False),
    Column("comment", Text, nullable=False),
    Column("at", Float, nullable=False),
)

Table(
    "conversations",
    tables,
    Column("id", String(36), primary_key=True),
    Column("title", Text, nullable=False),
    Column("corpus", Text, nullable=False),
    Column("updated", Float, nullable=False, index=True),
)

Table(
    "messages",
    tables,
    Column("id", Integer, primary_key=True),
    Column("conversation_id", ForeignKey("conversations.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("question", Text, nullable=False),
    Column("trace_id", String(36)),
    Column("answer", JSON),
    Index("messages_in_order", "conversation_id", "position", unique=True),
)

Table(
    "datasets",
    tables,
    Column("id", Integer, primary_key=True),
    Column("name", String(120), nullable=False, unique=True),
    Column("created", Float, nullable=False),
)

Table(
    "dataset_versions",
    tables,
    Column("id", Integer, primary_key=True),
    Column("dataset_id", ForeignKey("datasets.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("saved", Float, nullable=False),
    Column("by", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size", Integer, nullable=False),
    UniqueConstraint("dataset_id", "version"),
)

Table(
    "cases",
    tables,
    Column("sha256", String(64), primary_key=True),
    Column("content", JSON, nullable=False),
)

Table(
    "dataset_cases",
    tables,
    Column("version_id", ForeignKey("dataset_versions.id"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("case_sha256", ForeignKey("cases.sha256"), nullable=False),
)

Table(
    "candidates",
    tables,
    Column("id", Integer, primary_key=True),
    Column("dataset_id", ForeignKey("datasets.id"), nullable=False, index=True),
    Column("case_sha256", ForeignKey("cases.sha256"), nullable=False),
    Column("state", String(10), nullable=False),
    UniqueConstraint("dataset_id", "case_sha256"),
)

Table(
    "evaluations",
    tables,
    Column("id", String(36), primary_key=True),
    Column("name", Text, nullable=False),
    Column("started", Float, nullable=False, index=True),
    Column("ended", Float),
    Column("status", String(12), nullable=False),
    Column("error", Text, nullable=False),
    Column("dataset", String(120), nullable=False),
    Column("dataset_version", Integer, nullable=False),
    Column("dataset_sha256", String(64), nullable=False),
    Column("plan", JSON, nullable=False),
    Column("process", String(60), nullable=False),
    Column("tracked", String(60)),
)

Table(
    "cells",
    tables,
    Column("evaluation_id", ForeignKey("evaluations.id"), primary_key=True),
    Column("variant", Integer, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("status", String(12), nullable=False),
    Column("answer", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("scores", JSON, nullable=False),
    Column("remark", Text, nullable=False),
    Column("passages", JSON, nullable=False),
    Column("trace_id", String(36), nullable=False),
    Column("latency_s", Float),
    Column("input_tokens", Integer),
    Column("output_tokens", Integer),
    Column("cost_usd", Float),
    Column("cached", Integer, nullable=False),
)

Table(
    "answer_cache",
    tables,
    Column("key", String(64), primary_key=True),
    Column("made", Float, nullable=False),
    Column("answer", JSON, nullable=False),
)
