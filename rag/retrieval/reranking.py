"""Reranking of hits by a tuned cross-encoder, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from rag.encoders.adapters import Adapter
from rag.encoders.question_passage_pair import Renderer, as_inputs
from rag.encoders.tuned_network import ConvertedModel
from rag.types import Hit

# Maximum tokens of question, place and passage together; most passages have 200 tokens.
WINDOW = 256
BATCH = 8


class Reranker(Protocol):
    """Reorders hits."""

    depth: int
    """Minimum number of hits to retrieve for reranking."""
    identity: str
    """Identity of its adapter; empty without one."""

    def rerank(self, query: str, hits: Sequence[Hit]) -> list[Hit]:
        """Return the hits, best first, with ``rerank_score`` set."""
        ...


class NullReranker:
    """Keeps the order of hits."""

    depth = 0
    identity = ""

    def rerank(self, query: str, hits: Sequence[Hit]) -> list[Hit]:
        """Return the hits in the same order."""
        return list(hits)


class CrossReranker:
    """Reranks by a tuned cross-encoder, mixing its score with the previous rank.

    Args:
        folder: The folder written by ``rag.encoders.tuned_conversion``.
        adapter: The adapter, whose card has the weight of the previous rank.
        precision: ``bf16`` or ``f32``; bf16 needs a CPU that supports it.
        depth: Number of hits to rerank; later ones keep their order.

    Raises:
        AdapterError: The adapter is not a reranker.
        EncoderError: The folder is damaged.
    """

    def __init__(self, folder: Path, adapter: Adapter, *, precision: str, depth: int) -> None:
        adapter.check_task("reranker")
        self._model = ConvertedModel(folder, adapter, precision)
        self._renderer = Renderer(self._model.tokenizer(), WINDOW)
        self.adapter = adapter
        self.identity = adapter.identity
        self.depth = depth

    def rerank(self, query: str, hits: Sequence[Hit]) -> list[Hit]:
        """Return the hits, best first; ``rerank_score`` is set on the first ``depth`` ones."""
        scored_hits, rest = list(hits[: self.depth]), list(hits[self.depth :])
        logits = self.logits(query, scored_hits)
        weight = self.adapter.card.rank_weight
        scored = [
            replace(hit, rerank_score=logit + weight * place_score(rank))
            for rank, (hit, logit) in enumerate(zip(scored_hits, logits, strict=True), 1)
        ]
        return sorted(scored, key=lambda hit: -(hit.rerank_score or 0.0)) + rest

    def logits(self, query: str, hits: Sequence[Hit]) -> list[float]:
        """Score the relevance of every passage by the network alone."""
        # Only the first window of a long passage is scored.
        windows = [
            self._renderer.windows(query, (hit.passage.title, *hit.passage.headings), hit.passage.text)[0]
            for hit in hits
        ]
        # Sorted by length, to save padding.
        order = sorted(range(len(windows)), key=lambda at: len(windows[at].ids))
        batches = [order[at : at + BATCH] for at in range(0, len(order), BATCH)]
        found = [0.0] * len(windows)
        runs = self._model.network().run([as_inputs([windows[at] for at in batch]) for batch in batches])
        for batch, scores in zip(batches, runs, strict=True):
            for at, score in zip(batch, scores[:, 0].tolist(), strict=True):
                found[at] = score
        return found


def place_score(rank: int) -> float:
    """Return the score of a previous rank, from 1 at the top down towards 0."""
    return 10.0 / (9.0 + rank)
