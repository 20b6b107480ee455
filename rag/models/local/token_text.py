"""From token ids to the text that may be shown: whole characters, and nothing of a stop sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

# A character has at most four bytes. What is still none after so many tokens will not become one.
_LONGEST_CHARACTER = 4
_BROKEN = "\ufffd"


class TextStream:
    """Turns token ids into text, piece by piece.

    A token may hold a part of a character, and a word may begin with a space or not depending on its
    neighbour. So each piece is what the text grows by when its tokens are decoded behind the ones before.

    Args:
        decode: Token ids to text, special tokens left out.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        # Decoding begins at `_start`; what stands before `_told` has been given out.
        self._start = 0
        self._told = 0

    def add(self, token: int) -> str:
        """What a further token adds to the text; empty while a character is not whole."""
        self._ids.append(token)
        new = self._new()
        unfinished = new.endswith(_BROKEN) and len(self._ids) - self._told <= _LONGEST_CHARACTER
        if not new or unfinished:
            return ""
        self._start, self._told = self._told, len(self._ids)
        return new

    def rest(self) -> str:
        """What was held back, when no further token comes."""
        new = self._new()
        self._start = self._told = len(self._ids)
        return new

    def _new(self) -> str:
        known = self._decode(self._ids[self._start : self._told])
        return self._decode(self._ids[self._start :])[len(known) :]


class StopFilter:
    """Ends a text before the first stop sequence in it, and holds back what may become one.

    Args:
        stops: The sequences; empty ones are ignored.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""

    def add(self, text: str) -> tuple[str, bool]:
        """The text that may be shown, and whether a stop sequence ends it here."""
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            shown, self._held = self._held[: min(found)], ""
            return shown, True
        keep = max((_beginning(self._held, stop) for stop in self._stops), default=0)
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown, False

    def rest(self) -> str:
        """What was held back, when no further text comes."""
        held, self._held = self._held, ""
        return held


def _beginning(text: str, stop: str) -> int:
    """How many characters at the end of a text are the beginning of a stop sequence."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
