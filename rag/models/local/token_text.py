"""Incremental decoding of token ids to text, with whole characters and without stop sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence

# A character has at most four bytes, so invalid text of more tokens will not become valid.
_LONGEST_CHARACTER = 4
_BROKEN = "\ufffd"


class TextStream:
    """Decodes token ids incrementally.

    A token may contain part of a character, and the space before a word may depend on the previous token. So new
    tokens are decoded together with previous ones, and the piece is what the text grows by.

    Args:
        decode: Decodes token ids to text, without special tokens.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        # Decoding starts at `_start`; tokens before `_emitted` have been returned.
        self._start = 0
        self._emitted = 0

    def add(self, token: int) -> str:
        """Add a token and return the new text; empty while a character is incomplete."""
        self._ids.append(token)
        new = self._new()
        unfinished = new.endswith(_BROKEN) and len(self._ids) - self._emitted <= _LONGEST_CHARACTER
        if not new or unfinished:
            return ""
        self._start, self._emitted = self._emitted, len(self._ids)
        return new

    def rest(self) -> str:
        """Return the buffered text at the end of the tokens."""
        new = self._new()
        self._start = self._emitted = len(self._ids)
        return new

    def _new(self) -> str:
        known = self._decode(self._ids[self._start : self._emitted])
        return self._decode(self._ids[self._start :])[len(known) :]


class StopFilter:
    """Ends a text before its first stop sequence, and buffers text that may become one.

    Args:
        stops: The stop sequences; empty ones are ignored.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._buffer = ""

    def add(self, text: str) -> tuple[str, bool]:
        """Add text, and return what may be shown and whether a stop sequence ends it."""
        self._buffer += text
        found = [at for stop in self._stops if (at := self._buffer.find(stop)) >= 0]
        if found:
            shown, self._buffer = self._buffer[: min(found)], ""
            return shown, True
        keep = max((_beginning(self._buffer, stop) for stop in self._stops), default=0)
        end = len(self._buffer) - keep
        shown, self._buffer = self._buffer[:end], self._buffer[end:]
        return shown, False

    def rest(self) -> str:
        """Return the buffered text at the end of the text."""
        rest, self._buffer = self._buffer, ""
        return rest


def _beginning(text: str, stop: str) -> int:
    """Return the length of the longest end of a text that starts a stop sequence."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
