"""The bundle that answers a question."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from rag.settings import DecodingSettings, RetrievalSettings, SearchMode


@dataclass(frozen=True, slots=True)
class Release:
    """Everything that decides an answer; equal releases answer alike.

    Attributes:
        fingerprint: Of the index.
        prompt: ``NAME@VERSION``.
        prompt_sha256: Of the prompt's content.
        min_support: Support under which the answer is a refusal.
    """

    corpus: str
    fingerprint: str
    prompt: str
    prompt_sha256: str
    model: str
    retrieval: RetrievalSettings
    decoding: DecodingSettings
    min_support: float

    @property
    def name(self) -> str:
        """A short identity: ``r-`` and eight hexadecimal digits."""
        told = {**asdict(self), "retrieval": self.retrieval.model_dump(), "decoding": self.decoding.model_dump()}
        return "r-" + hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def k(self) -> int:
        """Passages that reach the prompt."""
        return self.retrieval.k

    @property
    def mode(self) -> SearchMode:
        """Which sides are searched."""
        return self.retrieval.mode
