"""Held-out text: what is never trained on, so that metrics are measured on unseen text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rag.evaluation.squad import read_articles

# Articles of SQuAD 2.0: one for model selection (stopping, calibration), the others for testing only.
VALIDATION = ("Scottish_Parliament",)
TEST = ("Huguenot", "Packet_switching", "Islamism")

SQUAD = Path("squad/cs224n-dev-v2.0.json")
XQUAD = Path("squad/xquad.en.json")
_PLAIN = re.compile(r"[^a-z0-9]+")
_BRACKETS = re.compile(r"-[lr][rsc]b-")


@dataclass(frozen=True)
class HeldOut:
    """The text that must not be trained on: the paragraphs of XQuAD and of the articles above."""

    data: Path

    def holds(self, text: str) -> bool:
        """Whether a text is part of a held-out paragraph, however it was tokenized."""
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
        # One searchable text: letters and digits only, a line break between paragraphs.
        return "\n".join(plain(paragraph) for paragraph in paragraphs)


def plain(text: str) -> str:
    """Return letters and digits only, in lower case, so that tokenization makes no difference."""
    return _PLAIN.sub("", _BRACKETS.sub("", text.lower()))
