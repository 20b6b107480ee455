"""What became of the answers that a prompt gave, by its versions, from the traces that name them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from sqlalchemy import ColumnElement, Engine, Row, Select, func, select

from rag.database import reading
from rag.tables import feedback as feedback_table
from rag.tables import traces as traces_table
from rag.tracing.trace_store import Feedback, Trace, TracePage

LATEST = 20_000
"""Traces that are counted, the newest: more take seconds to read, and tell of versions long gone."""

_ANSWERED = ("ok", "abstained")
_LISTED = ("id", "started", "latency_s", "status", "question", "answer", "error", "input_tokens", "output_tokens")
_NAMED = ("cost_usd", "corpus", "model", "prompt", "release")


@dataclass(frozen=True, slots=True)
class VersionUse:
    """What the traces tell of one version.

    Attributes:
        answers: Finished ones, those that say that the documents do not tell among them.
        refused: Of these, how many say so.
        failed: Questions that ended in an error; not among ``answers``.
        latency_s: Median over the answers, in seconds; None without one that is known.
        tokens: Median of tokens read and written together; None where no model said.
        cost_usd: Mean of the costs that are known; None where none is.
        unpriced: Answers whose cost is unknown.
        up, down: Thumbs, on whatever the version gave.
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
        """Refused among the answers, 0 to 1; None without answers."""
        return self.refused / self.answers if self.answers else None


@dataclass(frozen=True, slots=True)
class PromptUse:
    """A prompt's versions that have traces, newest version first.

    Attributes:
        counted: The traces that were read, the newest.
        total: All that name the prompt.
    """

    versions: tuple[VersionUse, ...]
    counted: int
    total: int


def use_of(engine: Engine, name: str, latest: int = LATEST) -> PromptUse:
    """What became of a prompt's answers, version by version.

    Args:
        latest: At most so many traces are read.

    Raises:
        DatabaseError: The database refuses.
    """
    column = traces_table.c
    wanted = column.prompt.startswith(f"{name}@", autoescape=True)
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
        # What is no number is no version: a label never stands in a trace.
        number = row.prompt.partition("@")[2]
        if number.isdecimal():
            grouped.setdefault(int(number), []).append(row)
    return PromptUse(
        tuple(_version(number, grouped[number]) for number in sorted(grouped, reverse=True)), len(rows), total
    )


def traces_of(engine: Engine, label: str, limit: int) -> TracePage:
    """The newest traces of one version, without their spans.

    Args:
        label: ``NAME@VERSION``.
        limit: At most so many.

    Raises:
        DatabaseError: The database refuses.
    """
    column = traces_table.c
    wanted = column.prompt == label
    query: Select[Any] = (
        select(
            *(column[name] for name in (*_LISTED, *_NAMED)),
            feedback_table.c.rating,
            feedback_table.c.comment,
            feedback_table.c.at,
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
    return Trace(
        **{name: getattr(row, name) for name in (*_LISTED, *_NAMED)},
        feedback=Feedback(row.rating, row.comment, row.at) if row.rating else None,
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
        failed=sum(row.status == "error" for row in rows),
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
