"""Small plots as SVG text; colours and fonts are those of the page that holds them (``report.css``)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rag.evaluation.html_escaping import plain, shortened
from rag.evaluation.statistics import Estimate

# All lengths are units of the drawing, which the page scales to the width that there is.
WIDTH = 340
EDGE = 6
ROW = 38
AXIS = 26
HEIGHT = 190
LEFT = 34
LEGEND = 18
NAME_LENGTH = 40
# A line needs no more points than the eye can tell apart.
POINTS = 160
# Colours and dashes in the page's style; further lines begin again.
LOOKS = 6
LEAST_S = 0.001


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure of a variant, None where it has none."""

    name: str
    estimate: Estimate | None


@dataclass(frozen=True, slots=True)
class Line:
    """The values of a variant, in any order."""

    name: str
    values: Sequence[float]


def intervals(
    title: str,
    bars: Sequence[Bar],
    shown: Callable[[float], str],
    *,
    baseline: int = 0,
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> str:
    """A dot with its interval for each variant, and a dashed line where the baseline is.

    Args:
        title: What is measured.
        bars: In order from the top.
        shown: A value as text.
        baseline: Number of the bar that the others are compared with.
        limits: What the measure can be at least and at most: the axis does not go beyond.
    """
    known = [bar.estimate for bar in bars if bar.estimate is not None]
    low, high = _domain([end for each in known for end in (each.low, each.value, each.high)], limits)
    height = ROW * len(bars) + AXIS

    def x(value: float) -> float:
        return EDGE + (value - low) / (high - low) * (WIDTH - 2 * EDGE)

    parts = [
        f'<line class="axis" x1="{EDGE}" y1="{height - AXIS + 4}" x2="{WIDTH - EDGE}" y2="{height - AXIS + 4}"/>',
        _text(EDGE, height - 8, shown(low)),
        _text(WIDTH - EDGE, height - 8, shown(high), "end"),
    ]
    compared = bars[baseline].estimate
    if compared is not None:
        at = x(compared.value)
        parts.append(f'<line class="baseline" x1="{at:.1f}" y1="0" x2="{at:.1f}" y2="{height - AXIS + 4}"/>')
    for number, bar in enumerate(bars):
        top = number * ROW
        parts.append(_text(EDGE, top + 14, bar.name, label=True))
        if bar.estimate is None:
            parts.append(_text(WIDTH - EDGE, top + 14, "–", "end"))
            continue
        start, middle, end = (x(value) for value in (bar.estimate.low, bar.estimate.value, bar.estimate.high))
        look = "is-baseline" if number == baseline else "is-variant"
        y = top + 26
        parts += [
            _text(WIDTH - EDGE, top + 14, shown(bar.estimate.value), "end", look="value"),
            f'<line class="interval {look}" x1="{start:.1f}" y1="{y}" x2="{end:.1f}" y2="{y}"/>',
            f'<circle class="dot {look}" cx="{middle:.1f}" cy="{y}" r="4.5"/>',
        ]
    told = [
        f"{bar.name}: {shown(bar.estimate.value)} ({shown(bar.estimate.low)} to {shown(bar.estimate.high)})"
        if bar.estimate
        else f"{bar.name}: no figure"
        for bar in bars
    ]
    return _drawn(title, "; ".join(told), height, parts)


def cumulative(title: str, lines: Sequence[Line], shown: Callable[[float], str]) -> str:
    """Which share of the values is at most so large, a line for each variant, over a logarithmic axis.

    Args:
        title: What is measured.
        lines: Those without values are left out of the drawing and named as such.
        shown: A value as text.
    """
    ordered = [sorted(max(value, LEAST_S) for value in line.values) for line in lines]
    known = [value for values in ordered for value in (values[:1] + values[-1:])]
    low, high = _domain([math.log10(value) for value in known])
    bottom = HEIGHT - AXIS

    def x(value: float) -> float:
        return LEFT + (math.log10(value) - low) / (high - low) * (WIDTH - LEFT - EDGE)

    def y(share: float) -> float:
        return EDGE + (1 - share) * (bottom - EDGE)

    parts: list[str] = []
    for share in (0.0, 0.5, 1.0):
        parts.append(
            f'<line class="grid" x1="{LEFT}" y1="{y(share):.1f}" x2="{WIDTH - EDGE}" y2="{y(share):.1f}"/>'
        )
        parts.append(_text(LEFT - 5, y(share) + 4, f"{share:.0%}", "end"))
    for value in _ticks(low, high):
        parts.append(f'<line class="grid" x1="{x(value):.1f}" y1="{EDGE}" x2="{x(value):.1f}" y2="{bottom}"/>')
        parts.append(_text(x(value), bottom + 15, shown(value), "middle"))
    for number, (line, values) in enumerate(zip(lines, ordered, strict=True)):
        look = f"look-{number % LOOKS}"
        at = HEIGHT + 6 + number * LEGEND
        if values:
            points = " ".join(f"{x(value):.1f},{y(share):.1f}" for value, share in _steps(values))
            parts.append(f'<polyline class="curve {look}" points="{points}"/>')
        parts.append(f'<line class="curve {look}" x1="{LEFT}" y1="{at}" x2="{LEFT + 26}" y2="{at}"/>')
        parts.append(_text(LEFT + 34, at + 4, line.name if values else f"{line.name}: no figure", label=True))
    told = [
        f"{line.name}: half at most {shown(values[(len(values) - 1) // 2])}, all at most {shown(values[-1])}"
        if values
        else f"{line.name}: no figure"
        for line, values in zip(lines, ordered, strict=True)
    ]
    return _drawn(title, "; ".join(told), HEIGHT + LEGEND * len(lines), parts)


def _drawn(title: str, told: str, height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img">'
        f"<title>{plain(title)}</title><desc>{plain(told)}</desc>{''.join(parts)}</svg>"
    )


def _text(x: float, y: float, text: str, anchor: str = "start", *, label: bool = False, look: str = "note") -> str:
    """A text; a label, which a person chose, may be too long, and is then told whole by the pointer."""
    whole = f"<title>{plain(text)}</title>" if label else ""
    shown = plain(shortened(text, NAME_LENGTH)) if label else plain(text)
    return f'<text class="{look}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{whole}{shown}</text>'


def _domain(values: Sequence[float], limits: tuple[float, float] = (-math.inf, math.inf)) -> tuple[float, float]:
    """From the smallest to the largest with some room, never empty."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    room = (high - low) * 0.06 or abs(high) * 0.05 or 0.05
    return max(low - room, min(low, limits[0])), min(high + room, max(high, limits[1]))


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between two powers of ten, few enough to be told side by side."""
    decades = range(math.floor(low), math.ceil(high) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [step * 10.0**power for power in decades for step in steps]
        found = [value for value in found if low <= math.log10(value) <= high]
        if len(found) <= 6:
            break
    return found or [10 ** ((low + high) / 2)]


def _steps(values: Sequence[float]) -> list[tuple[float, float]]:
    """Points of the cumulative distribution of sorted values, from 0 to 1."""
    count = len(values)
    chosen = sorted({round(number * (count - 1) / POINTS) for number in range(POINTS + 1)})
    points = [(values[0], 0.0)]
    for each in chosen:
        points += [(values[each], points[-1][1]), (values[each], (each + 1) / count)]
    return points
