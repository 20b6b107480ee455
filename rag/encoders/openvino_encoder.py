"""Encoder on the CPU, compiled by OpenVINO, without torch."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rag.encoders.compiled_network import CompiledNetwork, padded_width
from rag.encoders.encoder import EncoderCard
from rag.encoders.encoder_conversion import PASSAGES_GRAPH, read_card
from rag.encoders.encoder_tokens import TokenCounter
from rag.encoders.network_conversion import GRAPH, TOKENIZER

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Every stream allocates about 40 MB of buffers.
MOST_STREAMS = 8


class OpenVINOEncoder:
    """A converted encoder whose graphs are compiled at first use.

    Args:
        folder: The folder written by ``rag.encoders.encoder_conversion``.
        precision: ``bf16`` or ``f32``; bf16 needs a CPU that supports it.
        batch_size: Texts per batch.
        notice: See ``Encoder.notice``.

    Raises:
        EncoderError: The folder is damaged.
    """

    def __init__(self, folder: Path, *, precision: str, batch_size: int, notice: str = "") -> None:
        from tokenizers import Tokenizer

        self.card: EncoderCard = read_card(folder)
        self.runtime = f"OpenVINO {precision}"
        self.notice = notice
        self.tokens = TokenCounter(folder / TOKENIZER)
        self._folder = folder
        self._precision = precision
        self._batch_size = batch_size
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer.enable_truncation(self.card.max_tokens)
        self._tokenizer.no_padding()
        self._graphs: dict[str, CompiledNetwork] = {}
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str], on_progress: Callable[[int], None] | None = None) -> NDArray[np.float32]:
        """Embed texts; see ``rag.encoders.encoder.Encoder.embed``.

        Raises:
            EncoderError: OpenVINO refuses the model.
        """
        return self._embed(GRAPH, texts, on_progress)

    def embed_passages(
        self, texts: Sequence[str], on_progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Embed passages; see ``rag.encoders.encoder.Encoder.embed_passages``.

        Raises:
            EncoderError: OpenVINO refuses the model.
        """
        return self._embed(GRAPH if self._precision == "f32" else PASSAGES_GRAPH, texts, on_progress)

    def _embed(
        self, name: str, texts: Sequence[str], on_progress: Callable[[int], None] | None
    ) -> NDArray[np.float32]:
        import numpy as np

        graph = self._graph(name)
        distinct = list(dict.fromkeys(texts))
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(distinct)]
        vectors = np.empty((len(distinct), self.card.dimensions), np.float32)
        batches = self._batches([len(row) for row in ids])
        runs = graph.run([self._inputs([ids[number] for number in batch]) for batch in batches])
        for batch, found in zip(batches, runs, strict=True):
            vectors[batch] = found
            if on_progress:
                on_progress(len(batch))
        if len(distinct) == len(texts):
            return vectors
        if on_progress:
            on_progress(len(texts) - len(distinct))
        place = {text: number for number, text in enumerate(distinct)}
        return vectors[[place[text] for text in texts]]

    def _batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Group the indices of texts into batches of equal padded width.

        This saves padding, and makes the vector of a text independent of the other texts: with 8-bit weights,
        another width changed the vector of a passage (cosine down to 0.9995), while its neighbours did not.
        """
        widths: dict[int, list[int]] = {}
        for number, length in enumerate(lengths):
            widths.setdefault(padded_width(length, self.card.max_tokens), []).append(number)
        size = self._batch_size
        return [group[at : at + size] for _, group in sorted(widths.items()) for at in range(0, len(group), size)]

    def _graph(self, name: str) -> CompiledNetwork:
        with self._lock:
            if name not in self._graphs:
                streams = min(os.cpu_count() or 1, MOST_STREAMS) if name == PASSAGES_GRAPH else 1
                self._graphs[name] = CompiledNetwork(self._folder / name, self._precision, streams)
            return self._graphs[name]

    def _inputs(self, rows: list[list[int]]) -> dict[str, NDArray[np.int64]]:
        import numpy as np

        width = padded_width(max(map(len, rows)), self.card.max_tokens)
        ids = np.zeros((len(rows), width), np.int64)
        mask = np.zeros((len(rows), width), np.int64)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        return {"input_ids": ids, "attention_mask": mask}
