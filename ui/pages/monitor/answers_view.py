"""How answers went as HTML: endings and times, by step and by release or prompt. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rag.tracing.figures import format_seconds
from rag.tracing.measures import FIRST_TOKEN, LATENCY, STEP, THUMB, Measured
from rag.types import STEPS
from ui.pages.monitor.cost_view import LEFT, MOST_LABELS, Period, bar_label, group_url
from ui.pages.safe_markup import fragment

WIDTH, HEIGHT, BASE, TOP = 480, 120, 98, 14
"""Of a chart, in units of its own; the lines lie between TOP and BASE."""
NOTHING = Measured({})


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart, with a gap where nothing was measured.

    Attributes:
        name: Its name in the legend.
        pieces: Points of its unbroken parts, as SVG writes them; a single one becomes a dot.
    """

    name: str
    kind: str
    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart over time; ``marks`` are the titles of its hours or days, at their places from left to right."""

    title: str
    most: str
    lines: tuple[Line, ...]
    marks: tuple[tuple[float, float, str], ...]
    labels: tuple[tuple[float, str], ...]


def answers_html(
    period: Period, by: str, total: Measured, times: Mapping[str, Measured], groups: Mapping[str, Measured]
) -> str:
    """Render how the answers of a period went.

    Args:
        period: The time.
        by: The groups of the table: ``release``, ``prompt`` or ``purpose``.
        total: All counts.
        times: Counts by hour or day of the period.
        groups: Counts by group.
    """
    ordered = sorted(groups.items(), key=lambda item: (-item[1].answers, item[0]))
    return fragment(
        "monitor_answers.html.jinja",
        total=total,
        figures=_figures(total),
        charts=_charts(period, [times.get(name, NOTHING) for name in period.names]) if total.answers else (),
        steps=[row for row in (_step(total, name, title) for name, title in _steps()) if row],
        by=by,
        rows=[(name or "—", group_url(by, name, period.since), _cells(found)) for name, found in ordered],
        width=WIDTH,
        height=HEIGHT,
        base=BASE,
        top=TOP,
        left=LEFT,
    )


def _figures(total: Measured) -> tuple[tuple[str, str], ...]:
    return (
        ("questions", f"{total.answers:,}"),
        ("p50", _time(total, LATENCY, 0.5)),
        ("p95", _time(total, LATENCY, 0.95)),
        ("failed", _percent(total.share("error"))),
        ("refused", _percent(total.share("abstained"))),
        ("support by sources", _percent(total.support)),
        ("thumbs up / down", f"{total.number(THUMB + 'up'):,} / {total.number(THUMB + 'down'):,}"),
    )


def _steps() -> tuple[tuple[str, str], ...]:
    return ((LATENCY, "whole answer"), (FIRST_TOKEN, "first token"), *((STEP + name, name) for name in STEPS))


def _step(total: Measured, name: str, title: str) -> tuple[str, ...]:
    number = total.number(name)
    return (title, f"{number:,}", *(_time(total, name, share) for share in (0.5, 0.95, 0.99))) if number else ()


def _cells(found: Measured) -> tuple[str, ...]:
    return (
        f"{found.answers:,}",
        _percent(found.share("error")),
        _percent(found.share("abstained")),
        _time(found, LATENCY, 0.5),
        _time(found, LATENCY, 0.95),
        _percent(found.support),
        f"{found.number(THUMB + 'up'):,} / {found.number(THUMB + 'down'):,}",
    )


def _charts(period: Period, times: Sequence[Measured]) -> tuple[Chart, ...]:
    seconds = {"p50": 0.5, "p95": 0.95}
    return (
        _chart(period, "Questions", {"questions": [float(found.answers) for found in times]}, "{:,.0f}".format),
        _chart(
            period,
            "Time of an answer",
            {name: [found.percentile(LATENCY, share) for found in times] for name, share in seconds.items()},
            format_seconds,
        ),
        _chart(
            period,
            "Failed and refused",
            {
                "failed": [found.share("error") for found in times],
                "refused": [found.share("abstained") for found in times],
            },
            _percent,
        ),
        _chart(period, "Support by the sources", {"support": [found.support for found in times]}, _percent),
    )


def _chart(period: Period, title: str, lines: Mapping[str, Sequence[float | None]], form: object) -> Chart:
    shown = form if callable(form) else str
    most = max((value for values in lines.values() for value in values if value is not None), default=0.0)
    width = (WIDTH - LEFT) / len(period.names)
    places = [LEFT + width * (at + 0.5) for at in range(len(period.names))]
    labelled = max(len(period.names) // (MOST_LABELS // 2), 1)
    titles = [
        ", ".join(
            [name, *(f"{line} {shown(values[at])}" for line, values in lines.items() if values[at] is not None)]
        )
        for at, name in enumerate(period.names)
    ]
    return Chart(
        title,
        shown(most),
        tuple(
            Line(name, f"line-{number}", _pieces(places, values, most))
            for number, (name, values) in enumerate(lines.items())
        ),
        tuple((place - width / 2, width, text) for place, text in zip(places, titles, strict=True)),
        tuple(
            (place, bar_label(name, period.by))
            for at, (place, name) in enumerate(zip(places, period.names, strict=True))
            if (len(places) - 1 - at) % labelled == 0
        ),
    )


def _pieces(places: Sequence[float], values: Sequence[float | None], most: float) -> tuple[str, ...]:
    pieces: list[list[str]] = [[]]
    for place, value in zip(places, values, strict=True):
        if value is None:
            pieces.append([])
            continue
        height = (BASE - TOP) * value / most if most else 0.0
        pieces[-1].append(f"{place:.1f},{BASE - height:.1f}")
    return tuple(" ".join(piece) for piece in pieces if piece)


def _time(found: Measured, name: str, share: float) -> str:
    seconds = found.percentile(name, share)
    return "" if seconds is None else format_seconds(seconds)


def _percent(share: float | None) -> str:
    if share is None:
        return ""
    return f"{100 * share:.1f} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"
