"""The tables of the workspace.

A corpus has one index per fingerprint, with the rows that describe its passages:

    corpora ─ indexes ─┬─ sources ─ documents ─┐
                       └─ texts ─── passages   │
                              └────────────────┘

A source is a file with one document, or with a document per record. Documents with the same text share it, so that
it is embedded only once.

The tables of traces are in ``rag.trace_tables``.

A change here needs a revision in ``rag/migrations/versions`` with the same change for existing databases.
"""

from __future__ import annotations

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
    text,
)

LARGEST_COUNT = 2**31 - 1
"""The largest number for an Integer column in every database."""

metadata = MetaData()

alembic_version = Table("alembic_version", metadata, Column("version_num", String(32), primary_key=True))

# Read by versions older than migrations, which refuse any number except 1.
schema = Table("schema", metadata, Column("version", Integer, primary_key=True, autoincrement=False))

corpora = Table(
    "corpora",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(120), nullable=False, unique=True),
    Column("created", Float, nullable=False),
)

indexes = Table(
    "indexes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("corpus_id", ForeignKey("corpora.id"), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    # With a random part, because workspaces with their own passage ids may share a Chroma server.
    Column("collection", String(200), nullable=False),
    Column("encoder", String(300), nullable=False),
    Column("passage_tokens", Integer, nullable=False),
    # Incremented by every change, so that other processes reload the index.
    Column("generation", Integer, nullable=False, default=0),
    UniqueConstraint("corpus_id", "fingerprint"),
)

sources = Table(
    "sources",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("index_id", ForeignKey("indexes.id"), nullable=False),
    Column("path", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("loader_version", Integer, nullable=False),
    Column("ingested", Float, nullable=False),
    # Sentences about the parts of it that were not read, or were repaired.
    Column("problems", JSON, nullable=False, server_default=text("'[]'")),
    UniqueConstraint("index_id", "path"),
)

# What could not be read at the last ingestion, also of files whose text of before is still a source.
unread_files = Table(
    "unread_files",
    metadata,
    Column("index_id", ForeignKey("indexes.id"), primary_key=True),
    Column("path", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Float, nullable=False),
)

texts = Table(
    "texts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("index_id", ForeignKey("indexes.id"), nullable=False),
    Column("digest", String(64), nullable=False),
    # "pending" until both indexes have its passages, "leaving" until neither has; `recover` cleans up others.
    Column("state", String(10), nullable=False, index=True),
    Column("text", Text, nullable=False),
    UniqueConstraint("index_id", "digest"),
)

documents = Table(
    "documents",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("source_id", ForeignKey("sources.id"), nullable=False, index=True),
    Column("text_id", ForeignKey("texts.id"), nullable=False, index=True),
    Column("record", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("date", String(10)),
    Column("metadata", JSON, nullable=False),
)

passages = Table(
    "passages",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("text_id", ForeignKey("texts.id"), nullable=False, index=True),
    Column("start", Integer, nullable=False),
    Column("end", Integer, nullable=False),
    Column("page", Integer),
    Column("headings", JSON, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("text", Text, nullable=False),
    # Ids are never reused, so that remains of a crash in Chroma never match a new passage.
    sqlite_autoincrement=True,
)


releases = Table(
    "releases",
    metadata,
    Column("name", String(12), primary_key=True),
    Column("first_used", Float, nullable=False),
    # rag.answering.release.Release as JSON.
    Column("content", JSON, nullable=False),
)


conversations = Table(
    "conversations",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("title", Text, nullable=False),
    Column("corpus", Text, nullable=False),
    Column("updated", Float, nullable=False, index=True),
    # Conditions on its documents, as they were typed.
    Column("filters", JSON, nullable=False, server_default=text("'[]'")),
)

exchanges = Table(
    "exchanges",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("conversation_id", ForeignKey("conversations.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("corpus", Text, nullable=False, server_default=""),
    Column("question", Text, nullable=False),
    Column("trace_id", String(36)),
    # rag.types.Answer as JSON.
    Column("answer", JSON),
    Index("exchanges_in_order", "conversation_id", "position", unique=True),
)


datasets = Table(
    "datasets",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(120), nullable=False, unique=True),
    Column("created", Float, nullable=False),
)

dataset_versions = Table(
    "dataset_versions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("dataset_id", ForeignKey("datasets.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("saved", Float, nullable=False),
    Column("by", Text, nullable=False),
    Column("message", Text, nullable=False),
    # Hash of the hashes of its cases, in order.
    Column("sha256", String(64), nullable=False),
    Column("size", Integer, nullable=False),
    UniqueConstraint("dataset_id", "version"),
)

cases = Table(
    "cases",
    metadata,
    # Shared by all versions with the case.
    Column("sha256", String(64), primary_key=True),
    # rag.evaluation.cases.Case as JSON.
    Column("content", JSON, nullable=False),
)

dataset_cases = Table(
    "dataset_cases",
    metadata,
    Column("version_id", ForeignKey("dataset_versions.id"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("case_sha256", ForeignKey("cases.sha256"), nullable=False),
)

candidates = Table(
    "candidates",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("dataset_id", ForeignKey("datasets.id"), nullable=False, index=True),
    Column("case_sha256", ForeignKey("cases.sha256"), nullable=False),
    # "waiting", "accepted" or "rejected"; rejected candidates are not proposed again.
    Column("state", String(10), nullable=False),
    UniqueConstraint("dataset_id", "case_sha256"),
)

evaluation_runs = Table(
    "evaluation_runs",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", Text, nullable=False),
    Column("started", Float, nullable=False, index=True),
    Column("ended", Float),
    Column("status", String(12), nullable=False),
    Column("error", Text, nullable=False),
    Column("dataset", String(120), nullable=False),
    Column("dataset_version", Integer, nullable=False),
    Column("dataset_sha256", String(64), nullable=False),
    # rag.evaluation.run_store.Plan as JSON.
    Column("plan", JSON, nullable=False),
    Column("process", String(60), nullable=False),
    Column("tracked", String(60)),
)

cells = Table(
    "cells",
    metadata,
    Column("run_id", ForeignKey("evaluation_runs.id"), primary_key=True),
    Column("variant", Integer, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("status", String(12), nullable=False),
    Column("answer", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("scores", JSON, nullable=False),
    # The judge's reason.
    Column("rationale", Text, nullable=False),
    Column("passages", JSON, nullable=False),
    Column("trace_id", String(36), nullable=False),
    Column("latency_s", Float),
    Column("input_tokens", Integer),
    Column("output_tokens", Integer),
    Column("cost_usd", Float),
    Column("cached", Integer, nullable=False),
)

answer_cache = Table(
    "answer_cache",
    metadata,
    # Hash of release, index state, question and history.
    Column("key", String(64), primary_key=True),
    Column("created", Float, nullable=False),
    Column("answer", JSON, nullable=False),
)

# Metrics that are watched, with the state of their last check; see rag.alerting.alert_rules.
alerts = Table(
    "alerts",
    metadata,
    Column("name", String(120), primary_key=True),
    Column("metric", String(20), nullable=False),
    Column("alert_at", Float, nullable=False),
    Column("warn_at", Float),
    Column("direction", String(5), nullable=False),
    Column("window_s", Float, nullable=False),
    Column("filter", Text, nullable=False),
    Column("no_data", String(5), nullable=False),
    Column("renotify_s", Float),
    # Names of channels as a JSON list.
    Column("channels", JSON, nullable=False),
    Column("level", String(7), nullable=False),
    Column("since", Float),
    Column("value", Float),
    Column("checked", Float),
    Column("notified", Float),
)

# Notices of alerts for each channel: those that wait, and those of the last days.
alert_notices = Table(
    "alert_notices",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("alert", ForeignKey("alerts.name"), nullable=False, index=True),
    Column("channel", String(10), nullable=False),
    Column("at", Float, nullable=False),
    # rag.alerting.alert_notices.Message as JSON.
    Column("message", JSON, nullable=False),
    Column("attempts", Integer, nullable=False),
    # When to send it; None if it was sent or given up.
    Column("next_at", Float, index=True),
    Column("sent", Float),
    # Why the last attempt failed.
    Column("error", Text, nullable=False),
)
