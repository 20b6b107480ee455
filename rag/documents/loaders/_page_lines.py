"""Lines of a PDF page with the places of their pieces, and the tables that such pieces form."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

WIDEST_PITCH = 2.2
"""Distance of lines, in usual distances, above which they do not belong together."""
_FEWEST_ROWS = 3
_FEWEST_COLUMNS = 3
"""Columns that make a table whatever is in them; two make one only with figures in the second."""
_NARROWEST = 1.0
"""Width of a column in points, at least: a character may have a box without any."""
_NEXT_PARAGRAPH = 1.6
"""Distance of lines, in usual distances, above which a paragraph ends."""


@dataclass(slots=True)
class Segment:
    """Characters of one line without a gap: along and across the direction of writing, in points."""

    text: str
    start: float
    end: float
    middle: float
    height: float


@dataclass(slots=True)
class Line:
    """Segments at the same height, from left to right; without any it ends a paragraph."""

    segments: list[Segment] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join(segment.text.strip() for segment in self.segments if segment.text.strip())

    @property
    def middle(self) -> float:
        return self.segments[0].middle


Part = str | list[list[str]]
"""Lines of text, or the rows of a table."""


def lines_of(segments: Sequence[Segment]) -> list[Line]:
    """Return the lines from top to bottom, their segments from left to right."""
    lines: list[Line] = []
    for segment in sorted(segments, key=lambda one: -one.middle):
        last = lines[-1].segments[0] if lines else None
        if last and abs(last.middle - segment.middle) < min(segment.height, last.height) / 2:
            lines[-1].segments.append(segment)
        else:
            lines.append(Line([segment]))
    for line in lines:
        line.segments.sort(key=lambda one: one.start)
    return lines


def tables_in(lines: list[Line], usual: float) -> Iterator[Part]:
    """Yield lines of text one by one, and tables with a text for every column.

    Args:
        lines: Lines from top to bottom.
        usual: Their usual distance.
    """
    at = 0
    before: Line | None = None
    while at < len(lines):
        end = _end_of_run(lines, at, usual)
        table = _table(lines[at:end])
        if table is not None:
            yield table
            before, at = None, end
            continue
        line = lines[at]
        neighbours = before is not None and before.segments and line.segments
        if neighbours and before is not None and before.middle - line.middle > usual * _NEXT_PARAGRAPH:
            yield ""
        yield line.text
        before, at = line, at + 1


def _end_of_run(lines: list[Line], start: int, usual: float) -> int:
    """Return the end of the neighbouring lines of several segments; single ones may stand between them."""
    end = at = start
    while at < len(lines) and lines[at].segments:
        far = at > start and lines[at - 1].middle - lines[at].middle > usual * WIDEST_PITCH
        single = len(lines[at].segments) == 1
        if far or (single and (at == start or len(lines[at - 1].segments) == 1)):
            break
        at += 1
        end = end if single else at
    return end


def _table(lines: list[Line]) -> list[list[str]] | None:
    """Return the rows of a table; None if the segments do not stand below each other."""
    if len(lines) < _FEWEST_ROWS:
        return None
    columns: list[tuple[float, float]] = []
    for segment in sorted((s for line in lines for s in line.segments), key=lambda one: one.start):
        if columns and segment.start < max(columns[-1][1], columns[-1][0] + _NARROWEST):
            columns[-1] = (columns[-1][0], max(columns[-1][1], segment.end))
        else:
            columns.append((segment.start, segment.end))
    rows: list[list[str]] = []
    for line in lines:
        row = [""] * len(columns)
        for segment in line.segments:
            place = bisect_right(columns, segment.start, key=lambda column: column[0]) - 1
            if row[place]:
                return None
            row[place] = segment.text.strip()
        rows.append(row)
    figures = sum(1 for row in rows if any(c.isdecimal() for c in row[-1]))
    if len(columns) >= _FEWEST_COLUMNS or (len(columns) == _FEWEST_COLUMNS - 1 and 2 * figures >= len(rows)):
        return rows
    return None
