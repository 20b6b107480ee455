"""Alerts as people write and read them: ``2s``, ``5%``, ``$1`` and ``1h`` in forms, options and notices."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, get_args

from rag.alerting.alert_rules import (
    LONGEST_S,
    METRICS,
    SHORTEST_S,
    Alert,
    ChannelName,
    Direction,
    Level,
    Metric,
    NoData,
    Unit,
)
from rag.errors import AlertError, FilterSyntaxError
from rag.tracing.figures import format_cost, format_seconds
from rag.tracing.filter_fields import FIELDS, read_value
from rag.tracing.trace_filter import fields_in, parse_filter

LONGEST_NAME = 120
CHANNELS: tuple[ChannelName, ...] = get_args(ChannelName)
# Fields whose values change with time: a check of the past would find other answers than a check at that time.
_UNSTABLE = frozenset({"started", "feedback", "comment"})
_FIELDS = {"count": "tokens", "seconds": "latency", "dollars": "cost"}
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)\s*%|(0(?:\.\d{1,8})?|1(?:\.0+)?|\.\d{1,8})")
_LENGTHS = ((86_400, "d"), (3_600, "h"), (60, "min"))


@dataclass(frozen=True, slots=True)
class AlertTexts:
    """An alert as it was typed; empty texts are left out, and have the defaults of ``Alert``."""

    name: str
    metric: str
    alert_at: str
    warn_at: str = ""
    direction: str = "above"
    window: str = "1h"
    filter: str = ""
    no_data: str = "ok"
    renotify: str = ""
    channels: tuple[str, ...] = ()


def read_alert(texts: AlertTexts) -> Alert:
    """Read an alert.

    Raises:
        AlertError: A value is missing, not understood or out of range.
    """
    name = " ".join(texts.name.split())
    if not 0 < len(name) <= LONGEST_NAME:
        raise AlertError(f"The name of an alert must have 1 to {LONGEST_NAME} characters.", fix="Choose another.")
    if not name.isprintable():
        raise AlertError(
            "The name of an alert cannot have control characters or other invisible ones.", fix="Choose another."
        )
    metric = METRICS[_choice("metric", texts.metric, tuple(METRICS))]
    direction: Direction = _choice("direction", texts.direction, get_args(Direction))
    no_data: NoData = _choice("level without data", texts.no_data, get_args(NoData))
    alert_at = _threshold("threshold of the alert", texts.alert_at, metric)
    warn_at = _threshold("threshold of the warning", texts.warn_at, metric) if texts.warn_at.strip() else None
    if warn_at is not None and (warn_at >= alert_at if direction == "above" else warn_at <= alert_at):
        side = "below" if direction == "above" else "above"
        raise AlertError(
            f"The threshold of the warning must be {side} that of the alert, whose bad side is {direction} it.",
            fix="Swap the thresholds, or change the direction.",
        )
    return Alert(
        name,
        metric.name,
        alert_at,
        warn_at,
        direction,
        _length("window", texts.window),
        _filter(texts.filter),
        no_data,
        _length("time between reminders", texts.renotify) if texts.renotify.strip() else None,
        tuple(dict.fromkeys(_choice("channel", channel, CHANNELS) for channel in texts.channels)),
    )


def texts_of(alert: Alert) -> AlertTexts:
    """Return the texts of an alert, which ``read_alert`` reads as the same one."""
    unit = METRICS[alert.metric].unit
    return AlertTexts(
        alert.name,
        alert.metric,
        _typed(alert.alert_at, unit),
        "" if alert.warn_at is None else _typed(alert.warn_at, unit),
        alert.direction,
        length_text(alert.window_s),
        alert.filter,
        alert.no_data,
        "" if alert.renotify_s is None else length_text(alert.renotify_s),
        alert.channels,
    )


def value_text(value: float | None, unit: Unit) -> str:
    """Format a value of a metric; ``no data`` for None."""
    if value is None:
        return "no data"
    if unit == "seconds":
        return format_seconds(value)
    if unit == "dollars":
        return format_cost(value, exact=True)
    return f"{100 * value:.3g} %" if unit == "share" else f"{value:,.2f}".removesuffix(".00")


def length_text(seconds: float) -> str:
    """Format a window or a time between reminders, such as ``15min``."""
    size, name = next(((size, name) for size, name in _LENGTHS if seconds % size == 0), (1, "s"))
    return f"{seconds / size:g}{name}"


def condition_text(alert: Alert) -> str:
    """Return what an alert watches, such as ``p95 answer time above 2.0 s (warning) and 5.0 s (alert) in 1h``."""
    metric = METRICS[alert.metric]
    only = f", only {alert.filter}" if alert.filter else ""
    limit = value_text(alert.alert_at, metric.unit)
    if alert.warn_at is not None:
        limit = f"{value_text(alert.warn_at, metric.unit)} (warning) and {limit} (alert)"
    return f"{metric.title} {alert.direction} {limit} in {length_text(alert.window_s)}{only}"


def finding_text(alert: Alert, value: float | None, level: Level) -> str:
    """Return in one sentence what a check has found."""
    metric = METRICS[alert.metric]
    within = f"in the last {length_text(alert.window_s)}"
    if value is None:
        return f"There was no data for the {metric.title} {within}."
    threshold = alert.warn_at if level == "warning" else alert.alert_at
    beyond = (
        "" if level == "ok" or threshold is None else f", {alert.direction} {value_text(threshold, metric.unit)}"
    )
    return f"The {metric.title} was {value_text(value, metric.unit)} {within}{beyond}."


def _choice(what: str, text: str, choices: tuple[str, ...]) -> Any:
    lower = text.strip().lower().replace("-", "_")
    if lower not in choices:
        raise AlertError(
            f"The {what} of an alert cannot be {text.strip()[:40]!r}.", fix=f"Use {', '.join(choices)}."
        )
    return lower


def _threshold(what: str, text: str, metric: Metric) -> float:
    try:
        if metric.unit == "share":
            return _share(text)
        value = read_value(FIELDS[_FIELDS[metric.unit]], text)
    except ValueError as error:
        reason = str(error).removesuffix(", or unknown")
        raise AlertError(f"The {what} {reason}, and not {text.strip()[:40]!r}.", fix="Correct it.") from error
    if not isinstance(value, float):
        raise AlertError(f"The {what} must be a number, and not {text.strip()[:40]!r}.", fix="Correct it.")
    return value


def _share(text: str) -> float:
    found = _SHARE.fullmatch(text.strip())
    if found is None or (found[1] and float(found[1]) > 100):
        raise ValueError("must be a share such as 5% or 0.05")
    return float(found[2]) if found[2] else round(float(found[1]) / 100, 10)


def _length(what: str, text: str) -> float:
    try:
        seconds = read_value(FIELDS["latency"], text)
    except ValueError:
        seconds = None
    if not isinstance(seconds, float) or not SHORTEST_S <= seconds <= LONGEST_S:
        raise AlertError(
            f"The {what} of an alert must be 1min to 7d, and not {text.strip()[:40]!r}.",
            fix="Write it as 15min, 1h or 1d.",
        )
    return seconds


def _filter(text: str) -> str:
    try:
        named = fields_in(parse_filter(text))
    except FilterSyntaxError as error:
        raise AlertError(f"The filter of an alert is not understood: {error.message}", fix=error.fix) from error
    if unstable := sorted(_UNSTABLE & set(named)):
        raise AlertError(
            f"The filter of an alert cannot use {' and '.join(unstable)}, which change with time.",
            fix="Choose the window for times, and the metric thumbs_down for thumbs.",
        )
    return text.strip()


def _typed(value: float, unit: Unit) -> str:
    if unit == "share":
        return f"{100 * value:.6f}".rstrip("0").rstrip(".") + "%"
    text = f"{value:.12f}".rstrip("0").rstrip(".")
    return f"${text}" if unit == "dollars" else f"{text}s" if unit == "seconds" else text
