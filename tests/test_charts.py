"""The plots of a report stay inside their frames and say what they show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from rag.evaluation.charts import Bar, Drawing, Line, draw_cumulative, draw_intervals
from rag.evaluation.metric_definitions import BY_NAME
from rag.evaluation.metric_formatting import format_metric
from rag.evaluation.report_rendering import report_templates
from rag.evaluation.statistics import Estimate

finite = st.floats(-1e9, 1e9)
names = st.text(st.characters(codec="utf-8"), max_size=60)


def estimate_of(ends: Sequence[float]) -> Estimate:
    low, value, high = sorted(ends)
    return Estimate(value, low, high, 5)


def svg_of(drawing: Drawing) -> str:
    return report_templates().get_template("report_chart.html.jinja").render(drawing=drawing)


def coordinates(svg: str) -> list[tuple[str, float]]:
    found = re.findall(r' (x|y|x1|x2|y1|y2|cx|cy)="([^"]+)"', svg)
    points = [pair.split(",") for each in re.findall(r'points="([^"]+)"', svg) for pair in each.split()]
    return [(name, float(value)) for name, value in found] + [
        (axis, float(value)) for pair in points for axis, value in zip("xy", pair, strict=True)
    ]


def assert_drawn(svg: str) -> None:
    root = ElementTree.fromstring(svg)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for name, value in coordinates(svg):
        assert -0.1 <= value <= (width if "x" in name else height) + 0.1, (name, value)


@given(
    st.lists(st.tuples(names, st.none() | st.tuples(finite, finite, finite)), min_size=1, max_size=6), st.data()
)
def test_every_interval_is_inside_its_plot(bars: list[Any], data: st.DataObject) -> None:
    drawn = [Bar(name, estimate_of(ends) if ends else None) for name, ends in bars]
    baseline = data.draw(st.integers(0, len(drawn) - 1))
    latency = partial(format_metric, BY_NAME["latency_p50"])
    svg = svg_of(draw_intervals("Latency", drawn, latency, baseline=baseline))
    assert_drawn(svg)
    known = [bar for bar in drawn if bar.estimate]
    assert svg.count("<circle") == len(known)
    assert svg.count('class="baseline"') == (drawn[baseline].estimate is not None)


def test_a_larger_figure_stands_further_right() -> None:
    bars = [Bar("a", Estimate(0.2, 0.1, 0.3, 9)), Bar("b", Estimate(0.6, 0.4, 1.0, 9))]
    svg = svg_of(
        draw_intervals(
            "F1", bars, lambda value: format_metric(BY_NAME["f1"], value), baseline=1, limits=(0.0, 1.0)
        )
    )
    first, second = (float(value) for value in re.findall(r'cx="([^"]+)"', svg))
    assert first < second
    assert "<desc>a: 20.0 % (10.0 % to 30.0 %); b: 60.0 % (40.0 % to 100.0 %)</desc>" in svg
    # No axis of a share goes beyond the whole.
    assert "104" not in svg
    assert ">100.0 %</text>" in svg


@given(st.lists(st.tuples(names, st.lists(st.floats(0, 1e5), max_size=30)), min_size=1, max_size=8))
def test_every_curve_is_inside_its_plot_and_rises(lines: list[Any]) -> None:
    svg = svg_of(draw_cumulative("Latency", [Line(*each) for each in lines], lambda value: f"{value:.3g} s"))
    assert_drawn(svg)
    curves = re.findall(r'<polyline class="[^"]+" points="([^"]+)"', svg)
    assert len(curves) == sum(bool(values) for _, values in lines)
    for curve in curves:
        points = [tuple(map(float, pair.split(","))) for pair in curve.split()]
        assert points == sorted(points, key=lambda point: (point[0], -point[1]))
        assert (points[0][1], points[-1][1]) == (max(y for _, y in points), 6.0)


def test_a_curve_of_many_values_has_few_points() -> None:
    svg = svg_of(
        draw_cumulative(
            "Latency", [Line("a", [number / 100 for number in range(1, 100_000)])], lambda value: f"{value:g}"
        )
    )
    assert len(svg) < 10_000
    assert "half at most 500" in svg
