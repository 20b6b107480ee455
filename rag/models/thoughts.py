"""Thoughts that a model writes into its reply, between ``<think>`` and ``</think>`` before the answer.

A server with a reasoning parser sends them apart; Ollama, llama.cpp and vLLM without one do not. Thoughts are no
part of an answer: they cite passages that the model rejects, and may contain any JSON. A trace keeps them, because
the span of the model has its whole reply.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rag.documents.citation_markers import CODE

_NAMES = ("think", "thinking", "thought")
_NAME = "|".join(_NAMES)
_OPENING = tuple(f"<{name}>" for name in _NAMES)
_OPEN = re.compile(rf"<(?:{_NAME})>", re.IGNORECASE)
_CLOSE = re.compile(rf"</(?:{_NAME})>", re.IGNORECASE)
_LONGEST_CLOSE = max(map(len, _OPENING)) + 1
# An end without a beginning: some chat templates put the beginning into the prompt. Inside a line or in code, the
# tag is a part of the answer.
_STRAY = re.compile(
    rf"{CODE}|(?P<stray>(?:(?<=\n)|\A)</(?:{_NAME})>|</(?:{_NAME})>[ \t]*(?=\n|\Z))", re.DOTALL | re.IGNORECASE
)
_SPACE = re.compile(r"\s*")


@dataclass(frozen=True, slots=True)
class Spoken:
    """A reply without its thoughts.

    Attributes:
        thinking: Whether the reply ends within thoughts.
    """

    text: str
    thinking: bool


def without_thoughts(reply: str) -> Spoken:
    """Take the thoughts out of a whole reply, in linear time."""
    thoughts = ThoughtFilter()
    answer = thoughts.feed(reply) + thoughts.end()
    stray = 0
    for found in _STRAY.finditer(answer):
        stray = found.end() if found["stray"] else stray
    return Spoken(answer[stray:].lstrip() if stray else answer, thoughts.thinking)


class ThoughtFilter:
    """Takes the thoughts out of a reply while it streams.

    Attributes:
        thinking: Whether the reply so far ends within thoughts.
    """

    def __init__(self) -> None:
        self.thinking = False
        self._answering = False
        # The end of the reply so far, as long as it may be the beginning of a tag.
        self._waiting = ""

    def feed(self, piece: str) -> str:
        """Return what the next piece of the reply adds to the answer, without white space before the answer."""
        if self._answering:
            return piece
        text, at = self._waiting + piece, 0
        while True:
            if self.thinking:
                close = _CLOSE.search(text, at)
                if close is None:
                    self._waiting = text[max(at, len(text) - _LONGEST_CLOSE + 1) :]
                    return ""
                at, self.thinking = close.end(), False
            # Always found, as it may be empty.
            at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
            opened = _OPEN.match(text, at)
            if opened is None:
                break
            at, self.thinking = opened.end(), True
        self._waiting = text[at:]
        if any(tag.startswith(self._waiting.lower()) for tag in _OPENING):
            return ""
        self._answering = True
        return self.end()

    def end(self) -> str:
        """Return the part of the answer that waited for the next piece."""
        rest = "" if self.thinking else self._waiting
        self._waiting = ""
        return rest
