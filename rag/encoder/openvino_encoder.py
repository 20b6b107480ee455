"""An encoder on the processor, compiled by OpenVINO; torch is not imported."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.encoder.base import EncoderCard
from rag.encoder.convert import GRAPH, PASSAGES_GRAPH, TOKENIZER, read_card
from rag.encoder.quantize import GROUP_SIZE
from rag.encoder.tokens import TokenCounter
from rag.errors import EncoderError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Lengths are rounded up: OpenVINO keeps a compiled kernel for each shape that it has met, and with every length
# of its own the process grew from 320 MB to 670 MB. Questions are short and wait for their answer: theirs are
# rounded less (24 tokens in place of 32 take two thirds of the time).
LENGTH_STEP = 16
SHORT = 64
SHORT_STEP = 8
# Each stream holds buffers of its own, about 40 MB.
MOST_STREAMS = 8


class OpenVINOEncoder:
    """A converted encoder; its graphs are compiled when they are first used.

    Args:
        folder: What ``rag.encoder.convert`` made.
        precision: ``bf16`` or ``f32``; bf16 needs a processor that computes in it.
        batch_size: Texts computed together.
        notice: Why it runs slower than it could; empty when it does not.

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
        self._graphs: dict[str, _Graph] = {}
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str], on_progress: Callable[[int], None] | None = None) -> NDArray[np.float32]:
        """Embed texts; see ``rag.encoder.base.Encoder.embed``.

        Raises:
            EncoderError: OpenVINO refuses the model.
        """
        return self._embed(GRAPH, texts, on_progress)

    def embed_passages(
        self, texts: Sequence[str], on_progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Embed passages; see ``rag.encoder.base.Encoder.embed_passages``.

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
        # Texts of a length go together, so that little is computed for padding.
        order = sorted(range(len(ids)), key=lambda number: len(ids[number]))
        vectors = np.empty((len(distinct), self.card.dimensions), np.float32)
        batches = [order[at : at + self._batch_size] for at in range(0, len(order), self._batch_size)]
        runs = graph.run([[ids[number] for number in batch] for batch in batches])
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

    def _graph(self, name: str) -> _Graph:
        with self._lock:
            if name not in self._graphs:
                streams = min(os.cpu_count() or 1, MOST_STREAMS) if name == PASSAGES_GRAPH else 1
                self._graphs[name] = _Graph(self._folder / name, self._precision, streams, self.card.max_tokens)
            return self._graphs[name]


class _Graph:
    """One compiled form of the model.

    With one stream all cores work on a batch: a question is answered soonest so. With a stream for each core
    and a batch in each, passages took 1.2 times less processor time.
    """

    def __init__(self, path: Path, precision: str, streams: int, max_tokens: int) -> None:
        import numpy as np
        import openvino

        try:
            model = openvino.Core().compile_model(
                path,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": precision,
                    "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
                    "NUM_STREAMS": str(streams),
                    # Counts only where the weights have 8 bits.
                    "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(GROUP_SIZE),
                    "CACHE_DIR": str(path.parent / "cache"),
                },
            )
        except RuntimeError as error:
            raise EncoderError(
                f"OpenVINO cannot load the encoder in {path.parent}: {str(error).splitlines()[0]}.",
                fix="Delete that folder; it is made again at the next start.",
            ) from error
        # The first array that OpenVINO meets sets up its bridge to numpy, and two threads doing that at once
        # wait for each other for ever: it is met here, where there is one.
        openvino.Tensor(np.zeros((1, 1), np.int64))
        self._max_tokens = max_tokens
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(streams):
            self._requests.put(model.create_infer_request())
        self._pool = ThreadPoolExecutor(streams, thread_name_prefix="encoder")

    def run(self, batches: list[list[list[int]]]) -> Iterator[Any]:
        """The vectors of each batch, in order."""
        # A question is one batch: it is spared the way through another thread.
        return map(self._infer, batches) if len(batches) == 1 else self._pool.map(self._infer, batches)

    def _infer(self, batch: list[list[int]]) -> Any:
        import numpy as np

        longest = max(map(len, batch))
        step = SHORT_STEP if longest <= SHORT else LENGTH_STEP
        width = min(-(-longest // step) * step, max(self._max_tokens, longest))
        ids = np.zeros((len(batch), width), np.int64)
        mask = np.zeros((len(batch), width), np.int64)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        # A question waits for one batch of an ingestion at most, not for all.
        request = self._requests.get()
        try:
            return request.infer({"input_ids": ids, "attention_mask": mask}, share_inputs=True)[0].copy()
        finally:
            self._requests.put(request)
