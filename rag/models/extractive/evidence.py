"""Input of the extractive reader."""

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
    """The structured content of a rendered prompt.

    Attributes:
        messages: Texts of the prompt's messages without the fence around passages, for a model that was tuned on
            such prompts and has no roles; empty if the messages have no fence.
    """

    question: str
    passages: tuple[EvidencePassage, ...]
    refusal: str
    messages: tuple[str, ...] = ()
