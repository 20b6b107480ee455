"""Figures of traces over time, for the charts above a list and for its chips.

Latencies are counted in SQL by their first two digits, which is as much as a chart shows, and the quantiles are
read from these counts. So a chart of a million traces reads some thousand rows.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Integer, and_, case, cast, func, literal_column, select

from rag.database import reading
from rag.trace_tables import traces as traces_table
from rag.tracing.trace_query import TraceQuery, conditions

MOST_BUCKETS = 60
TAIL = 0.05
"""Share of the traces that count as slow, or as costly."""

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_STEPS = (
    *(1, 2, 5, 10, 15, 30),
    *(_MINUTE * count for count in (1, 2, 5, 10, 15, 30)),
    *(_HOUR * count for count in (1, 2, 3, 6, 12)),
    *(_DAY * count for count in (1, 2, 7, 14, 28)),
)

_row = traces_table.c

# A range of latencies: its end, the length of a cell in it, and the number of its first cell.
_SCALES: tuple[tuple[float, float, int], ...] = ((0.1, 0.001, 0), (1, 0.01, 1_000), (10, 0.1, 2_000))
_COARSE = 10_000
_LONGEST_S = 1e6


@dataclass(frozen=True, slots=True)
class Bucket:
    """The traces that started in one stretch of time.

    Attributes:
        start: Seconds since the epoch.
        p50_s, p95_s: Quantiles of the latency to two digits, in seconds; None without a finished trace.
        cost_usd: Sum of the known costs.
        unpriced: Traces of unknown cost.
    """

    start: float
    count: int = 0
    errors: int = 0
    p50_s: float | None = None
    p95_s: float | None = None
    cost_usd: float = 0.0
    unpriced: int = 0


@dataclass(frozen=True, slots=True)
class Series:
    """Buckets of equal length in order of time, also empty ones.

    Attributes:
        width: Seconds of a bucket.
    """

    width: float
    buckets: tuple[Bucket, ...] = ()


@dataclass(frozen=True, slots=True)
class Tails:
    """The latency in seconds and the cost in dollars that one in twenty traces exceeds; None without any."""

    latency_s: float | None
    cost_usd: float | None


class TraceSeries:
    """Reads figures of traces over time. Every method may raise DatabaseError and FilterError."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def series(self, query: TraceQuery, most: int = MOST_BUCKETS) -> Series:
        """Return the figures of the traces that a query shows, in at most ``most`` buckets."""
        with reading(self._engine) as connection:
            kept = conditions(query, connection)
            ends = _ends(connection, query, kept)
            if ends is None:
                return Series(1.0)
            first, width, count = buckets_between(*ends, most)
            counted = _counted(connection, kept, first, width)
        buckets = (_bucket(first + number * width, counted.get(number)) for number in range(count))
        return Series(width, tuple(buckets))

    def tails(self, query: TraceQuery) -> Tails:
        """Return what is slow and what is costly in the range of a query, whatever its filter."""
        with reading(self._engine) as connection:
            kept = conditions(TraceQuery(since=query.since, until=query.until), connection)
            return Tails(_tail(connection, _row.latency_s, kept), _tail(connection, _row.cost_usd, kept))


def buckets_between(since: float, until: float, most: int = MOST_BUCKETS) -> tuple[float, float, int]:
    """Return the start of the first bucket, the seconds of each, and their number.

    Lengths are round, and buckets begin at round times of the time zone of this machine.
    """
    midnight = datetime.fromtimestamp(since).replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
    width = float(next((step for step in _STEPS if (until - since) / step <= most - 1), 0))
    if not width:
        width = float(math.ceil((until - since) / (most - 1) / _DAY) * _DAY)
    first = midnight + (since - midnight) // width * width
    return first, width, max(math.ceil((until - first) / width), 1)


def _ends(
    connection: Connection, query: TraceQuery, kept: Sequence[ColumnElement[bool]]
) -> tuple[float, float] | None:
    """Return the range of a query; where it is open, up to the outermost trace."""
    found = select(_row.started).where(*kept)
    oldest = connection.scalar(found.order_by(_row.started.asc()).limit(1))
    newest = connection.scalar(found.order_by(_row.started.desc()).limit(1))
    if oldest is None or newest is None:
        return None
    since = oldest if query.since is None else query.since
    until = newest + 0.001 if query.until is None else min(query.until, max(time.time(), newest + 0.001))
    return since, max(until, since + 1)


@dataclass(slots=True)
class _Counted:
    count: int = 0
    errors: int = 0
    cost: float = 0.0
    priced: int = 0
    cells: Counter[int] = field(default_factory=Counter)


def _counted(
    connection: Connection, kept: Sequence[ColumnElement[bool]], first: float, width: float
) -> Mapping[int, _Counted]:
    """Count the traces by bucket and by cell of their latency."""
    bucket = _floor((_row.started - first) / width).label("bucket")
    failed = func.sum(case((_row.status == "error", 1), else_=0))
    found = (
        select(
            bucket, _cell().label("cell"), func.count(), failed, func.sum(_row.cost_usd), func.count(_row.cost_usd)
        )
        .where(*kept)
        .group_by(literal_column("bucket"), literal_column("cell"))
    )
    counted: dict[int, _Counted] = {}
    for number, cell, count, errors, cost, priced in connection.execute(found):
        one = counted.setdefault(number, _Counted())
        one.count += count
        one.errors += errors
        one.cost += cost or 0.0
        one.priced += priced
        if cell is not None:
            one.cells[cell] += count
    return counted


def _cell() -> ColumnElement[int]:
    """Return the number of the cell of a latency; unknown without one."""
    latency = _row.latency_s
    scales = [(latency < end, _floor(latency / size) + offset) for end, size, offset in _SCALES]
    long = case((latency < _LONGEST_S, latency), else_=_LONGEST_S)
    return case((latency.is_(None), None), *scales, else_=_floor(long) + _COARSE)


def _floor(value: ColumnElement[Any]) -> ColumnElement[int]:
    # A cast cuts off in SQLite and rounds in PostgreSQL, and not every SQLite has a floor function.
    near = cast(value, Integer)
    return case((near > value, near - 1), else_=near)


def _seconds(cell: int) -> float:
    """Return the middle of a cell."""
    for _end, size, offset in reversed(_SCALES):
        if offset <= cell < _COARSE:
            return (cell - offset + 0.5) * size
    return cell - _COARSE + 0.5


def _bucket(start: float, counted: _Counted | None) -> Bucket:
    if counted is None:
        return Bucket(start)
    return Bucket(
        start,
        counted.count,
        counted.errors,
        _quantile(counted.cells, 0.5),
        _quantile(counted.cells, 0.95),
        counted.cost,
        counted.count - counted.priced,
    )


def _quantile(cells: Mapping[int, int], share: float) -> float | None:
    left = math.ceil(sum(cells.values()) * share)
    for cell in sorted(cells):
        left -= cells[cell]
        if left <= 0:
            return _seconds(cell)
    return None


def _tail(
    connection: Connection, column: ColumnElement[float], kept: Sequence[ColumnElement[bool]]
) -> float | None:
    known = and_(*kept, column.is_not(None))
    count = connection.scalar(select(func.count()).select_from(traces_table).where(known)) or 0
    largest = select(column).where(known).order_by(column.desc())
    return connection.scalar(largest.offset(int(count * TAIL)).limit(1))
