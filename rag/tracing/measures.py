"""Counts of answers by hour: how they ended, how long each step took, their support, and their thumbs.

Times are counted in buckets that grow by 15 %, so that a percentile of any time span is known to 7.5 % without
reading a trace. Like the ledger, they are written in the transaction that ends a trace, and outlive it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from sqlalchemy import Connection, Engine, func, select

from rag.database import insert_or_add, reading
from rag.trace_tables import measures as table
from rag.tracing.ledger import TIMES, Grouping, hour_of, time_label
from rag.tracing.trace_types import Status
from rag.types import STEPS

if TYPE_CHECKING:
    from rag.tracing.trace_types import Trace

LATENCY, FIRST_TOKEN = "latency", "first token"
# The number of answers with a support by their sources, and the sum of these in percent.
SUPPORTED, SUPPORT_SUM = "supported", "support sum"
# Names with a part behind the slash.
STATUS, STEP, THUMB = "status/", "step/", "thumb/"
_STEPS = tuple(STEP + name for name in STEPS)
_OTHERS = (
    *(LATENCY, FIRST_TOKEN, SUPPORTED, SUPPORT_SUM, f"{THUMB}up", f"{THUMB}down"),
    *(STATUS + name for name in get_args(Status)),
)

_GROWTH = 1.15
_SHORTEST_S = 0.001
_KEY = ("name", "hour", "purpose", "release", "prompt", "bucket")

Key = tuple[str, float, str, str, str, int]


@dataclass(frozen=True, slots=True)
class Measured:
    """The counts of a group: how often each bucket of each name was counted."""

    counts: Mapping[str, Mapping[int, int]]

    def number(self, name: str) -> int:
        """Return how often a name was counted."""
        return sum(self.counts.get(name, {}).values())

    @property
    def answers(self) -> int:
        """The number of questions, however they ended."""
        return sum(self.number(name) for name in self.counts if name.startswith(STATUS))

    def share(self, status: str) -> float | None:
        """Return the share of questions that ended so, 0 to 1; None without questions."""
        return self.number(STATUS + status) / self.answers if self.answers else None

    def percentile(self, name: str, share: float) -> float | None:
        """Return the seconds that this share of the times does not exceed, to 7.5 %; None without times."""
        buckets = self.counts.get(name, {})
        left = share * sum(buckets.values())
        for bucket in sorted(buckets):
            left -= buckets[bucket]
            if buckets[bucket] and left <= 1e-9:
                return float(_SHORTEST_S * _GROWTH ** (bucket - 0.5))
        return None

    @property
    def support(self) -> float | None:
        """The mean support of answers by their sources, 0 to 1; None without answers that have one."""
        number = self.number(SUPPORTED)
        return self.number(SUPPORT_SUM) / number / 100 if number else None


class Measures:
    """Reads the counts. Every method may raise DatabaseError."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def total(self, since: float, without: Iterable[str] = (), until: float | None = None) -> Measured:
        """Return all counts of a time.

        Args:
            since: Seconds since the epoch; its whole hour counts.
            without: Purposes that are left out.
            until: The end, which is excluded; hours that start before it count. None for now.
        """
        return self._groups(None, (*_OTHERS, *_STEPS), since, without, until).get("", Measured({}))

    def groups(self, by: Grouping, since: float, without: Iterable[str] = ()) -> dict[str, Measured]:
        """Return the counts by group, without those of the steps; see ``total``.

        Args:
            by: ``hour``, ``day``, ``release``, ``prompt`` or ``purpose``.
        """
        return self._by_day(since, without) if by == "day" else self._groups(by, _OTHERS, since, without)

    def _by_day(self, since: float, without: Iterable[str]) -> dict[str, Measured]:
        """Sum one day after the other in the database: a month by hour would be over a hundred thousand rows."""
        # Whatever is counted of a trace is counted in the hour of its status.
        statuses = [name for name in _OTHERS if name.startswith(STATUS)]
        query = select(table.c.hour).distinct().where(table.c.name.in_(statuses), table.c.hour >= hour_of(since))
        with reading(self._engine) as connection:
            hours = sorted(connection.scalars(query))
        # The newest day first; of the hours of a day, the earliest one stays.
        days = {time_label(hour, "day"): hour for hour in reversed(hours)}
        found: dict[str, Measured] = {}
        until: float | None = None
        for day, hour in days.items():
            counts = self._groups(None, _OTHERS, hour, without, until).get("")
            found |= {day: counts} if counts else {}
            until = hour
        return found

    def _groups(
        self,
        by: Grouping | None,
        names: Sequence[str],
        since: float,
        without: Iterable[str],
        until: float | None = None,
    ) -> dict[str, Measured]:
        group = [] if by is None else [table.c["hour" if by in TIMES else by]]
        query = (
            select(table.c.name, table.c.bucket, func.sum(table.c["count"]), *group)
            # The key begins with both.
            .where(table.c.name.in_(names), table.c.hour >= hour_of(since))
            .where(table.c.purpose.not_in(list(without)))
            .group_by(table.c.name, table.c.bucket, *group)
        )
        if until is not None:
            query = query.where(table.c.hour < until)
        counts: dict[str, dict[str, Counter[int]]] = {}
        with reading(self._engine) as connection:
            for name, bucket, count, *of in connection.execute(query):
                label = "" if by is None else time_label(of[0], by) if by in TIMES else str(of[0])
                counts.setdefault(label, {}).setdefault(name, Counter())[bucket] += int(count)
        return {label: Measured(found) for label, found in counts.items()}


def count_measures(connection: Connection, keys: Iterable[Key], times: int = 1) -> None:
    """Add to the counts, in the transaction of ``connection``; ``times`` is -1 to take back."""
    rows = [
        dict(zip(_KEY, key, strict=True)) | {"count": times * count}
        # In the same order in every process, so that none waits for a row of another that waits for one of its.
        for key, count in sorted(Counter(keys).items())
    ]
    insert_or_add(connection, table, rows, ("count",))


def measures_of(trace: Trace) -> Iterator[Key]:
    """Yield what a finished trace adds to the counts."""
    yield measure_key(trace, STATUS + trace.status)
    if trace.latency_s is not None:
        yield measure_key(trace, LATENCY, bucket_of(trace.latency_s))
    if trace.first_token_s is not None:
        yield measure_key(trace, FIRST_TOKEN, bucket_of(trace.first_token_s))
    for span in trace.spans:
        if span.name in STEPS and span.ended is not None:
            yield measure_key(trace, STEP + span.name, bucket_of(span.ended - span.started))
    root = next((span.output for span in trace.spans if span.parent_id is None), None)
    support = root.get("support") if isinstance(root, dict) else None
    if isinstance(support, int | float) and 0 <= support <= 1:
        yield measure_key(trace, SUPPORTED)
        yield from [measure_key(trace, SUPPORT_SUM)] * round(100 * support)


def measure_key(trace: Trace, name: str, bucket: int = 0) -> Key:
    """Return the key of a count of a trace."""
    return (name, hour_of(trace.started), trace.purpose, trace.release[:12], trace.prompt[:200], bucket)


def bucket_of(seconds: float) -> int:
    """Return the bucket of a time: 0 up to a millisecond, then each 15 % longer than the one before."""
    return max(math.ceil(math.log(seconds / _SHORTEST_S, _GROWTH)), 0) if seconds > _SHORTEST_S else 0
