"""What a reader reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EvidencePassage:
    """One numbered passage of the prompt."""

    number: int
    text: str
    title: str
    headings: tuple[str, ...]
    cosine: float | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the reader reads, beside the rendered prompt: the same, not yet turned into text.

    Attributes:
        messages: The texts of the prompt's messages without the fence around passages, for a model that was tuned
            on such prompts and knows neither roles nor lines; empty where the messages themselves have none.
    """

    question: str
    passages: tuple[EvidencePassage, ...]
    refusal: str
    messages: tuple[str, ...] = ()
