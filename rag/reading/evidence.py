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
    """What the reader reads, beside the rendered prompt: the same, not yet turned into text."""

    question: str
    passages: tuple[EvidencePassage, ...]
    refusal: str
