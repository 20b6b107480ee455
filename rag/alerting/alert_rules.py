"""The rules of alerts: what one watches, and when its level changes. Pure: no database and no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "alert"]
Direction = Literal["above", "below"]
NoData = Literal["ok", "keep", "alert"]
ChannelName = Literal["wandb", "webhook", "email", "command"]
Event = Literal["changed", "reminder", "test"]
Unit = Literal["count", "seconds", "dollars", "share"]

MINUTE_S, DAY_S = 60.0, 86_400.0
SHORTEST_S, LONGEST_S = MINUTE_S, 7 * DAY_S
"""Limits of a window, and of the time between two reminders."""
_CHECKS_A_WINDOW = 12
_LONGEST_STEP_S = 15 * MINUTE_S


@dataclass(frozen=True, slots=True)
class Metric:
    """What an alert can watch.

    Attributes:
        title: What it is, for tables and messages.
        percentile: The share of the times that do not exceed the value; None for a metric that is no percentile.
        is_sum: Whether it adds up, instead of being a mean or a percentile.
    """

    name: str
    title: str
    unit: Unit
    percentile: float | None = None
    is_sum: bool = False


_ALL = (
    Metric("requests", "questions", "count", is_sum=True),
    Metric("p50", "p50 answer time", "seconds", 0.5),
    Metric("p95", "p95 answer time", "seconds", 0.95),
    Metric("p99", "p99 answer time", "seconds", 0.99),
    Metric("first_token", "p95 time to the first token", "seconds", 0.95),
    Metric("cost", "known cost of answers", "dollars", is_sum=True),
    Metric("tokens", "tokens read and written", "count", is_sum=True),
    Metric("errors", "share of failed answers", "share"),
    Metric("abstained", "share of refused answers", "share"),
    Metric("thumbs_down", "share of thumbs down among the thumbs", "share"),
    Metric("support", "mean support by the sources", "share"),
)
METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _ALL}


@dataclass(frozen=True, slots=True)
class Alert:
    """A metric that is watched.

    Attributes:
        metric: A name in ``METRICS``.
        alert_at: The threshold of the level ``alert``, in the metric's unit; a share is 0 to 1.
        warn_at: That of ``warning``; None without one.
        direction: The side of a threshold that is bad; the threshold itself is good.
        window_s: Seconds back from a check whose answers and thumbs count.
        filter: Which answers count, in the filter language of traces.
        no_data: The level without any: ``ok``, that of before (``keep``), or ``alert``.
        renotify_s: Seconds after which a level that stays bad is notified again; None for once.
        channels: Where notices go.
    """

    name: str
    metric: str
    alert_at: float
    warn_at: float | None = None
    direction: Direction = "above"
    window_s: float = 60 * MINUTE_S
    filter: str = ""
    no_data: NoData = "ok"
    renotify_s: float | None = None
    channels: tuple[ChannelName, ...] = ()

    @property
    def step_s(self) -> float:
        """Seconds between two checks: a twelfth of the window in whole minutes, 1 to 15."""
        step = self.window_s / _CHECKS_A_WINDOW // MINUTE_S * MINUTE_S
        return min(max(step, MINUTE_S), _LONGEST_STEP_S)

    def level_of(self, value: float | None, before: Level) -> Level:
        """Return the level of a value; None is no data."""
        if value is None:
            return before if self.no_data == "keep" else self.no_data
        if self._is_bad(value, self.alert_at):
            return "alert"
        return "warning" if self.warn_at is not None and self._is_bad(value, self.warn_at) else "ok"

    def _is_bad(self, value: float, threshold: float) -> bool:
        return value > threshold if self.direction == "above" else value < threshold


@dataclass(frozen=True, slots=True)
class State:
    """What is known of an alert between two checks; times in seconds since the epoch.

    Attributes:
        since: When the level began; None before the first check.
        value: That of the last check; None without data.
        checked: The time of the last check.
        notified: The time of the last notice.
    """

    level: Level = "ok"
    since: float | None = None
    value: float | None = None
    checked: float | None = None
    notified: float | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of a check.

    Attributes:
        before: The level before it.
        state: The state after it.
        event: Why a notice is due; None if none is.
    """

    at: float
    before: Level
    state: State
    event: Event | None = None


def advance(alert: Alert, state: State, value: float | None, at: float) -> Check:
    """Return what a check at a time makes of a state; a time that was checked before changes nothing.

    A notice is due when the level changes, also back to ``ok``, and after ``renotify_s`` while it stays bad.
    """
    if state.checked is not None and at <= state.checked:
        return Check(at, state.level, state)
    level = alert.level_of(value, state.level)
    event: Event | None = None
    if level != state.level:
        event = "changed"
    elif level != "ok" and _is_due(alert, state, at):
        event = "reminder"
    since = at if level != state.level or state.since is None else state.since
    notified = state.notified if event is None else at
    return Check(at, state.level, State(level, since, value, at, notified), event)


def _is_due(alert: Alert, state: State, at: float) -> bool:
    return alert.renotify_s is not None and state.notified is not None and at - state.notified >= alert.renotify_s
