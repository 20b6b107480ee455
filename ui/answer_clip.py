"""The end that a client sets to an answer: stop sequences, and a number of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


def _no_tokens(_text: str) -> Sequence[int]:
    return ()


@dataclass(frozen=True, slots=True)
class Clip:
    """Where an answer ends at the latest.

    Attributes:
        stops: Texts that end it; they are not part of it.
        tokens: Maximum number of its tokens; None for no limit.
        starts: Returns the offsets of the tokens of a text.
    """

    stops: tuple[str, ...] = ()
    tokens: int | None = None
    starts: Callable[[str], Sequence[int]] = field(default=_no_tokens, repr=False)

    def __call__(self, text: str) -> str:
        """Return a whole text up to its end."""
        at = min((at for stop in self.stops if (at := text.find(stop)) >= 0), default=len(text))
        return self._short(text[:at])

    def begun(self, text: str) -> str:
        """Return what can be sent of a text that may go on: no beginning of a stop sequence at its end."""
        # Also after a stop sequence: one that began before it may still be completed.
        held = max((_overlap(text, stop) for stop in self.stops), default=0)
        return self(text)[: len(text) - held]

    def is_too_long(self, text: str) -> bool:
        """Whether the number of tokens, and not a stop sequence, ends a text."""
        return self.tokens is not None and len(self.starts(Clip(self.stops)(text))) > self.tokens

    def _short(self, text: str) -> str:
        if self.tokens is None:
            return text
        starts = self.starts(text)
        return text[: starts[self.tokens]].rstrip() if len(starts) > self.tokens else text


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of a text that a stop sequence begins with."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
