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
    """The structured content of a rendered prompt."""

    question: str
    passages: tuple[EvidencePassage, ...]
    refusal: str
