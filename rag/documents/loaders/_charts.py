"""Charts in Office files: their titles, and the values that they show, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rag.documents.loaders._blocks import Builder
from rag.documents.loaders._tables import write_table

_CHART = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
_RUN = "{http://schemas.openxmlformats.org/drawingml/2006/main}t"
_MOST_POINTS = 10_000


def write_chart(builder: Builder, root: Any, headings: tuple[str, ...], page: int | None = None) -> bool:
    """Write a chart, a row per category, and return whether it has values.

    Args:
        builder: Takes the blocks.
        root: The ``chartSpace`` element, with the values stored beside the reference to their sheet.
        headings: Headings above the chart.
        page: Its slide, if there are slides.
    """
    title = root.find(f"{_CHART}chart/{_CHART}title")
    caption = "".join(run.text or "" for run in title.iter(_RUN)) if title is not None else ""
    series = list(root.iter(f"{_CHART}ser"))
    if not series:
        return False
    names = [" ".join(_points(one, "tx").values()) or f"series {number}" for number, one in enumerate(series, 1)]
    columns = [_points(one, "val") or _points(one, "yVal") for one in series]
    labels: dict[int, str] = {}
    for one in series:
        labels = labels or _points(one, "cat") or _points(one, "xVal")
    count = min(max((max(column, default=-1) for column in columns), default=-1) + 1, _MOST_POINTS)
    rows: list[Sequence[str]] = [["", *names]]
    rows += [[labels.get(at, ""), *(column.get(at, "") for column in columns)] for at in range(count)]
    if caption:
        builder.add(f"Chart: {caption}", "text", headings, page)
    write_table(builder, rows, headings, page, header_rows=1)
    return count > 0


def _points(series: Any, part: str) -> dict[int, str]:
    """Return the stored points of a part of a series, by number; a literal name is point 0."""
    element = series.find(f"{_CHART}{part}")
    if element is None:
        return {}
    found: dict[int, str] = {}
    for point in element.iter(f"{_CHART}pt"):
        value = point.find(f"{_CHART}v")
        number = point.get("idx", "")
        if value is not None and value.text and number.isdecimal():
            found[int(number)] = value.text
    literal = element.find(f"{_CHART}v")
    if not found and literal is not None and literal.text:
        found[0] = literal.text
    return found
