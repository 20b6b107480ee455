"""Rules for the blocks of all formats.

Blocks are in order, do not overlap, neither start nor end with white space, and contain visible characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from rag.documents.loaders._text import clean, refused
from rag.types import Block, BlockKind

LONGEST_RUN = 2_000
"""Maximum characters of a run without white space; a longer one is data (base64, minified code)."""
LONGEST_HEADING = 200
LONGEST_WRAPPED_LINE = 200
"""Maximum characters of a hand-wrapped line; a longer one is a paragraph of its own."""
MUCH, TOO_MUCH = 1_000, 2_000
"""Characters of a paragraph after which it is split at the next sentence end, and at any line end."""
ENDINGS = (".", "!", "?", ":", ";", "。", "\uff01", "\uff1f")

# Scripts without spaces: Thai to Myanmar, Khmer, CJK and its punctuation, Yi, Javanese, Hangul.
_UNSPACED = (
    "\u0e00-\u109f\u1780-\u17ff\u2e80-\u9fff\ua000-\ua4cf\ua980-\ua9df"
    "\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
)
# The look-behind lets a match start only at the start of a run, which keeps the search linear.
_OPAQUE = re.compile(rf"(?<![^\s{_UNSPACED}])[^\s{_UNSPACED}]{{{LONGEST_RUN + 1},}}")
_VISIBLE = re.compile(r"\S")


class Sections:
    """The current heading path during a scan of a document.

    Attributes:
        path: Titles of the open headings, outermost first.
        title: The first heading of level 0 or 1, which serves as the document's title.
    """

    def __init__(self) -> None:
        self._open: list[tuple[int, str]] = []
        self.path: tuple[str, ...] = ()
        self.title: str | None = None

    def enter(self, level: int, title: str) -> tuple[str, ...]:
        """Open a section, closing those of the same or a deeper level, and return the new path."""
        while self._open and self._open[-1][0] >= level:
            self._open.pop()
        title = one_line(title)
        self._open.append((level, title))
        if self.title is None and level <= 1 and title:
            self.title = title
        self.path = tuple(name for _, name in self._open if name)
        return self.path


class Builder:
    """Composes the stored text of a binary format and records a block for every piece."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0
        self.blocks: list[Block] = []

    def add(
        self,
        piece: str,
        kind: BlockKind = "text",
        headings: tuple[str, ...] = (),
        page: int | None = None,
        gap: str = "\n\n",
    ) -> int | None:
        """Append a piece after ``gap`` and return its offset; a blank piece is skipped and returns None."""
        piece = clean(piece).strip()
        if not piece:
            return None
        if self._pieces:
            self._pieces.append(gap)
            self._length += len(gap)
        self.blocks.append(Block(self._length, self._length + len(piece), kind, headings, page))
        self._pieces.append(piece)
        self._length += len(piece)
        return self._length - len(piece)

    @property
    def text(self) -> str:
        return "".join(self._pieces)


def shifted(block: Block, by: int) -> Block:
    """Return a block of a text that stands ``by`` characters further in another."""
    return replace(block, start=block.start + by, end=block.end + by)


def one_line(text: str) -> str:
    """Return a heading or title on one line, truncated to ``LONGEST_HEADING`` characters."""
    # Truncate first, so that huge texts are not split for two hundred characters.
    return " ".join(clean(text[: LONGEST_HEADING * 10]).split())[:LONGEST_HEADING].rstrip()


def finished(path: Path, text: str, blocks: Iterable[Block]) -> tuple[Block, ...]:
    """Make blocks conform to the rules: trimmed, without overlap, without opaque runs.

    Raises:
        LoadError: Nothing readable remains.
    """
    kept, opaque = tidy(text, blocks)
    if kept:
        return kept
    if opaque:
        problem = f"contains only runs of more than {LONGEST_RUN:,} characters without a space (encoded data)"
        raise refused(path, problem, "Leave it out, or add its original source.")
    raise refused(path, "has no text to read", "Leave it out.")


def opaque_runs(text: str) -> int:
    """Return the number of runs without white space that are too long to be text, and are in no block."""
    return sum(1 for _ in _OPAQUE.finditer(text)) if len(text) > LONGEST_RUN else 0


def tidy(text: str, blocks: Iterable[Block]) -> tuple[tuple[Block, ...], bool]:
    """Return the conforming blocks, and whether the text contains opaque runs."""
    opaque = [match.span() for match in _OPAQUE.finditer(text)]
    kept: list[Block] = []
    free = 0  # Everything before this offset belongs to an earlier block.
    for block in blocks:
        for start, end in _outside(max(block.start, free), min(block.end, len(text)), opaque):
            trimmed = _trimmed(text, start, end)
            if trimmed is None:
                continue
            start, end = trimmed
            same = start == block.start and end == block.end
            kept.append(block if same else replace(block, start=start, end=end))
            free = end
    return tuple(kept), bool(opaque)


def _outside(start: int, end: int, spans: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the parts of ``[start, end)`` that no span covers."""
    # Bisection, because a file may contain many blocks and many such runs.
    low, high = 0, len(spans)
    while low < high:
        middle = (low + high) // 2
        if spans[middle][1] <= start:
            low = middle + 1
        else:
            high = middle
    while low < len(spans) and spans[low][0] < end:
        if start < spans[low][0]:
            yield start, spans[low][0]
        start = spans[low][1]
        low += 1
    if start < end:
        yield start, end


def _trimmed(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Return the range without surrounding white space; None if nothing in it is visible (blank, zero-width)."""
    first = _VISIBLE.search(text, start, end)
    if first is None:
        return None
    start = first.start()
    if text[end - 1].isspace():
        end = start + len(text[start:end].rstrip())
    shown = any(c.isprintable() and not c.isspace() for c in _characters(text, start, end))
    return (start, end) if shown else None


def _characters(text: str, start: int, end: int) -> Iterator[str]:
    """Iterate over a range without copying it, since the first character nearly always decides."""
    return (text[i] for i in range(start, end))


def paragraphs(text: str, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield start and end of every paragraph.

    Paragraphs end at blank lines. Files with one paragraph or item per line have none: there, a paragraph also
    ends after a line too long to be hand-wrapped, after a sentence end beyond ``MUCH`` characters, and after any
    line beyond ``TOO_MUCH``.
    """
    stop = len(text) if end is None else end
    first = -1
    for line_start, line_end in lines(text, start, stop):
        if _VISIBLE.search(text, line_start, line_end) is None:
            if first >= 0:
                yield first, line_start
            first = -1
            continue
        if first < 0:
            first = line_start
        length = line_end - first
        ends = length > MUCH and text[max(line_end - 3, line_start) : line_end].rstrip().endswith(ENDINGS)
        if line_end - line_start > LONGEST_WRAPPED_LINE or ends or length > TOO_MUCH:
            yield first, line_end
            first = -1
    if first >= 0:
        yield first, stop


def lines(text: str, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of every line, without its line end."""
    while start < stop:
        newline = text.find("\n", start, stop)
        end = stop if newline < 0 else newline
        yield start, end
        start = end + 1
