"""The rows that tasks are trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["short", "sentence", "refusal", "condense", "question", "prose"]


@dataclass(frozen=True, slots=True)
class ReadingRow:
    """A question and a passage that answers it, or does not.

    Attributes:
        place: Title and headings above the passage, outermost first.
        answers: First and one past the last character of each place in the passage that answers; none where
            the passage does not answer.
        exact: Whether each of ``answers`` is an answer; otherwise the answer lies somewhere inside.
    """

    question: str
    passage: str
    place: tuple[str, ...] = ()
    answers: tuple[tuple[int, int], ...] = ()
    exact: bool = True


@dataclass(frozen=True, slots=True)
class WritingRow:
    """A prompt and the reply that it should get.

    Attributes:
        kind: What is asked for; decides what is counted apart.
        texts: Of the messages, in order.
        passages: What of the last message are passages, best first.
    """

    kind: Kind
    texts: tuple[str, ...]
    reply: str
    passages: tuple[str, ...] = ()
