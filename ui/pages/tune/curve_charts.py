"""Curves over the steps of a training as points of an SVG. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT, LEFT, TOP, BASE = 480, 150, 52, 12, 130
"""Of a chart, in units of its own; the lines lie between TOP and BASE."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Values by step."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Line:
    """A curve as SVG writes it; ``number`` chooses its colour, and ``title`` has its last value."""

    name: str
    number: int
    points: str
    title: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with the values at its edges."""

    title: str
    lines: tuple[Line, ...]
    highest: str
    lowest: str
    first: str
    last: str


def chart(title: str, curves: Sequence[Curve], form: str) -> Chart:
    """Place curves in a chart; those without points are left out.

    Args:
        title: The title.
        curves: The curves, over the same steps.
        form: Format of a value, such as ``{:.2f}``.
    """
    drawn = [(number, curve) for number, curve in enumerate(curves) if curve.points]
    steps = [step for _, curve in drawn for step, _ in curve.points]
    values = [value for _, curve in drawn for _, value in curve.points]
    if not values:
        return Chart(title, (), "", "", "", "")
    first, last, lowest, highest = min(steps), max(steps), min(values), max(values)

    def placed(step: float, value: float) -> str:
        x = LEFT + (WIDTH - LEFT - 6) * ((step - first) / (last - first) if last > first else 0.5)
        y = BASE - (BASE - TOP) * ((value - lowest) / (highest - lowest) if highest > lowest else 0.5)
        return f"{x:.1f},{y:.1f}"

    lines = []
    for number, curve in drawn:
        places = [placed(*point) for point in curve.points]
        # A single point is a line without length, which round ends make visible.
        shown = " ".join(places if len(places) > 1 else places * 2)
        lines.append(Line(curve.name, number, shown, f"{curve.name} {form.format(curve.points[-1][1])}".strip()))
    edges = (form.format(highest), form.format(lowest), f"{first:,.0f}", f"{last:,.0f}")
    return Chart(title, tuple(lines), *edges)
