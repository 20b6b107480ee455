"""The bundle that answers a question."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from rag.settings import AnswerSettings, DecodingSettings, GroundingSettings, RetrievalSettings, SearchMode


@dataclass(frozen=True, slots=True)
class Release:
    """Everything that decides an answer; equal releases answer alike.

    Attributes:
        fingerprint: Of the index.
        prompt: ``NAME@VERSION``.
        prompt_sha256: Of the prompt's content.
        adapter: The adapter of the reader, the generator or a local model; empty without one.
        reranker: The adapter of the reranker; empty without one.
        condenser: The adapter of the small generator where it makes follow-ups stand alone; else empty.
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

    @property
    def name(self) -> str:
        """A short identity: ``r-`` and eight hexadecimal digits."""
        return f"r-{self.sha256[:8]}"

    @property
    def sha256(self) -> str:
        """The whole identity, 64 hexadecimal digits."""
        told = json.dumps(asdict(self), sort_keys=True, default=lambda section: section.model_dump())
        return hashlib.sha256(told.encode()).hexdigest()

    @property
    def k(self) -> int:
        """Passages that reach the prompt."""
        return self.retrieval.k

    @property
    def mode(self) -> SearchMode:
        """Which sides are searched."""
        return self.retrieval.mode
