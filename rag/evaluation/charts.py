"""The geometry of small plots; ``report_chart.html.jinja`` draws them, in the colours of ``report.css``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rag.evaluation.report_rendering import shortened
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


@dataclass(frozen=True, slots=True)
class Segment:
    """A straight line, with its class in the style sheet."""

    look: str
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, slots=True)
class Dot:
    """A figure on its interval."""

    look: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Curve:
    """A line through points, as the SVG attribute ``points`` has them."""

    look: str
    points: str


@dataclass(frozen=True, slots=True)
class Caption:
    """A text; ``whole`` is what the pointer shows where the text may have been shortened."""

    x: float
    y: float
    text: str
    anchor: str = "start"
    look: str = "note"
    whole: str = ""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A plot. What comes later is painted over what comes before, in the order of the fields.

    Attributes:
        title: What is measured.
        description: The figures in words, for those who do not see the plot.
        height: Of the drawing; its width is ``WIDTH``.
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
    """Draw a dot with its interval for each variant, and a dashed line where the baseline is.

    Args:
        title: What is measured.
        bars: In order from the top.
        shown: A value as text.
        baseline: Number of the bar that the others are compared with.
        limits: What the metric can be at least and at most: the axis does not go beyond.
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
            words.append(f"{bar.name}: no figure")
            continue
        look = "is-baseline" if number == baseline else "is-variant"
        captions.append(Caption(WIDTH - EDGE, top + 14, shown(estimate.value), "end", "value"))
        segments.append(Segment(f"interval {look}", x(estimate.low), top + 26, x(estimate.high), top + 26))
        dots.append(Dot(look, x(estimate.value), top + 26))
        words.append(f"{bar.name}: {shown(estimate.value)} ({shown(estimate.low)} to {shown(estimate.high)})")
    return Drawing(title, "; ".join(words), height, tuple(segments), (), tuple(dots), tuple(captions))


def draw_cumulative(title: str, lines: Sequence[Line], shown: Callable[[float], str]) -> Drawing:
    """Draw which share of the values is at most so large, a line for each variant, over a logarithmic axis.

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
            captions.append(_label(LEFT + 34, at + 4, f"{line.name}: no figure"))
            words.append(f"{line.name}: no figure")
            continue
        curves.append(Curve(look, " ".join(f"{x(value)},{y(share)}" for value, share in _steps(values))))
        captions.append(_label(LEFT + 34, at + 4, line.name))
        middle = values[(len(values) - 1) // 2]
        words.append(f"{line.name}: half at most {shown(middle)}, all at most {shown(values[-1])}")
    height = HEIGHT + LEGEND * len(lines)
    return Drawing(title, "; ".join(words), height, tuple(segments), tuple(curves), (), tuple(captions))


def _label(x: float, y: float, text: str) -> Caption:
    """A name that a person chose, and that may be too long."""
    return Caption(x, y, shortened(text, NAME_LENGTH), whole=text)


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
    for index in chosen:
        points += [(values[index], points[-1][1]), (values[index], (index + 1) / count)]
    return points
