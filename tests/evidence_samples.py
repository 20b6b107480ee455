"""The pages of ``tiny`` as evidence, and what a reader replies to it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from langchain_core.messages import HumanMessage
from tiny import PAGES

from rag.encoders import Encoder
from rag.indexing.lexical_index import LexicalEntry, LexicalIndex
from rag.models.extractive.evidence import Evidence, EvidencePassage
from rag.models.extractive.extractive_chat import ExtractiveReader
from rag.models.replies import ModelInput, Reply, reply_to

REFUSAL = "Nothing about that."
TEXTS = list(PAGES.values())
UNANSWERED = (
    "Which opera did Verdi write for Cairo?",
    "How do I reset my password?",
    "What is the boiling point of mercury?",
    "How many goals did Pelé score?",
    "",
    "???",
)


def lexical_at(folder: Path) -> LexicalIndex:
    """Knows the words of the small corpus."""
    index = LexicalIndex(folder)
    index.write([LexicalEntry(number, number, 0, text) for number, text in enumerate(TEXTS, 1)])
    return index


def nearest_first(encoder: Encoder, question: str, texts: Sequence[str]) -> list[str]:
    """The texts in the order in which a search would give them."""
    vectors = encoder.embed([question, *texts])
    return [texts[at] for at in (-vectors[1:] @ vectors[0]).argsort()]


def evidence_of(encoder: Encoder, question: str, texts: Sequence[str], titles: Sequence[str] = ()) -> Evidence:
    """Passages in this order, with the cosine that the search would have given them."""
    titles = titles or [""] * len(texts)
    vectors = encoder.embed([question, *texts])
    cosines = vectors[1:] @ vectors[0]
    return Evidence(
        question,
        tuple(
            EvidencePassage(number, text, title, (), float(cosine))
            for number, (text, title, cosine) in enumerate(zip(texts, titles, cosines, strict=True), 1)
        ),
        REFUSAL,
    )


def replied(reader: ExtractiveReader, evidence: Evidence) -> Reply:
    """The whole reply of a reader."""
    return asyncio.run(reply_to(reader, ModelInput((HumanMessage(evidence.question),), evidence), {}))
