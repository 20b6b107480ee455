"""What is kept out of training, so that figures are measured on text that was never trained on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rag.evaluation.squad import read_articles

# Articles of the SQuAD 2.0 questions. The first one chooses (stopping, calibration); the others are only measured.
VALIDATION = ("Scottish_Parliament",)
TEST = ("Huguenot", "Packet_switching", "Islamism")

SQUAD = Path("squad/cs224n-dev-v2.0.json")
XQUAD = Path("squad/xquad.en.json")
_PLAIN = re.compile(r"[^a-z0-9]+")
_BRACKETS = re.compile(r"-[lr][rsc]b-")


@dataclass(frozen=True)
class HeldOut:
    """Knows the text that must not be trained on: XQuAD's paragraphs and the articles above."""

    data: Path

    def holds(self, text: str) -> bool:
        """Whether a paragraph, or a sentence of it however it was tokenised, is held out."""
        return plain(text) in self._texts

    @cached_property
    def _texts(self) -> str:
        paragraphs = [p.text for article in read_articles(self.data / XQUAD) for p in article.paragraphs]
        paragraphs += [
            paragraph.text
            for article in read_articles(self.data / SQUAD)
            if article.title in VALIDATION + TEST
            for paragraph in article.paragraphs
        ]
        # One text to look into: letters and digits only, a line break between paragraphs.
        return "\n".join(plain(paragraph) for paragraph in paragraphs)


def plain(text: str) -> str:
    """Letters and digits only, in lower case: equal for every way of tokenising."""
    return _PLAIN.sub("", _BRACKETS.sub("", text.lower()))
