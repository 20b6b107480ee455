"""Reading order of a PDF page from the places of its characters.

PDFium returns text in the order in which it is drawn, line by line. That is wrong for columns drawn row by row, and
for turned pages. Only such pages are laid out here, since it takes a call per character.
"""

from __future__ import annotations

import ctypes
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

_MOST_RECTANGLES = 5_000
_MOST_CHARACTERS = 50_000
_FEWEST_LINES = 3
"""Lines on both sides of a gutter that make columns."""
_NARROWEST_GAP = 0.8
"""Width of a gutter, in line heights."""
_SHORTEST_LINE = 15
"""Median characters of the lines of a column; shorter ones are cells of a table, which is read row by row."""
_WIDEST_PITCH = 2.2
"""Distance of lines, in usual distances, above which they are no longer in the same columns."""
_SAME_PLACE = 3.0
"""Points within which text begins at the same place."""


@dataclass(slots=True)
class _Segment:
    """Characters of one line without a gap: along and across the direction of writing, in points."""

    text: str
    start: float
    end: float
    middle: float
    height: float


@dataclass(slots=True)
class _Line:
    segments: list[_Segment] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join(segment.text.strip() for segment in self.segments if segment.text.strip())

    @property
    def middle(self) -> float:
        return self.segments[0].middle


def reordered(content: Any, rotation: int) -> str | None:
    """Return the text of a page in reading order, lines separated by line ends; None if PDFium's order is right.

    Args:
        content: The text page.
        rotation: Degrees by which the page is turned.
    """
    count = content.count_chars()
    if not 1 < count <= _MOST_CHARACTERS:
        return None
    if not rotation and not _is_turned(content, count) and not _jumps(content):
        return None
    angle, segments = _segments(content, count)
    if not segments:
        return None
    text = "\n".join(_in_order(_lines(segments)))
    # Text in other directions, such as a stamp on the margin, follows.
    others = [_in_order(_lines(found)) for turned, found in _by_angle(content, count) if turned != angle]
    return "\n\n".join([text, *("\n".join(lines) for lines in others)])


def _is_turned(content: Any, count: int) -> bool:
    """Whether most of a few characters are written in another direction than to the right."""
    from pypdfium2 import raw

    places = {count * part // 8 for part in range(1, 8)}
    turned = sum(1 for at in places if _quarter(raw.FPDFText_GetCharAngle(content, at)))
    return 2 * turned > len(places)


def _quarter(angle: float) -> int:
    """Return the quarter turns next to an angle in radians, 0 to 3."""
    return round(angle / (math.pi / 2)) % 4 if angle >= 0 else 0


def _jumps(content: Any) -> bool:
    """Whether the drawing order leaps over the same gap in several lines."""
    from pypdfium2 import raw

    places: Counter[int] = Counter()
    left, top, right, bottom = (ctypes.c_double() for _ in range(4))
    before: tuple[float, float, float] | None = None
    for number in range(min(content.count_rects(), _MOST_RECTANGLES)):
        raw.FPDFText_GetRect(content, number, left, top, right, bottom)
        middle, height = (top.value + bottom.value) / 2, top.value - bottom.value
        if before is not None and abs(middle - before[1]) < max(height, before[2]) / 2:
            gap = left.value - before[0]
            if gap > _NARROWEST_GAP * height:
                place = round(left.value / _SAME_PLACE)
                places.update((place, place + 1))
        before = (right.value, middle, height)
    return any(times >= _FEWEST_LINES for times in places.values())


def _segments(content: Any, count: int) -> tuple[int, list[_Segment]]:
    """Return the direction of most characters and their segments."""
    found = dict(_by_angle(content, count))
    angle = max(found, key=lambda one: sum(len(segment.text) for segment in found[one]), default=0)
    return angle, found.get(angle, [])


def _by_angle(content: Any, count: int) -> Iterator[tuple[int, list[_Segment]]]:
    """Yield the segments of every direction, in drawing order."""
    from pypdfium2 import raw

    found: dict[int, list[_Segment]] = {}
    box = raw.FS_RECTF()
    space = ""
    current: _Segment | None = None
    direction = 0
    for at in range(count):
        character = chr(raw.FPDFText_GetUnicode(content, at))
        if character in "\r\n":
            continue
        if character.isspace():
            space = " "
            continue
        if not raw.FPDFText_GetLooseCharBox(content, at, box):
            continue
        quarter = _quarter(raw.FPDFText_GetCharAngle(content, at))
        start, end, low, high = _turned(quarter, box)
        middle, height = (low + high) / 2, max(high - low, 0.1)
        joins = (
            current is not None
            and quarter == direction
            and abs(middle - current.middle) < height / 2
            and -height < start - current.end < _NARROWEST_GAP * height
        )
        if joins and current is not None:
            current.text += space + character
            current.end = max(current.end, end)
        else:
            current = _Segment(character, start, end, middle, height)
            direction = quarter
            found.setdefault(quarter, []).append(current)
        space = ""
    yield from found.items()


def _turned(quarter: int, box: Any) -> tuple[float, float, float, float]:
    """Return a box along and across the direction of writing: start, end, bottom, top."""
    if quarter == 1:
        return box.bottom, box.top, -box.right, -box.left
    if quarter == 2:
        return -box.right, -box.left, -box.top, -box.bottom
    if quarter == 3:
        return -box.top, -box.bottom, box.left, box.right
    return box.left, box.right, box.bottom, box.top


def _lines(segments: Sequence[_Segment]) -> list[_Line]:
    """Return the lines from top to bottom, their segments from left to right."""
    lines: list[_Line] = []
    for segment in sorted(segments, key=lambda one: -one.middle):
        last = lines[-1].segments[0] if lines else None
        if last and abs(last.middle - segment.middle) < min(segment.height, last.height) / 2:
            lines[-1].segments.append(segment)
        else:
            lines.append(_Line([segment]))
    for line in lines:
        line.segments.sort(key=lambda one: one.start)
    return lines


def _in_order(lines: list[_Line]) -> Iterator[str]:
    """Yield the lines of a page or column, those of columns side by side one column after the other."""
    waiting = [lines]
    while waiting:
        part = waiting.pop()
        found = _columns(part)
        if found is None:
            yield from (line.text for line in part)
            continue
        first, last, gutter = found
        sides: tuple[list[_Segment], list[_Segment]] = ([], [])
        for line in part[first:last]:
            for segment in line.segments:
                sides[segment.start >= gutter].append(segment)
        pieces = (part[:first], *map(_lines, sides), part[last:])
        waiting.extend(piece for piece in reversed(pieces) if piece)


def _columns(lines: list[_Line]) -> tuple[int, int, float] | None:
    """Return the first line, the line after the last one, and the gutter of the tallest two columns."""
    if len(lines) < _FEWEST_LINES:
        return None
    pitches = [one.middle - other.middle for one, other in pairwise(lines)]
    usual = median(pitch for pitch in pitches) or 1.0
    starts = Counter(round(s.start / _SAME_PLACE) for line in lines for s in line.segments)
    best: tuple[int, int, float] | None = None
    for place, times in starts.items():
        if times + starts[place + 1] < _FEWEST_LINES:
            continue
        gutter = (place - 0.5) * _SAME_PLACE
        for first, last in _runs(lines, gutter, usual):
            if (best is None or last - first > best[1] - best[0]) and _are_columns(lines[first:last], gutter):
                best = (first, last, gutter)
    return best


def _runs(lines: list[_Line], gutter: float, usual: float) -> Iterator[tuple[int, int]]:
    """Yield the ranges of neighbouring lines that leave a gutter free."""
    first = 0
    for at, line in enumerate(lines):
        crosses = any(segment.start < gutter < segment.end for segment in line.segments)
        most = max(usual, line.segments[0].height) * _WIDEST_PITCH
        far = at > first and lines[at - 1].middle - line.middle > most
        if crosses or far:
            if at > first:
                yield first, at
            first = at + 1 if crosses else at
    if first < len(lines):
        yield first, len(lines)


def _are_columns(lines: list[_Line], gutter: float) -> bool:
    """Whether prose stands on both sides of a gutter."""
    sides: tuple[list[_Segment], list[_Segment]] = ([], [])
    for line in lines:
        for segment in line.segments:
            sides[segment.start >= gutter].append(segment)
    if min(map(len, sides)) < _FEWEST_LINES:
        return False
    lengths = (median(len(line.text) for line in _lines(side)) for side in sides)
    gap = min(one.start for one in sides[1]) - max(one.end for one in sides[0])
    return min(lengths) >= _SHORTEST_LINE and gap > 0
