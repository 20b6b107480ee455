"""Releases: the versioned bundles that answer questions."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from prompts import PromptTemplate
from rag.settings import (
    AnswerSettings,
    DecodingSettings,
    GroundingSettings,
    RetrievalSettings,
    SearchMode,
    Settings,
)


@dataclass(frozen=True, slots=True)
class Release:
    """Everything that determines an answer; equal releases answer alike.

    Attributes:
        fingerprint: Fingerprint of the index.
        prompt: ``NAME@VERSION``.
        prompt_sha256: Hash of the prompt's content.
        adapter: The adapter of the reader or a local model; empty without one.
        reranker: The adapter of the reranker; empty without one.
        condenser: The adapter of ``smollm2`` if it rewrites follow-ups; else empty.
    """

    corpus: str
    fingerprint: str
    prompt: str
    prompt_sha256: str
    model: str
    retrieval: RetrievalSettings
    decoding: DecodingSettings
    grounding: GroundingSettings
    answer: AnswerSettings = AnswerSettings()
    adapter: str = ""
    reranker: str = ""
    condenser: str = ""

    @classmethod
    def of(cls, settings: Settings, prompt: PromptTemplate) -> Release:
        """Return the release of resolved settings and their prompt, without a corpus and adapters."""
        return cls(
            corpus="",
            fingerprint="",
            prompt=prompt.label,
            prompt_sha256=prompt.sha256,
            model=settings.model,
            retrieval=settings.retrieval,
            decoding=settings.decoding,
            answer=settings.answer,
            grounding=settings.grounding,
        )

    @property
    def name(self) -> str:
        """Short identity: ``r-`` and eight hexadecimal digits."""
        return f"r-{self.sha256[:8]}"

    @property
    def sha256(self) -> str:
        """Complete identity, 64 hexadecimal digits."""
        content = json.dumps(asdict(self), sort_keys=True, default=lambda section: section.model_dump())
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def k(self) -> int:
        """Number of passages in the prompt."""
        return self.retrieval.k

    @property
    def mode(self) -> SearchMode:
        """The sides of the index that are searched."""
        return self.retrieval.mode
