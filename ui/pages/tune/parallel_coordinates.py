"""The trials of a sweep as lines through parallel axes: one for each field that varies, and one for the loss.

Pure functions: they place points in an SVG, and ``tune_compare.html.jinja`` draws them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from finetune.run_comparison import ComparedRun, Setting, written
from finetune.sweeps.search_space import Choices, Dimension

WIDTH, HEIGHT, TOP, BASE, LEFT, RIGHT = 480, 190, 14, 164, 8, 440
"""Of the drawing, in units of its own; the axes lie between TOP and BASE, and between LEFT and RIGHT."""
LOSS = "validation loss"
# Width of a character of a label.
_SIGN = 5.5
# Choices of an axis that are labelled; of more, only the first and the last are.
_MOST_LABELS = 8


@dataclass(frozen=True, slots=True)
class Tick:
    """A label on the right of an axis."""

    x: float
    y: float
    label: str


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis with its title below; ``anchor`` is the side of the title that lies at ``title_x``."""

    title: str
    x: float
    title_x: float
    anchor: str
    ticks: tuple[Tick, ...]


@dataclass(frozen=True, slots=True)
class TrialLine:
    """A trial; ``number`` is its place among all, the best first."""

    number: int
    done: bool
    points: str
    title: str


@dataclass(frozen=True, slots=True)
class ParallelCoordinates:
    """The drawing."""

    axes: tuple[Axis, ...]
    lines: tuple[TrialLine, ...]
    width: int = WIDTH
    height: int = HEIGHT
    top: int = TOP
    base: int = BASE


Place = Callable[[Setting], float]


def parallel_coordinates(dimensions: Sequence[Dimension], runs: Sequence[ComparedRun]) -> ParallelCoordinates:
    """Place the trials that have a loss.

    Args:
        dimensions: The fields that vary.
        runs: The trials, the best first.
    """
    known = [(number, run, run.loss) for number, run in enumerate(runs) if run.loss is not None]
    losses = [loss for _, _, loss in known] or [0.0]
    scales = [_scale(dimension) for dimension in dimensions]
    scales.append((_along(min(losses), max(losses)), [min(losses), max(losses)]))
    names = [*(dimension.field for dimension in dimensions), LOSS]
    apart = (RIGHT - LEFT) / max(len(scales) - 1, 1)
    axes = [
        _axis(name, LEFT + at * apart, apart, scale)
        for at, (name, scale) in enumerate(zip(names, scales, strict=True))
    ]
    lines = []
    for number, run, loss in known:
        values: list[Setting] = [run.settings[name] for name in names[:-1]] + [loss]
        points = [
            f"{LEFT + at * apart:.1f},{_height(place(value)):.1f}"
            for at, ((place, _), value) in enumerate(zip(scales, values, strict=True))
        ]
        told = ", ".join(f"{name} {written(value)}" for name, value in zip(names, values, strict=True))
        lines.append(TrialLine(number, run.state == "done", " ".join(points), f"{run.name}: {told}"))
    return ParallelCoordinates(tuple(axes), tuple(lines))


def _scale(dimension: Dimension) -> tuple[Place, list[Setting]]:
    """Return the share of the axis, from below, at which a value lies, and the values that are labelled."""
    if not isinstance(dimension, Choices):
        return _along(dimension.low, dimension.high, log=dimension.log), [dimension.low, dimension.high]
    values = list(dimension.values)
    numeric = [value for value in values if not isinstance(value, str)]
    ordered: list[Setting] = [*(sorted(numeric) if len(numeric) == len(values) else values)]
    marks = ordered if len(ordered) <= _MOST_LABELS else [ordered[0], ordered[-1]]
    return lambda value: ordered.index(value) / (len(ordered) - 1), marks


def _along(low: float, high: float, *, log: bool = False) -> Place:
    def share(value: Setting) -> float:
        at, first, last = (math.log(float(one)) if log else float(one) for one in (value, low, high))
        return (at - first) / (last - first) if last > first else 0.5

    return share


def _axis(name: str, x: float, apart: float, scale: tuple[Place, list[Setting]]) -> Axis:
    place, marks = scale
    # Up to the next axis.
    longest = max(int((apart - 8) / _SIGN), 4)
    ticks = {
        (label := _short(written(mark), longest)): Tick(round(x + 4, 1), round(_height(place(mark)) + 3, 1), label)
        for mark in marks
    }
    at, anchor = (x, "start") if x <= LEFT else (WIDTH, "end") if x >= RIGHT else (x, "middle")
    return Axis(name, round(x, 1), round(at, 1), anchor, tuple(ticks.values()))


def _height(share: float) -> float:
    return BASE - (BASE - TOP) * share


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"…{text[1 - longest :]}"
