"""Statistics of a prompt's answers by version, from their traces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from sqlalchemy import ColumnElement, Engine, Row, Select, and_, func, select

from prompts.draft import MARK
from rag.database import reading
from rag.trace_tables import feedback as feedback_table
from rag.trace_tables import traces as traces_table
from rag.tracing.trace_rows import FEEDBACK, feedback_of_row
from rag.tracing.trace_store import Trace, TracePage
from rag.types import current_model

LATEST = 20_000
"""Maximum traces to read; more take seconds, and belong to outdated versions."""

_ANSWERED = ("ok", "abstained")
_LISTED = ("id", "started", "latency_s", "status", "question", "answer", "error", "input_tokens", "output_tokens")
_NAMED = ("cost_usd", "corpus", "model", "prompt", "release")


@dataclass(frozen=True, slots=True)
class VersionUse:
    """Statistics of one version.

    Attributes:
        answers: Finished answers, including refusals.
        refused: Refusals.
        failed: Questions that ended in an error, or whose answer a filter withheld; not part of ``answers``.
        latency_s: Median latency of the answers in seconds; None if unknown.
        tokens: Median sum of tokens read and written; None if unknown.
        cost_usd: Mean of the known costs; None without any.
        unpriced: Answers with unknown cost.
        up, down: Ratings of all traces.
    """

    version: int
    answers: int = 0
    refused: int = 0
    failed: int = 0
    latency_s: float | None = None
    tokens: float | None = None
    cost_usd: float | None = None
    unpriced: int = 0
    up: int = 0
    down: int = 0

    @property
    def refused_share(self) -> float | None:
        """Share of refusals among the answers, 0 to 1; None without answers."""
        return self.refused / self.answers if self.answers else None


@dataclass(frozen=True, slots=True)
class PromptUse:
    """Statistics of all versions with traces, newest version first.

    Attributes:
        counted: Number of traces read, newest first.
        total: Number of all traces of the prompt.
    """

    versions: tuple[VersionUse, ...]
    counted: int
    total: int


def use_of(engine: Engine, name: str, latest: int = LATEST) -> PromptUse:
    """Compute the statistics of a prompt by version.

    Args:
        engine: The database.
        name: Name of the prompt.
        latest: Maximum traces to read.

    Raises:
        DatabaseError: The database refuses.
    """
    column = traces_table.c
    # Traces name versions, never labels, or unsaved drafts, which are no versions.
    wanted = and_(
        column.prompt.startswith(f"{name}@", autoescape=True),
        column.prompt.not_like(f"%@{MARK}%"),
    )
    query: Select[Any] = (
        select(
            column.prompt,
            column.status,
            column.latency_s,
            column.input_tokens,
            column.output_tokens,
            column.cost_usd,
            feedback_table.c.rating,
        )
        .join(feedback_table, feedback_table.c.trace_id == column.id, isouter=True)
        .where(wanted)
        .order_by(column.started.desc())
        .limit(latest)
    )
    with reading(engine) as connection:
        rows = connection.execute(query).all()
        total = _count(connection, wanted) if len(rows) == latest else len(rows)
    grouped: dict[int, list[Row[Any]]] = {}
    for row in rows:
        number = row.prompt.partition("@")[2]
        if number.isdecimal():
            grouped.setdefault(int(number), []).append(row)
    return PromptUse(
        tuple(_version(number, grouped[number]) for number in sorted(grouped, reverse=True)), len(rows), total
    )


def traces_of(engine: Engine, label: str, limit: int) -> TracePage:
    """Return the newest traces of one version, without their spans.

    Args:
        engine: The database.
        label: ``NAME@VERSION``.
        limit: Maximum number of traces.

    Raises:
        DatabaseError: The database refuses.
    """
    column = traces_table.c
    wanted = column.prompt == label
    query: Select[Any] = (
        select(
            *(column[name] for name in (*_LISTED, *_NAMED)),
            *(feedback_table.c[one] for one in FEEDBACK),
        )
        .join(feedback_table, feedback_table.c.trace_id == column.id, isouter=True)
        .where(wanted)
        .order_by(column.started.desc(), column.id.desc())
        .limit(limit)
    )
    with reading(engine) as connection:
        rows = connection.execute(query).all()
        total = _count(connection, wanted)
    return TracePage(tuple(_trace(row) for row in rows), total)


def _count(connection: Any, wanted: ColumnElement[bool]) -> int:
    return int(connection.scalar(select(func.count()).select_from(traces_table).where(wanted)) or 0)


def _trace(row: Row[Any]) -> Trace:
    values = {name: getattr(row, name) for name in (*_LISTED, *_NAMED)}
    return Trace(
        **values | {"model": current_model(row.model)},
        feedback=feedback_of_row(row),
    )


def _version(number: int, rows: Sequence[Row[Any]]) -> VersionUse:
    answers = [row for row in rows if row.status in _ANSWERED]
    latencies = [row.latency_s for row in answers if row.latency_s is not None]
    tokens = list(_tokens(answers))
    costs = [row.cost_usd for row in answers if row.cost_usd is not None]
    return VersionUse(
        version=number,
        answers=len(answers),
        refused=sum(row.status == "abstained" for row in answers),
        failed=sum(row.status in ("error", "filtered") for row in rows),
        latency_s=median(latencies) if latencies else None,
        tokens=median(tokens) if tokens else None,
        cost_usd=fmean(costs) if costs else None,
        unpriced=len(answers) - len(costs),
        up=sum(row.rating == "up" for row in rows),
        down=sum(row.rating == "down" for row in rows),
    )


def _tokens(rows: Sequence[Row[Any]]) -> Iterator[int]:
    for row in rows:
        known = [count for count in (row.input_tokens, row.output_tokens) if count is not None]
        if known:
            yield sum(known)
