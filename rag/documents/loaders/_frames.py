"""Serialization of documents to frames of bytes, from the parsing process to the requesting one.

A document is a JSON head, its blocks as columns of numbers, and its text in slices. The reader validates
everything, because a hostile file may have taken over the sender.
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
"""Characters of text per frame, at most four bytes each."""
MOST_BLOCKS = 1_000_000
"""Maximum blocks of a document: 50 MB of text in lines of 50 characters."""
DEEPEST = 64
"""Maximum depth of a heading path."""
LONGEST_FRAME = 128_000_000

_KINDS: tuple[BlockKind, ...] = get_args(BlockKind)
_COLUMNS = 5  # Start, end, kind, headings, page.


class FrameError(Exception):
    """The frames are not a valid document."""


class TooLarge(Exception):
    """A document exceeds a limit.

    Args:
        problem: The problem, as a predicate after the document's name.
        fix: The remedy.
    """

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.fix = fix


def frames_of(document: Document, longest: int) -> Iterator[bytes]:
    """Serialize a document.

    Args:
        document: The document.
        longest: Maximum bytes of its text in UTF-8.

    Raises:
        TooLarge: The document is too large; raised before the first frame.
    """
    text = document.text
    slices = range(0, len(text), SLICE)
    if text_bytes(text) > longest:
        problem = f"contains more than {longest / 1e6:,.0f} MB of text (ingest.max_text_mb)"
        raise TooLarge(problem, "Split it, or raise the setting.")
    if len(document.blocks) > MOST_BLOCKS:
        raise TooLarge(f"contains more than {MOST_BLOCKS:,} paragraphs or rows", "Split it.")
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
    """Return the size of a text in UTF-8, without encoding all of it at once."""
    return sum(len(text[at : at + SLICE].encode()) for at in range(0, len(text), SLICE))


class _Paths:
    """Numbers heading paths; a path is stored as the number of its parent and a title."""

    def __init__(self) -> None:
        self.parents: list[int] = []
        self.titles: list[str] = []
        self._numbers: dict[tuple[str, ...], int] = {(): 0}

    def number(self, path: tuple[str, ...]) -> int:
        """Return the number of a path, from 1; 0 is the empty path."""
        known = self._numbers.get(path)
        if known is not None:
            return known
        self.parents.append(self.number(path[:-1]))
        self.titles.append(path[-1])
        self._numbers[path] = len(self.parents)
        return len(self.parents)


def document_of(head: dict[str, Any], frames: Iterator[bytes], longest: int) -> Document:
    """Deserialize a document from its head and the frames that follow.

    Raises:
        FrameError: The frames are invalid, or the text is longer than ``longest`` bytes.
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
    # Every error that an invalid frame can cause.
    except (ValueError, TypeError, LookupError, AttributeError, StopIteration, RecursionError) as error:
        raise FrameError(f"{type(error).__name__}: {error}") from error


def _count(value: object, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise FrameError(f"a count must be a number from 0 to {most}, not {value!r}")
    return value


def _string(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise FrameError("a text must be a string without NUL")
    value.encode()  # Lone surrogates must fail here, not in the database.
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
        raise FrameError("the blocks do not match their count")
    return [array("Q", data[size * at : size * (at + 1)]) for at in range(_COLUMNS)]


def _text(frames: Iterator[bytes], slices: int, longest: int) -> str:
    pieces: list[str] = []
    for _ in range(slices):
        piece = next(frames)
        longest -= len(piece)
        if longest < 0:
            raise FrameError("the text exceeds the limit")
        pieces.append(_string(piece.decode()))
    return "".join(pieces)


def _paths(parents: object, titles: object) -> list[tuple[str, ...]]:
    if not isinstance(parents, list) or not isinstance(titles, list):
        raise FrameError("headings must be lists")
    paths: list[tuple[str, ...]] = [()]
    for parent, title in zip(parents, titles, strict=True):
        path = (*paths[_count(parent, len(paths) - 1)], _string(title))
        if len(path) > DEEPEST:
            raise FrameError("headings are nested too deeply")
        paths.append(path)
    return paths


def _blocks(columns: list[array[int]], paths: list[tuple[str, ...]], length: int) -> Iterator[Block]:
    free = 0
    for start, end, kind, path, page in zip(*columns, strict=True):
        if not free <= start < end <= length:
            raise FrameError("blocks must not overlap or lie outside of the text")
        free = end
        yield Block(start, end, _KINDS[kind], paths[path], page or None)
