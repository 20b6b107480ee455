"""The tuned reader: for a question and passages, the best span of every sentence and how sure it is."""

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

# Windows computed together: the five passages of a question are one batch.
BATCH = 8


@dataclass(frozen=True, slots=True)
class ReadPassage:
    """What is read: a text, and what stands above it, outermost first."""

    text: str
    place: tuple[str, ...] = ()


class SpanReader:
    """A converted reader; its graph is compiled when it is first used.

    Args:
        folder: What ``rag.encoders.tuned_conversion`` made.
        adapter: Whose card has the calibration.
        precision: ``bf16`` or ``f32``; bf16 needs a processor that computes in it.

    Raises:
        AdapterError: The card has no calibration.
        EncoderError: The folder is damaged.
    """

    def __init__(self, folder: Path, adapter: Adapter, *, precision: str) -> None:
        calibration = adapter.card.calibration
        if calibration is None:
            raise AdapterError(f"The adapter {adapter.folder} is no reader: its card has no calibration.")
        self.adapter = adapter
        self._calibration: Calibration = calibration
        self._model = ConvertedModel(folder, adapter, precision)
        self._renderer = Renderer(self._model.tokenizer())

    def read(self, question: str, passages: Sequence[ReadPassage]) -> list[list[Span]]:
        """The best span of every sentence, by passage.

        Args:
            question: Its first 64 tokens are read.
            passages: Any number; long ones are read in windows that overlap.

        Returns:
            For each passage its sentences in order, without those that have no token of their own.

        Raises:
            EncoderError: OpenVINO refuses the network.
        """
        windows = [
            (number, window)
            for number, passage in enumerate(passages)
            for window in self._renderer.windows(question, passage.place, passage.text)
        ]
        # Like lengths go together, so that little is computed for padding.
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
        """How probably a passage whose best span has this margin answers the question, 0 to 1."""
        told = self._calibration.slope * margin + self._calibration.intercept
        return 1 / (1 + math.exp(-max(min(told, 50.0), -50.0)))
