"""Alerts as HTML: their levels, and a preview on the history. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING

from rag.alerting.alert_rules import METRICS
from rag.alerting.alert_texts import condition_text, value_text
from rag.tracing.figures import counted
from ui.pages.monitor.cost_view import LEFT
from ui.pages.safe_markup import fragment

if TYPE_CHECKING:
    from rag.alerting.alert_notices import Notice
    from rag.alerting.alert_rules import Alert, Check
    from rag.alerting.alert_store import WatchedAlert
    from ui.app.alerting import Preview

WIDTH, HEIGHT, BASE, TOP = 960, 170, 148, 12
"""Of the chart, in units of its own; the curve lies between TOP and BASE."""
MOST_POINTS = 300
MOST_NOTICES = 50
LABELS = 6


@dataclass(frozen=True, slots=True)
class Row:
    """An alert in the table; ``troubles`` say why its last notices were not sent."""

    name: str
    level: str
    since: str
    value: str
    condition: str
    channels: str
    troubles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """A notice or a stretch of the chart, in its units."""

    level: str
    title: str
    x: float
    width: float = 0.0


@dataclass(frozen=True, slots=True)
class Threshold:
    """A line across the chart."""

    level: str
    label: str
    y: float


def alerts_html(alerts: Sequence[WatchedAlert], troubles: Mapping[str, Sequence[Notice]]) -> str:
    """Render the alerts with the levels of their last checks, the worst first."""
    order = {"alert": 0, "warning": 1, "ok": 2}
    ranked = sorted(alerts, key=lambda watched: order[watched.state.level])
    return fragment(
        "monitor_alerts.html.jinja",
        rows=[_row(watched, troubles.get(watched.alert.name, ())) for watched in ranked],
    )


def preview_html(preview: Preview) -> str:
    """Render what an alert would have done: the curve, its thresholds, and its notices."""
    alert, notices = preview.alert, preview.notices
    unit = METRICS[alert.metric].unit
    place = _places(preview)
    points = list(_points(alert, preview.checks))
    most = max([value for _at, value in points if value is not None] + _limits(alert), default=0.0)
    return fragment(
        "monitor_preview.html.jinja",
        condition=condition_text(alert),
        count=counted(len(notices), "notice"),
        most=value_text(most, unit),
        pieces=_pieces(points, place, most),
        thresholds=_thresholds(alert, most),
        bands=list(_bands(preview, place)),
        marks=[Mark(check.state.level, _notice_text(check, alert), place(check.at)) for check in notices],
        labels=list(_labels(preview, place)),
        rows=[_notice_row(check, alert) for check in notices[:MOST_NOTICES]],
        more=max(len(notices) - MOST_NOTICES, 0),
        has_data=any(value is not None for _at, value in points),
        width=WIDTH,
        height=HEIGHT,
        base=BASE,
        top=TOP,
        left=LEFT,
    )


def _row(watched: WatchedAlert, troubles: Sequence[Notice]) -> Row:
    alert, state = watched.alert, watched.state
    checked = state.checked is not None
    return Row(
        alert.name,
        state.level if checked else "not checked",
        _moment(state.since) if state.since is not None else "",
        value_text(state.value, METRICS[alert.metric].unit) if checked else "",
        condition_text(alert),
        ", ".join(alert.channels) or "none",
        tuple(_trouble(notice) for notice in troubles),
    )


def _trouble(notice: Notice) -> str:
    again = "given up" if notice.next_at is None else f"next attempt at {_moment(notice.next_at)}"
    return f"{notice.channel}: {notice.error} ({counted(notice.attempts, 'attempt')}, {again})"


def _places(preview: Preview) -> Callable[[float], float]:
    length = max(preview.until - preview.since, 1.0)
    return lambda at: LEFT + (WIDTH - LEFT) * min(max((at - preview.since) / length, 0.0), 1.0)


def _limits(alert: Alert) -> list[float]:
    return [alert.alert_at] + ([] if alert.warn_at is None else [alert.warn_at])


def _points(alert: Alert, checks: Sequence[Check]) -> Iterator[tuple[float, float | None]]:
    """Yield times and values, the worst of the checks that share a place, so that no peak is lost."""
    size = max(-(-len(checks) // MOST_POINTS), 1)
    worst = max if alert.direction == "above" else min
    for start in range(0, len(checks), size):
        some = checks[start : start + size]
        known = [check.state.value for check in some if check.state.value is not None]
        yield some[len(some) // 2].at, worst(known) if known else None


def _height(value: float, most: float) -> float:
    return BASE - (BASE - TOP) * value / most if most else float(BASE)


def _pieces(
    points: Sequence[tuple[float, float | None]], place: Callable[[float], float], most: float
) -> tuple[str, ...]:
    pieces = []
    for known, some in groupby(points, key=lambda point: point[1] is not None):
        if known:
            pieces.append(" ".join(f"{place(at):.1f},{_height(value or 0.0, most):.1f}" for at, value in some))
    return tuple(pieces)


def _thresholds(alert: Alert, most: float) -> tuple[Threshold, ...]:
    unit = METRICS[alert.metric].unit
    found = (("alert", alert.alert_at), ("warning", alert.warn_at))
    return tuple(
        Threshold(level, f"{level} {value_text(limit, unit)}", _height(limit, most))
        for level, limit in found
        if limit is not None
    )


def _bands(preview: Preview, place: Callable[[float], float]) -> Iterator[Mark]:
    """Yield the stretches in which the level was bad."""
    at = 0
    for level, some in groupby(preview.checks, key=lambda check: check.state.level):
        checks = list(some)
        at += len(checks)
        if level != "ok":
            end = preview.checks[at].at if at < len(preview.checks) else preview.until
            start = place(checks[0].at)
            title = f"{level} from {_moment(checks[0].at)} to {_moment(end)}"
            yield Mark(level, title, start, max(place(end) - start, 1.0))


def _labels(preview: Preview, place: Callable[[float], float]) -> Iterator[tuple[float, str]]:
    length = preview.until - preview.since
    form = "%H:%M" if length <= 2 * 86_400 else "%-d %b"
    for number in range(LABELS):
        at = preview.since + length * (number + 0.5) / LABELS
        yield place(at), datetime.fromtimestamp(at).astimezone().strftime(form)


def _notice_text(check: Check, alert: Alert) -> str:
    return ", ".join(_notice_row(check, alert))


def _notice_row(check: Check, alert: Alert) -> tuple[str, str, str, str]:
    value = value_text(check.state.value, METRICS[alert.metric].unit)
    kind = "reminder" if check.event == "reminder" else f"before: {check.before}"
    return (_moment(check.at), check.state.level, value, kind)


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M")
