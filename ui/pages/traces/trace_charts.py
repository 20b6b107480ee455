"""The charts above the list, as data for their template. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from rag.tracing.figures import counted, format_cost, format_seconds
from rag.tracing.trace_series import Bucket, Series
from ui.pages.safe_markup import fragment

WIDTH, HEIGHT = 600.0, 48.0
_GAP = 0.2
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar, from the bottom of the chart."""

    x: float
    y: float
    width: float
    height: float
    kind: str


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of a bucket, which zooms the list: ``ends`` in seconds since the epoch."""

    x: float
    width: float
    ends: str
    title: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart.

    Attributes:
        top: What the highest bar means.
    """

    title: str
    figures: str
    top: str
    bars: tuple[Bar, ...]
    slots: tuple[Slot, ...]


def charts_html(series: Series) -> str:
    """Render latency, cost, and requests with errors over time; nothing without a trace."""
    if not series.buckets:
        return ""
    first = _moment(series.buckets[0].start, series.width)
    last = _moment(series.buckets[-1].start + series.width, series.width)
    day = first[: len("30 Nov")]
    return fragment(
        "traces_charts.html.jinja",
        charts=list(_charts(series)),
        first=first,
        last=last.removeprefix(f"{day} "),
        width=WIDTH,
        height=HEIGHT,
    )


def _charts(series: Series) -> Iterator[Chart]:
    buckets = series.buckets
    slowest = max((bucket.p95_s or 0.0 for bucket in buckets), default=0.0)
    dearest = max(bucket.cost_usd for bucket in buckets)
    busiest = max(bucket.count for bucket in buckets)
    requests, errors = sum(bucket.count for bucket in buckets), sum(bucket.errors for bucket in buckets)
    cost, unpriced = math.fsum(bucket.cost_usd for bucket in buckets), sum(bucket.unpriced for bucket in buckets)
    slots = tuple(_slots(series))
    yield Chart(
        "Latency",
        "p50, p95",
        format_seconds(slowest) if slowest else "",
        (
            *_bars(buckets, lambda bucket: bucket.p95_s or 0.0, slowest, "p95"),
            *_bars(buckets, lambda bucket: bucket.p50_s or 0.0, slowest, "p50"),
        ),
        slots,
    )
    yield Chart(
        "Cost",
        format_cost(cost if unpriced < requests else None) + (f", {unpriced:,} unknown" if unpriced else ""),
        format_cost(dearest) if dearest else "",
        tuple(_bars(buckets, lambda bucket: bucket.cost_usd, dearest, "cost")),
        slots,
    )
    yield Chart(
        "Requests",
        f"{requests:,}, {counted(errors, 'error')}" if errors else f"{requests:,}",
        f"{busiest:,}",
        (
            *_bars(buckets, lambda bucket: bucket.count, busiest, "count"),
            *_bars(buckets, lambda bucket: bucket.errors, busiest, "error"),
        ),
        slots,
    )


def _bars(buckets: Sequence[Bucket], value: Callable[[Bucket], float], highest: float, kind: str) -> Iterator[Bar]:
    step = WIDTH / len(buckets)
    for number, bucket in enumerate(buckets):
        if (size := value(bucket)) > 0 and highest > 0:
            # One pixel at least, so that a single error is seen.
            height = max(size / highest * HEIGHT, 1.0)
            yield Bar((number + _GAP / 2) * step, HEIGHT - height, step * (1 - _GAP), height, kind)


def _slots(series: Series) -> Iterator[Slot]:
    step = WIDTH / len(series.buckets)
    for number, bucket in enumerate(series.buckets):
        end = bucket.start + series.width
        facts = [f"{_moment(bucket.start, series.width)} – {_moment(end, series.width)}"]
        facts.append(counted(bucket.count, "request"))
        if bucket.errors:
            facts.append(counted(bucket.errors, "error"))
        if bucket.p50_s is not None and bucket.p95_s is not None:
            facts.append(f"p50 {format_seconds(bucket.p50_s)}, p95 {format_seconds(bucket.p95_s)}")
        if bucket.count > bucket.unpriced:
            facts.append(format_cost(bucket.cost_usd))
        yield Slot(number * step, step, f"{bucket.start} {end}", " · ".join(facts))


def _moment(seconds: float, width: float) -> str:
    form = "%d %b" if width >= _DAY_S else "%d %b %H:%M" if width >= 60 else "%d %b %H:%M:%S"
    return datetime.fromtimestamp(seconds).strftime(form)
