"""Geometry of small plots, which ``report_chart.html.jinja`` draws in the colours of ``report.css``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rag.evaluation.report_rendering import shortened
from rag.evaluation.statistics import Estimate

# All lengths are units of the drawing, which the page scales to the available width.
WIDTH = 340
EDGE = 6
ROW = 38
AXIS = 26
HEIGHT = 190
LEFT = 34
LEGEND = 18
NAME_LENGTH = 40
# Maximum points of a curve; more are indistinguishable.
POINTS = 160
# Combinations of colours and dashes in the style sheet, reused for further lines.
LOOKS = 6
LEAST_S = 0.001


@dataclass(frozen=True, slots=True)
class Bar:
    """The value of a variant; None without one."""

    name: str
    estimate: Estimate | None


@dataclass(frozen=True, slots=True)
class Line:
    """The values of a variant in any order."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Segment:
    """A straight line with its CSS class."""

    look: str
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, slots=True)
class Dot:
    """A value on its interval."""

    look: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Curve:
    """A polyline; ``points`` is the SVG attribute."""

    look: str
    points: str


@dataclass(frozen=True, slots=True)
class Caption:
    """A text; ``whole`` is the complete text for a tooltip."""

    x: float
    y: float
    text: str
    anchor: str = "start"
    look: str = "note"
    whole: str = ""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A plot, painted in the order of the fields.

    Attributes:
        title: Name of the metric.
        description: The values in words, for screen readers.
    """

    title: str
    description: str
    height: int
    segments: tuple[Segment, ...]
    curves: tuple[Curve, ...]
    dots: tuple[Dot, ...]
    captions: tuple[Caption, ...]
    width: int = WIDTH


def draw_intervals(
    title: str,
    bars: Sequence[Bar],
    shown: Callable[[float], str],
    *,
    baseline: int = 0,
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> Drawing:
    """Draw a dot with its interval for every variant, and a dashed line at the baseline.

    Args:
        title: Name of the metric.
        bars: Values from top to bottom.
        shown: Formats a value.
        baseline: Index of the bar that the others are compared with.
        limits: Minimum and maximum of the metric, which limit the axis.
    """
    known = [(one.low, one.value, one.high) for bar in bars if (one := bar.estimate) is not None]
    low, high = _domain([end for ends in known for end in ends], limits)
    height = ROW * len(bars) + AXIS
    floor = height - AXIS + 4

    def x(value: float) -> float:
        return round(EDGE + (value - low) / (high - low) * (WIDTH - 2 * EDGE), 1)

    segments = [Segment("axis", EDGE, floor, WIDTH - EDGE, floor)]
    captions = [
        Caption(EDGE, height - 8, shown(low)),
        Caption(WIDTH - EDGE, height - 8, shown(high), "end"),
    ]
    dots: list[Dot] = []
    words: list[str] = []
    compared = bars[baseline].estimate
    if compared is not None:
        segments.append(Segment("baseline", x(compared.value), 0, x(compared.value), floor))
    for number, bar in enumerate(bars):
        top = number * ROW
        captions.append(_label(EDGE, top + 14, bar.name))
        estimate = bar.estimate
        if estimate is None:
            captions.append(Caption(WIDTH - EDGE, top + 14, "–", "end"))
            words.append(f"{bar.name}: no value")
            continue
        look = "is-baseline" if number == baseline else "is-variant"
        captions.append(Caption(WIDTH - EDGE, top + 14, shown(estimate.value), "end", "value"))
        segments.append(Segment(f"interval {look}", x(estimate.low), top + 26, x(estimate.high), top + 26))
        dots.append(Dot(look, x(estimate.value), top + 26))
        words.append(f"{bar.name}: {shown(estimate.value)} ({shown(estimate.low)} to {shown(estimate.high)})")
    return Drawing(title, "; ".join(words), height, tuple(segments), (), tuple(dots), tuple(captions))


def draw_cumulative(title: str, lines: Sequence[Line], shown: Callable[[float], str]) -> Drawing:
    """Draw the cumulative distribution of every variant over a logarithmic axis.

    Args:
        title: Name of the metric.
        lines: Values by variant; those without values appear only in the legend.
        shown: Formats a value.
    """
    ordered = [sorted(max(value, LEAST_S) for value in line.values) for line in lines]
    known = [value for values in ordered for value in (values[:1] + values[-1:])]
    low, high = _domain([math.log10(value) for value in known])
    bottom = HEIGHT - AXIS

    def x(value: float) -> float:
        return round(LEFT + (math.log10(value) - low) / (high - low) * (WIDTH - LEFT - EDGE), 1)

    def y(share: float) -> float:
        return round(EDGE + (1 - share) * (bottom - EDGE), 1)

    segments: list[Segment] = []
    captions: list[Caption] = []
    curves: list[Curve] = []
    words: list[str] = []
    for share in (0.0, 0.5, 1.0):
        segments.append(Segment("grid", LEFT, y(share), WIDTH - EDGE, y(share)))
        captions.append(Caption(LEFT - 5, y(share) + 4, f"{share:.0%}", "end"))
    for value in _ticks(low, high):
        segments.append(Segment("grid", x(value), EDGE, x(value), bottom))
        captions.append(Caption(x(value), bottom + 15, shown(value), "middle"))
    for number, (line, values) in enumerate(zip(lines, ordered, strict=True)):
        look = f"curve look-{number % LOOKS}"
        at = HEIGHT + 6 + number * LEGEND
        segments.append(Segment(look, LEFT, at, LEFT + 26, at))
        if not values:
            captions.append(_label(LEFT + 34, at + 4, f"{line.name}: no value"))
            words.append(f"{line.name}: no value")
            continue
        curves.append(Curve(look, " ".join(f"{x(value)},{y(share)}" for value, share in _steps(values))))
        captions.append(_label(LEFT + 34, at + 4, line.name))
        middle = values[(len(values) - 1) // 2]
        words.append(f"{line.name}: half at most {shown(middle)}, all at most {shown(values[-1])}")
    height = HEIGHT + LEGEND * len(lines)
    return Drawing(title, "; ".join(words), height, tuple(segments), tuple(curves), (), tuple(captions))


def _label(x: float, y: float, text: str) -> Caption:
    """Return a caption with a name that may be too long."""
    return Caption(x, y, shortened(text, NAME_LENGTH), whole=text)


def _domain(values: Sequence[float], limits: tuple[float, float] = (-math.inf, math.inf)) -> tuple[float, float]:
    """Return the range of the values with a margin; never empty."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    room = (high - low) * 0.06 or abs(high) * 0.05 or 0.05
    return max(low - room, min(low, limits[0])), min(high + room, max(high, limits[1]))


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers between two powers of ten, few enough for labels."""
    decades = range(math.floor(low), math.ceil(high) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [step * 10.0**power for power in decades for step in steps]
        found = [value for value in found if low <= math.log10(value) <= high]
        if len(found) <= 6:
            break
    return found or [10 ** ((low + high) / 2)]


def _steps(values: Sequence[float]) -> list[tuple[float, float]]:
    """Return points of the cumulative distribution of sorted values, from 0 to 1."""
    count = len(values)
    chosen = sorted({round(number * (count - 1) / POINTS) for number in range(POINTS + 1)})
    points = [(values[0], 0.0)]
    for index in chosen:
        points += [(values[index], points[-1][1]), (values[index], (index + 1) / count)]
    return points
