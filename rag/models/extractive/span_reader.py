"""The tuned reader: the best span of every sentence for a question, with its margin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rag.documents.sentences import split_sentences
from rag.encoders.adapters import Adapter, Calibration
from rag.encoders.question_passage_pair import Renderer, as_inputs
from rag.encoders.tuned_network import ConvertedModel
from rag.errors import AdapterError
from rag.models.extractive.spans import Span, best_spans

# Windows per batch: the five passages of a question are one batch.
BATCH = 8


@dataclass(frozen=True, slots=True)
class ReadPassage:
    """A passage to read: its text, and title and headings above it, outermost first."""

    text: str
    place: tuple[str, ...] = ()


class SpanReader:
    """A converted reader whose graph is compiled at first use.

    Args:
        folder: The folder written by ``rag.encoders.tuned_conversion``.
        adapter: The adapter, whose card has the calibration.
        precision: ``bf16`` or ``f32``; bf16 needs a CPU that supports it.

    Raises:
        AdapterError: The card has no calibration.
        EncoderError: The folder is damaged.
    """

    def __init__(self, folder: Path, adapter: Adapter, *, precision: str) -> None:
        calibration = adapter.card.calibration
        if calibration is None:
            raise AdapterError(f"The adapter {adapter.folder} must have a calibration in its card to be a reader.")
        self.adapter = adapter
        self._calibration: Calibration = calibration
        self._model = ConvertedModel(folder, adapter, precision)
        self._renderer = Renderer(self._model.tokenizer())

    def read(self, question: str, passages: Sequence[ReadPassage]) -> list[list[Span]]:
        """Find the best span of every sentence.

        Args:
            question: The question, truncated to its first 64 tokens.
            passages: Any number of passages; long ones are read in overlapping windows.

        Returns:
            A list per passage with the spans of its sentences in order, without sentences that have no tokens.

        Raises:
            EncoderError: OpenVINO refuses the network.
        """
        windows = [
            (number, window)
            for number, passage in enumerate(passages)
            for window in self._renderer.windows(question, passage.place, passage.text)
        ]
        # Sorted by length, to save padding.
        windows.sort(key=lambda pair: len(pair[1].ids))
        batches = [windows[at : at + BATCH] for at in range(0, len(windows), BATCH)]
        sentences = [split_sentences(passage.text) for passage in passages]
        best: list[dict[int, Span]] = [{} for _ in passages]
        runs = self._model.network().run([as_inputs([window for _, window in batch]) for batch in batches])
        for batch, scores in zip(batches, runs, strict=True):
            for row, (number, window) in enumerate(batch):
                for span in best_spans(window, scores[row], sentences[number]):
                    known = best[number].get(span.sentence.start)
                    if known is None or span.margin > known.margin:
                        best[number][span.sentence.start] = span
        return [[spans[start] for start in sorted(spans)] for spans in best]

    def probability(self, margin: float) -> float:
        """Return the calibrated probability that a passage with this best margin answers the question, 0 to 1."""
        logit = self._calibration.slope * margin + self._calibration.intercept
        return 1 / (1 + math.exp(-max(min(logit, 50.0), -50.0)))
