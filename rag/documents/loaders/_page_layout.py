"""Reading order of a PDF page from the places of its characters.

PDFium returns text in the order in which it is drawn, line by line. That is wrong for columns drawn row by row and
for turned pages. Only such pages are laid out here, since it takes a call per character.
"""

from __future__ import annotations

import ctypes
import math
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from statistics import median
from typing import Any

from rag.documents.loaders._page_lines import WIDEST_PITCH, Line, Part, Segment, lines_of, tables_in

_MOST_RECTANGLES = 5_000
_MOST_CHARACTERS = 50_000
_FEWEST_LINES = 3
"""Lines on both sides of a gutter that make columns."""
_NARROWEST_GAP = 0.8
"""Width of a gutter, in line heights."""
_SHORTEST_LINE = 15
"""Median characters of the lines of a column; shorter ones are cells of a table, which is read row by row."""
_GOING_ON = 0.4
"""Share of the lines of a column of prose that do not begin with a capital or a figure; usually most of them."""
_SAME_PLACE = 3.0
"""Points within which text begins at the same place."""
# A word, or a part of one before a hyphen at the end of a line, which PDFium leaves out with a sign.
_WORD = re.compile(r"(\s*)([^\s\x02\ufffe]*[\x02\ufffe]|[^\s\x02\ufffe]+)")


def reordered(content: Any, rotation: int) -> list[Part] | None:
    """Return the parts of a page in reading order; None if PDFium's order is right.

    Args:
        content: The text page.
        rotation: Degrees by which the page is turned.
    """
    count = content.count_chars()
    if not 1 < count <= _MOST_CHARACTERS:
        return None
    if not rotation and not _is_turned(content, count) and not _jumps(content):
        return None
    found = _by_direction(content, _words(content, count))
    # Text in other directions, such as a stamp on the margin, follows.
    order = sorted(found, key=lambda one: -sum(len(segment.text) for segment in found[one]))
    return [part for direction in order for part in in_order(lines_of(found[direction]))]


def _is_turned(content: Any, count: int) -> bool:
    """Whether most of a few characters are written in another direction than to the right."""
    from pypdfium2 import raw

    places = {count * part // 8 for part in range(1, 8)}
    turned = sum(1 for at in places if _quarter(raw.FPDFText_GetCharAngle(content, at)))
    return 2 * turned > len(places)


def _quarter(angle: float) -> int:
    """Return the counterclockwise quarter turns next to a clockwise angle in radians; -1 stands for none."""
    return -round(angle / (math.pi / 2)) % 4 if angle >= 0 else 0


def _jumps(content: Any) -> bool:
    """Whether the drawing order leaps over the same gap in several lines, or goes up the page."""
    from pypdfium2 import raw

    places: Counter[int] = Counter()
    # The library's own object would be converted in every call.
    page = content.raw
    left, top, right, bottom = (ctypes.c_double() for _ in range(4))
    before: tuple[float, float, float] | None = None
    rises = falls = 0
    for number in range(min(content.count_rects(), _MOST_RECTANGLES)):
        raw.FPDFText_GetRect(page, number, left, top, right, bottom)
        middle, height = (top.value + bottom.value) / 2, top.value - bottom.value
        # Lines side by side, but not always at the same height.
        if before is not None and abs(middle - before[1]) < max(height, before[2]):
            gap = left.value - before[0]
            if gap > height:
                place = round(left.value / _SAME_PLACE)
                places.update((place, place + 1))
                if max(places[place], places[place + 1]) >= _FEWEST_LINES:
                    return True
        elif before is not None:
            rises += middle > before[1]
            falls += middle < before[1]
        before = (right.value, middle, height)
    return rises > falls


def _words(content: Any, count: int) -> list[re.Match[str]]:
    """Return the words of a page, each after its white space; they are at the places of their characters.

    PDFium ends a word before any gap and where the direction changes, so two of its characters tell its place. A
    call for every character would take most of the time of a file.
    """
    from pypdfium2 import raw

    text = content.get_text_range()
    if len(text) != count:
        text = "".join(chr(raw.FPDFText_GetUnicode(content, at)) for at in range(count))
    return list(_WORD.finditer(text))


def _by_direction(content: Any, words: list[re.Match[str]]) -> dict[int, list[Segment]]:
    """Return the segments of every direction of writing, in drawing order."""
    from pypdfium2 import raw

    found: dict[int, list[Segment]] = {}
    page, first, last = content.raw, raw.FS_RECTF(), raw.FS_RECTF()
    current: Segment | None = None
    direction = 0
    for word in words:
        at = word.start(2)
        if not raw.FPDFText_GetLooseCharBox(page, at, first):
            continue
        raw.FPDFText_GetLooseCharBox(page, word.end() - 1, last)
        quarter = _quarter(raw.FPDFText_GetCharAngle(page, at))
        start, end, low, high = _turned(quarter, first)
        end = max(end, _turned(quarter, last)[1])
        middle, height = (low + high) / 2, max(high - low, 0.1)
        if (
            current is not None
            and quarter == direction
            and abs(middle - current.middle) < height / 2
            and -height < start - current.end < _NARROWEST_GAP * height
        ):
            current.text += " " * bool(word[1].strip("\r\n")) + word[2]
            current.end = max(current.end, end)
        else:
            current = Segment(word[2], start, end, middle, height)
            direction = quarter
            found.setdefault(quarter, []).append(current)
    return found


def _turned(quarter: int, box: Any) -> tuple[float, float, float, float]:
    """Return a box along and across the direction of writing: start, end, bottom, top."""
    if quarter == 1:
        return box.bottom, box.top, -box.right, -box.left
    if quarter == 2:
        return -box.right, -box.left, -box.top, -box.bottom
    if quarter == 3:
        return -box.top, -box.bottom, box.left, box.right
    return box.left, box.right, box.bottom, box.top


def in_order(lines: list[Line]) -> Iterator[Part]:
    """Yield the text and tables of a page, those of columns side by side one column after the other."""
    waiting = [lines]
    text: list[str] = []
    while waiting:
        part = waiting.pop()
        found = _columns(part)
        if found is None:
            for piece in tables_in(part, _usual_pitch(part)):
                if isinstance(piece, str):
                    text.append(piece)
                    continue
                if text:
                    yield "\n".join(text)
                    text = []
                yield piece
            continue
        first, last, gutter = found
        sides: tuple[list[Segment], list[Segment]] = ([], [])
        for line in part[first:last]:
            for segment in line.segments:
                sides[segment.start >= gutter].append(segment)
        # A sentence may go on in the next column, but not in what stands above and below the columns.
        around = ([*part[:first], Line()] if first else [], [Line(), *part[last:]] if last < len(part) else [])
        pieces = (around[0], *map(lines_of, sides), around[1])
        waiting.extend(piece for piece in reversed(pieces) if piece)
    if text:
        yield "\n".join(text)


def _columns(lines: list[Line]) -> tuple[int, int, float] | None:
    """Return the first line, the line after the last one, and the gutter of the tallest two columns."""
    if len(lines) < _FEWEST_LINES:
        return None
    usual = _usual_pitch(lines)
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


def _usual_pitch(lines: list[Line]) -> float:
    """Return the usual distance of two lines in points."""
    shown = [line.middle for line in lines if line.segments]
    return median([one - other for one, other in pairwise(shown)] or [1.0]) or 1.0


def _runs(lines: list[Line], gutter: float, usual: float) -> Iterator[tuple[int, int]]:
    """Yield the ranges of neighbouring lines that leave a gutter free."""
    first = 0
    before: Line | None = None
    for at, line in enumerate(lines):
        if not line.segments:
            continue
        crosses = any(segment.start < gutter < segment.end for segment in line.segments)
        most = max(usual, line.segments[0].height) * WIDEST_PITCH
        far = at > first and before is not None and before.middle - line.middle > most
        before = line
        if crosses or far:
            if at > first:
                yield first, at
            first = at + 1 if crosses else at
    if first < len(lines):
        yield first, len(lines)


def _is_prose(lines: list[str]) -> bool:
    """Whether sentences go on from line to line; names and figures of a table do not, and are read row by row."""
    starts = [line[:1] for line in lines[1:]]
    return sum(one.isalpha() and not one.isupper() for one in starts) >= _GOING_ON * len(starts)


def _are_columns(lines: list[Line], gutter: float) -> bool:
    """Whether prose stands on both sides of a gutter."""
    sides: tuple[list[Segment], list[Segment]] = ([], [])
    for line in lines:
        for segment in line.segments:
            sides[segment.start >= gutter].append(segment)
    if min(map(len, sides)) < _FEWEST_LINES:
        return False
    if min(one.start for one in sides[1]) <= max(one.end for one in sides[0]):
        return False
    texts = ([line.text for line in lines_of(side)] for side in sides)
    return all(median(map(len, side)) >= _SHORTEST_LINE and _is_prose(side) for side in texts)
