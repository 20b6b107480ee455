"""Documents as frames of bytes, and back: what passes from the process that parses to the one that asked.

A document is a head in JSON, its blocks as columns of numbers, and its text in slices. Whoever reads them
believes nothing: the sender may have been taken over by the file that it parsed.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterator
from datetime import date
from typing import Any, get_args

from rag.types import Block, BlockKind, Document, Scalar

SLICE = 1_000_000
"""Characters of text in a frame; four bytes each at most."""
MOST_BLOCKS = 1_000_000
"""Blocks of one document: 50 MB of text in lines of 50 characters."""
DEEPEST = 64
"""Headings that a block may stand under."""
LONGEST_FRAME = 128_000_000

_KINDS: tuple[BlockKind, ...] = get_args(BlockKind)
_COLUMNS = 5  # Start, end, kind, headings, page.


class FrameError(Exception):
    """Frames are not what a document is made of."""


class TooLarge(Exception):
    """A document has more than may pass.

    Args:
        problem: What it has, to follow its name.
        fix: What to do about it.
    """

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.fix = fix


def frames_of(document: Document, longest: int) -> Iterator[bytes]:
    """Turn a document into frames.

    Args:
        longest: Bytes of UTF-8 that its text may have.

    Raises:
        TooLarge: It has more; no frame has been given then.
    """
    text = document.text
    slices = range(0, len(text), SLICE)
    if text_bytes(text) > longest:
        problem = f"holds more than {longest / 1e6:,.0f} MB of text (ingest.max_text_mb)"
        raise TooLarge(problem, "Split it, or raise the setting.")
    if len(document.blocks) > MOST_BLOCKS:
        raise TooLarge(f"holds more than {MOST_BLOCKS:,} paragraphs or rows", "Split it.")
    paths = _Paths()
    columns = [array("Q") for _ in range(_COLUMNS)]
    kinds = {kind: number for number, kind in enumerate(_KINDS)}
    for block in document.blocks:
        row = (block.start, block.end, kinds[block.kind], paths.number(block.headings[:DEEPEST]), block.page or 0)
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    yield json.dumps(
        {
            "title": document.title,
            "record": document.record,
            "metadata": dict(document.metadata),
            "date": document.date.isoformat() if document.date else None,
            "parents": paths.parents,
            "titles": paths.titles,
            "blocks": len(document.blocks),
            "slices": len(slices),
        }
    ).encode()
    yield b"".join(column.tobytes() for column in columns)
    for at in slices:
        yield text[at : at + SLICE].encode()


def text_bytes(text: str) -> int:
    """Return the bytes of a text in UTF-8, without a copy of all of it."""
    return sum(len(text[at : at + SLICE].encode()) for at in range(0, len(text), SLICE))


class _Paths:
    """Numbers for the paths of headings, each of which is the path above it and a title."""

    def __init__(self) -> None:
        self.parents: list[int] = []
        self.titles: list[str] = []
        self._numbers: dict[tuple[str, ...], int] = {(): 0}

    def number(self, path: tuple[str, ...]) -> int:
        """The number of a path, from 1; 0 is no heading."""
        known = self._numbers.get(path)
        if known is not None:
            return known
        self.parents.append(self.number(path[:-1]))
        self.titles.append(path[-1])
        self._numbers[path] = len(self.parents)
        return len(self.parents)


def document_of(head: dict[str, Any], frames: Iterator[bytes], longest: int) -> Document:
    """Read a document whose head has come; its other frames follow.

    Raises:
        FrameError: They are none, or the text is longer than ``longest`` bytes.
    """
    try:
        columns = _columns(next(frames), _count(head["blocks"], MOST_BLOCKS))
        text = _text(frames, _count(head["slices"], longest // SLICE + 1), longest)
        return Document(
            text=text,
            blocks=tuple(_blocks(columns, _paths(head["parents"], head["titles"]), len(text))),
            title=None if head["title"] is None else _string(head["title"]),
            record=_string(head["record"]),
            metadata={_string(name): _scalar(value) for name, value in head["metadata"].items()},
            date=None if head["date"] is None else date.fromisoformat(head["date"]),
        )
    # Whatever a strange frame sets off on its way into a document says the same.
    except (ValueError, TypeError, LookupError, AttributeError, StopIteration, RecursionError) as error:
        raise FrameError(f"{type(error).__name__}: {error}") from error


def _count(value: object, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise FrameError(f"a number of {value!r} where {most} is the most")
    return value


def _string(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise FrameError("a text that is none")
    value.encode()  # A lone surrogate is an error here, and not in the database.
    return value


def _scalar(value: object) -> Scalar:
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return _string(value)


def _columns(data: bytes, count: int) -> list[array[int]]:
    size = count * 8
    if len(data) != size * _COLUMNS:
        raise FrameError("blocks of another number")
    return [array("Q", data[size * at : size * (at + 1)]) for at in range(_COLUMNS)]


def _text(frames: Iterator[bytes], slices: int, longest: int) -> str:
    pieces: list[str] = []
    for _ in range(slices):
        piece = next(frames)
        longest -= len(piece)
        if longest < 0:
            raise FrameError("more text than is allowed")
        pieces.append(_string(piece.decode()))
    return "".join(pieces)


def _paths(parents: object, titles: object) -> list[tuple[str, ...]]:
    if not isinstance(parents, list) or not isinstance(titles, list):
        raise FrameError("headings that are no list")
    paths: list[tuple[str, ...]] = [()]
    for parent, title in zip(parents, titles, strict=True):
        path = (*paths[_count(parent, len(paths) - 1)], _string(title))
        if len(path) > DEEPEST:
            raise FrameError("headings that go too deep")
        paths.append(path)
    return paths


def _blocks(columns: list[array[int]], paths: list[tuple[str, ...]], length: int) -> Iterator[Block]:
    free = 0
    for start, end, kind, path, page in zip(*columns, strict=True):
        if not free <= start < end <= length:
            raise FrameError("blocks that overlap, or lie outside of the text")
        free = end
        yield Block(start, end, _KINDS[kind], paths[path], page or None)
