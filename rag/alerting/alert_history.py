"""The checks of an alert over a history: one for the evaluation, many for a preview, by the same function."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rag.alerting.alert_rules import METRICS, Alert, Check, Metric, State, advance

SCALE = 1_000_000_000
"""Parts of a second, a dollar or a share in which amounts are counted: whole numbers add up without rounding."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one answer or thumb adds to a metric.

    Attributes:
        at: When the answer ended, or the thumb was given, in seconds since the epoch.
        amount: The seconds, dollars, tokens or share, times ``SCALE``.
    """

    at: float
    amount: int


def replay(alert: Alert, state: State, samples: Sequence[Sample], moments: Sequence[float]) -> Iterator[Check]:
    """Yield the checks of an alert at the given times.

    Args:
        alert: The alert.
        state: What was known before the first check.
        samples: In order of time; those outside of the windows do not count.
        moments: Times of the checks, ascending.
    """
    window = _Window(METRICS[alert.metric])
    first = end = 0
    for at in moments:
        while end < len(samples) and samples[end].at < at:
            window.add(samples[end].amount)
            end += 1
        while first < end and samples[first].at < at - alert.window_s:
            window.remove(samples[first].amount)
            first += 1
        check = advance(alert, state, window.value, at)
        state = check.state
        yield check


def last_moment(alert: Alert, now: float) -> float:
    """Return the last time up to ``now`` at which a server checks an alert: a multiple of its step."""
    return now // alert.step_s * alert.step_s


def moments_between(alert: Alert, since: float, until: float) -> list[float]:
    """Return the times at which a server that always runs checks an alert, up to ``until``."""
    first, last = math.ceil(since / alert.step_s), math.floor(until / alert.step_s)
    return [number * alert.step_s for number in range(first, last + 1)]


class _Window:
    """The amounts of a window that moves."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._count = self._sum = 0
        self._sorted: list[int] = []

    def add(self, amount: int) -> None:
        """Add an amount."""
        self._count += 1
        self._sum += amount
        if self._metric.percentile is not None:
            insort(self._sorted, amount)

    def remove(self, amount: int) -> None:
        """Remove an amount that was added."""
        self._count -= 1
        self._sum -= amount
        if self._metric.percentile is not None:
            del self._sorted[bisect_left(self._sorted, amount)]

    @property
    def value(self) -> float | None:
        """The value of the metric; None without data. Without answers there are no requests, which is a value."""
        if not self._count:
            return 0.0 if self._metric.name == "requests" else None
        if self._metric.percentile is not None:
            return self._sorted[math.ceil(self._metric.percentile * self._count) - 1] / SCALE
        return self._sum / SCALE / (1 if self._metric.is_sum else self._count)
