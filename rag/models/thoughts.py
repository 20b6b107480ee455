"""Thoughts that a model writes into its reply, such as between ``<think>`` and ``</think>``, before the answer.

A server with a reasoning parser sends them apart; Ollama, llama.cpp and vLLM without one do not. Thoughts are no
part of an answer: they cite passages that the model rejects, and may contain any JSON. Nor are the tokens of a
chat template around an answer. A trace keeps both, because the span of the model has its whole reply.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from rag.documents.citation_markers import CODE

# Tags in angle brackets, also with bars or attributes: <think>, <|thought|>.
_TAGS = "think|thinking|thought|thought_process|antthinking|inner_monologue|seed:think"
# Names that an answer in XML may have too.
_OTHER_TAGS = "thoughts|reasoning|reflection|analysis|rationale|scratchpad"
# Tags of Magistral, Kimi, OpenThinker, Command A, Apertus and MedGemma.
_OPENINGS = (
    r"\[think\]|◁think▷|<\|begin_of_thought\|>|<\|start_thinking\|>|<\|inner_prefix\|>|<unused94>(?:thought\n)?"
)
_CLOSINGS = r"\[/think\]|◁/think▷|<\|end_of_thought\|>|<\|end_thinking\|>|<\|inner_suffix\|>|<unused95>"
_FINAL = r"<\|channel\|>final<\|message\|>"
_OPENING_TAG = rf"<\|?(?:{_TAGS})(?:\s[^<>]{{0,100}})?\|?>|{_OPENINGS}"
_CLOSING_TAG = rf"<(?:/|\|/)(?:{_TAGS})\|?>|{_CLOSINGS}|{_FINAL}"
# How thoughts begin, and how they end: by tags, of which some models mix up the names; of gpt-oss, also without
# its special tokens; of Granite; of Ollama's command line; of Open WebUI.
_KINDS = (
    (
        rf"{_OPENING_TAG}|<\|?(?:{_OTHER_TAGS})\|?>|<\|channel\|>(?:analysis|commentary)<\|message\|>",
        rf"{_CLOSING_TAG}|<(?:/|\|/)(?:{_OTHER_TAGS})\|?>",
    ),
    (r"(?-i:analysis(?=[A-Z]))", r"(?-i:assistantfinal)"),
    (r"here(?:['’]s| is) my thought process:", r"here(?:['’]s| is) my response:"),
    (r"thinking\.\.\.\n", r"\.\.\.done thinking\."),
    (r"```think(?:ing)?\n", r"\n```"),
    (r"<details type=\"reasoning\"[^<>]{0,100}>", r"</details>"),
)
# What stands before an answer, and after it. An answer stands in tags only behind thoughts: others are its own.
_FRAME = rf"{_FINAL}|<\|im_start\|>assistant|<\|start\|>assistant|<\|start_response\|>|<\|begin_of_solution\|>"
_ANSWER_TAG = r"<answer>|<response>"
_ANSWER_ENDINGS = ("</answer>", "</response>")
_ENDINGS = (
    "<|end_response|>", "<|end_of_solution|>", "<|im_end|>", "<|return|>", "<|end|>", "<|eot_id|>",
    "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<pad>", "<end_of_turn>", "<｜end▁of▁sentence｜>",
)  # fmt: skip
# Maximum characters of endings in a row that may still turn out to be a part of the answer.
_LONGEST_TAIL = 1000
# A tag without its partner: some chat templates put the beginning into the prompt, and some models think again
# behind their answer. Inside a line or in code, the tag is a part of the answer.
_STRAY = re.compile(
    rf"{CODE}|(?P<stray>(?:(?<=\n)|\A)(?:{_CLOSING_TAG})|(?:{_CLOSING_TAG})[ \t]*(?=\n|\Z))",
    re.DOTALL | re.IGNORECASE,
)
_AGAIN = re.compile(rf"{CODE}|(?P<stray>(?:(?<=\n)|\A)(?:{_OPENING_TAG}))", re.DOTALL | re.IGNORECASE)
# Also of no width, such as a byte order mark.
_SPACE = re.compile(r"[\s\ufeff\u200b\u2060]*")


@cache
def _patterns() -> tuple[Any, tuple[Any, ...]]:
    """Return the pattern of what may stand before an answer, and those that end thoughts of each kind."""
    # Unlike `re`, it tells what may be the beginning of a match.
    import regex  # type: ignore[import-untyped]

    kinds = "|".join(f"(?P<kind{number}>{opening})" for number, (opening, _) in enumerate(_KINDS))
    opening = regex.compile(rf"{kinds}|(?P<frame>{_FRAME})|(?P<answer>{_ANSWER_TAG})", regex.IGNORECASE)
    return opening, tuple(regex.compile(closing, regex.IGNORECASE) for _, closing in _KINDS)


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
    spoken = _filtered(reply, ThoughtFilter())
    stray = max((found.end() for found in _STRAY.finditer(spoken.text) if found["stray"]), default=0)
    if stray and spoken.text[stray:].strip():
        return _filtered(spoken.text[stray:], ThoughtFilter(behind_thoughts=True))
    again = next((found.start() for found in _AGAIN.finditer(spoken.text) if found["stray"]), None)
    if again is not None:
        return Spoken(spoken.text[:again].rstrip(), spoken.thinking)
    return Spoken("" if stray else spoken.text, spoken.thinking)


def _filtered(reply: str, thoughts: ThoughtFilter) -> Spoken:
    return Spoken(thoughts.feed(reply) + thoughts.end(), thoughts.thinking)


class ThoughtFilter:
    """Takes the thoughts, and the tokens of a chat template, out of a reply while it streams.

    Args:
        behind_thoughts: Whether what comes stands behind thoughts.
    """

    def __init__(self, *, behind_thoughts: bool = False) -> None:
        self._behind_thoughts = behind_thoughts
        self._answering = False
        # The pattern that ends the current thoughts.
        self._closing: Any = None
        self._endings = _ENDINGS
        # The end of the reply so far, as long as it may be a tag, or the beginning of one.
        self._waiting = ""

    @property
    def thinking(self) -> bool:
        """Whether the reply so far ends within thoughts."""
        return self._closing is not None

    def feed(self, piece: str) -> str:
        """Return what the next piece of the reply adds to the answer, without white space before the answer."""
        text, self._waiting = self._waiting + piece, ""
        if not self._answering:
            text = self._after_thoughts(text)
        if not self._answering:
            self._waiting = text
            return ""
        end = self._end_of_answer(text)
        self._waiting = text[end:]
        return text[:end]

    def end(self) -> str:
        """Return the part of the answer that waited for the next piece."""
        rest, self._waiting = self._waiting, ""
        if self.thinking:
            return ""
        # Without what turned out to be no ending.
        return "" if self._answering and rest.lower().rstrip().endswith(self._endings) else rest

    def _after_thoughts(self, text: str) -> str:
        """Return the text from the beginning of the answer; before it, what must wait for the next piece."""
        opening, closings = _patterns()
        at = 0
        while True:
            if self._closing is not None:
                close = self._closing.search(text, at, partial=True)
                if close is None or close.partial:
                    return text[close.start() :] if close else ""
                at, self._closing, self._behind_thoughts = close.end(), None, True
            # Always found, as it may be empty.
            at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
            opened = opening.match(text, at, partial=True)
            if opened is not None and opened.partial:
                return text[at:]
            if opened is None or (opened["answer"] and not self._behind_thoughts):
                self._answering = True
                return text[at:]
            at = opened.end()
            if opened["answer"]:
                self._endings = (*_ENDINGS, *_ANSWER_ENDINGS)
            elif not opened["frame"]:
                self._closing = closings[int(opened.lastgroup.removeprefix("kind"))]

    def _end_of_answer(self, text: str) -> int:
        """Return the offset from which a text has nothing but endings, the last of which may be incomplete."""
        tail = text[-_LONGEST_TAIL:].lower()
        last = tail.rfind("<")
        incomplete = last >= 0 and any(ending.startswith(tail[last:]) for ending in self._endings)
        begins = last if incomplete else len(tail)
        size = len(tail[:begins].rstrip())
        while ending := next((one for one in self._endings if tail.endswith(one, 0, size)), ""):
            begins = size - len(ending)
            size = len(tail[:begins].rstrip())
        return len(text) - len(tail) + begins
