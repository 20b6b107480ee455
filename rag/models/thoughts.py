"""Thoughts that a model writes into its reply, such as between ``<think>`` and ``</think>``, before the answer.

A server with a reasoning parser sends them apart; Ollama, llama.cpp and vLLM without one do not. Thoughts are no
part of an answer: they cite passages that the model rejects, and may contain any JSON. A trace keeps them, because
the span of the model has its whole reply.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from rag.documents.citation_markers import CODE

# Tags in angle brackets, also with bars: <think>, <|thought|>.
_TAGS = ("think", "thinking", "thought", "seed:think")
# Names that an answer in XML may have too.
_OTHER_TAGS = ("thoughts", "reasoning", "reflection")
# Tags of Magistral, Kimi, OpenThinker and gpt-oss.
_OTHER_PAIRS = (
    ("[think]", "[/think]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
)


def _pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the tags that begin and end thoughts of these names."""
    return [pair for name in names for pair in ((f"<{name}>", f"</{name}>"), (f"<|{name}|>", f"<|/{name}|>"))]


_PAIRS = (*_pairs(_TAGS), *_pairs(_OTHER_TAGS), *_OTHER_PAIRS)
_OPENING = tuple(opening for opening, _ in _PAIRS)
_OPEN = re.compile("|".join(map(re.escape, _OPENING)), re.IGNORECASE)
_CLOSE = re.compile("|".join(re.escape(closing) for _, closing in _PAIRS), re.IGNORECASE)
_LONGEST_CLOSE = max(len(closing) for _, closing in _PAIRS)
# An end without a beginning: some chat templates put the beginning into the prompt. Inside a line or in code, the
# tag is a part of the answer.
_END = "|".join(re.escape(closing) for _, closing in (*_pairs(_TAGS), *_OTHER_PAIRS))
_STRAY = re.compile(
    rf"{CODE}|(?P<stray>(?:(?<=\n)|\A)(?:{_END})|(?:{_END})[ \t]*(?=\n|\Z))", re.DOTALL | re.IGNORECASE
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
