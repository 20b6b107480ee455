"""The last word on the order of what was found: none, or a tuned cross-encoder that reads question and passage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from rag.encoders.adapters import Adapter
from rag.encoders.question_passage_pair import Renderer, as_inputs
from rag.encoders.tuned_network import ConvertedModel
from rag.types import Hit

# Tokens of question, place and passage together that are read; most passages have 200 of their own.
WINDOW = 256
BATCH = 8


class Reranker(Protocol):
    """Puts hits into a better order."""

    depth: int
    """Hits that it wants to see at least, however few are wanted of it."""
    identity: str
    """Name and weights of its adapter; empty without one."""

    def rerank(self, query: str, hits: Sequence[Hit]) -> list[Hit]:
        """The same hits, best first, with ``rerank_score`` set."""
        ...


class NullReranker:
    """Keeps the order."""

    depth = 0
    identity = ""

    def rerank(self, query: str, hits: Sequence[Hit]) -> list[Hit]:
        """The same hits in the same order."""
        return list(hits)


class CrossReranker:
    """A tuned network that reads the question with each passage; its score is mixed with the place before it.

    Args:
        folder: What ``rag.encoders.tuned_conversion`` made.
        adapter: Whose card has the mixture.
        precision: ``bf16`` or ``f32``; bf16 needs a processor that computes in it.
        depth: Hits that are read; those behind them keep their order.

    Raises:
        AdapterError: The adapter is no reranker.
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
        """The same hits, best first; ``rerank_score`` is set on those that were read."""
        seen, rest = list(hits[: self.depth]), list(hits[self.depth :])
        logits = self.logits(query, seen)
        weight = self.adapter.card.rank_weight
        scored = [
            replace(hit, rerank_score=logit + weight * place_score(rank))
            for rank, (hit, logit) in enumerate(zip(seen, logits, strict=True), 1)
        ]
        return sorted(scored, key=lambda hit: -(hit.rerank_score or 0.0)) + rest

    def logits(self, query: str, hits: Sequence[Hit]) -> list[float]:
        """How well each passage goes with the question, by the network alone."""
        # The beginning of a passage that is too long stands for it.
        windows = [
            self._renderer.windows(query, (hit.passage.title, *hit.passage.headings), hit.passage.text)[0]
            for hit in hits
        ]
        # Like lengths go together, so that little is computed for padding.
        order = sorted(range(len(windows)), key=lambda at: len(windows[at].ids))
        batches = [order[at : at + BATCH] for at in range(0, len(order), BATCH)]
        found = [0.0] * len(windows)
        runs = self._model.network().run([as_inputs([windows[at] for at in batch]) for batch in batches])
        for batch, scores in zip(batches, runs, strict=True):
            for at, score in zip(batch, scores[:, 0].tolist(), strict=True):
                found[at] = score
        return found


def place_score(rank: int) -> float:
    """What the place before the reranking says, 0 to 1: much at the top, and ever less below."""
    return 10.0 / (9.0 + rank)
