"""Networks compiled by OpenVINO for the CPU, without torch."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.errors import EncoderError
from rag.workspace import close_below

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Lengths are rounded up, because OpenVINO keeps a compiled kernel per shape: without rounding, the process grew
# from 320 MB to 670 MB. Short texts, such as questions, are rounded less, for lower latency (24 tokens instead of
# 32 take two thirds of the time).
LENGTH_STEP = 16
SHORT = 64
SHORT_STEP = 8
# Values that share a scale with 8-bit weights. A single scale for all 384 values of a token took 0.72 of the time,
# but reduced the cosine to 0.996.
GROUP_SIZE = 128


class CompiledNetwork:
    """A compiled network; safe to use from several threads.

    Args:
        path: The graph, an ``.xml`` file next to its weights.
        precision: ``bf16`` or ``f32``; bf16 needs a CPU that supports it.
        streams: Batches computed concurrently. With one stream, all cores work on a batch, for the lowest latency.
            With a stream per core, passages took 1.2 times less CPU time.

    Raises:
        EncoderError: OpenVINO refuses the graph.
    """

    def __init__(self, path: Path, precision: str, streams: int = 1) -> None:
        import numpy as np
        import openvino
        from filelock import FileLock

        # The names of the cache's files depend on the path: a link to the folder would fill it once more.
        path = path.resolve()
        options = {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
            "NUM_STREAMS": str(streams),
            # Only relevant with 8-bit weights.
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(GROUP_SIZE),
            "CACHE_DIR": str(path.parent / "cache"),
        }
        try:
            # Without the lock, a process could read a cache file that another one is still writing.
            with FileLock(path.parent / "compiling.lock"):
                model = openvino.Core().compile_model(path, "CPU", options)
            # OpenVINO ignores the umask for its cache.
            close_below(path.parent / "cache")
        except RuntimeError as error:
            raise EncoderError(
                f"OpenVINO cannot load the network in {path.parent}: {_reason(error)}.",
                fix="Delete that folder; it is created again at the next start.",
            ) from error
        # The first array initializes OpenVINO's bridge to numpy. Two threads that do so concurrently deadlock,
        # so it is done here.
        openvino.Tensor(np.zeros((1, 1), np.int64))
        self._model: Any = model
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(streams):
            self._requests.put(model.create_infer_request())
        self._pool = ThreadPoolExecutor(streams, thread_name_prefix="network")

    def run(self, batches: Sequence[Mapping[str, NDArray[np.int64]]]) -> Iterator[NDArray[np.float32]]:
        """Yield the first output for every batch of named inputs, in order."""
        # A question is a single batch and does not need another thread.
        return map(self._infer, batches) if len(batches) == 1 else self._pool.map(self._infer, batches)

    def _infer(self, batch: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        # During an ingestion, a question waits for at most one batch.
        request = self._requests.get()
        try:
            scores: NDArray[np.float32] = request.infer(dict(batch), share_inputs=True)[0].copy()
            return scores
        finally:
            self._requests.put(request)


def _reason(error: RuntimeError) -> str:
    """Return OpenVINO's error message without its source locations."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith("Exception from")).rstrip(".")


def padded_width(longest: int, most: int) -> int:
    """Return the padded width of a batch whose longest row has ``longest`` tokens, capped at ``most``."""
    step = SHORT_STEP if longest <= SHORT else LENGTH_STEP
    return min(-(-longest // step) * step, max(most, longest))
