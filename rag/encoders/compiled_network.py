"""A network compiled by OpenVINO, for the processor; torch is not imported."""

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

# Lengths are rounded up: OpenVINO keeps a compiled kernel for each shape that it has met, and with every length
# of its own the process grew from 320 MB to 670 MB. Questions are short and wait for their answer: theirs are
# rounded less (24 tokens in place of 32 take two thirds of the time).
LENGTH_STEP = 16
SHORT = 64
SHORT_STEP = 8
# Values that share a scale where the weights have 8 bits. With all 384 of a token one passage took 0.72 of the
# time, at a cosine of 0.996.
GROUP_SIZE = 128


class CompiledNetwork:
    """One compiled form of a network; safe to use from several threads.

    Args:
        path: The graph, an ``.xml`` file with its weights beside it.
        precision: ``bf16`` or ``f32``; bf16 needs a processor that computes in it.
        streams: Batches computed at once. With one stream all cores work on a batch: a question is answered
            soonest so. With a stream for each core and a batch in each, passages took 1.2 times less processor
            time.

    Raises:
        EncoderError: OpenVINO refuses the graph.
    """

    def __init__(self, path: Path, precision: str, streams: int = 1) -> None:
        import numpy as np
        import openvino
        from filelock import FileLock

        options = {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
            "NUM_STREAMS": str(streams),
            # Counts only where the weights have 8 bits.
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(GROUP_SIZE),
            "CACHE_DIR": str(path.parent / "cache"),
        }
        try:
            # Of two processes that fill the cache of kernels at once, one may find the other's file half written.
            with FileLock(path.parent / "compiling.lock"):
                model = openvino.Core().compile_model(path, "CPU", options)
            # OpenVINO sets the modes of its cache itself, whatever the process wants.
            close_below(path.parent / "cache")
        except RuntimeError as error:
            raise EncoderError(
                f"OpenVINO cannot load the network in {path.parent}: {_reason(error)}.",
                fix="Delete that folder; it is made again at the next start.",
            ) from error
        # The first array that OpenVINO meets sets up its bridge to numpy, and two threads doing that at once
        # wait for each other for ever: it is met here, where there is one.
        openvino.Tensor(np.zeros((1, 1), np.int64))
        self._model: Any = model
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(streams):
            self._requests.put(model.create_infer_request())
        self._pool = ThreadPoolExecutor(streams, thread_name_prefix="network")

    def run(self, batches: Sequence[Mapping[str, NDArray[np.int64]]]) -> Iterator[NDArray[np.float32]]:
        """What the network gives for each batch of named inputs, in order."""
        # A question is one batch: it is spared the way through another thread.
        return map(self._infer, batches) if len(batches) == 1 else self._pool.map(self._infer, batches)

    def infer(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """All that the network gives for named inputs."""
        # A question waits for one batch of an ingestion at most, not for all.
        request = self._requests.get()
        try:
            told = request.infer(dict(inputs), share_inputs=True)
            return [told[at].copy() for at in range(len(told))]
        finally:
            self._requests.put(request)

    def shape(self, at: int) -> tuple[int, ...]:
        """The sizes of an output, -1 where it may have any."""
        shape = self._model.output(at).partial_shape
        return tuple(size.get_length() if size.is_static else -1 for size in shape)

    def _infer(self, batch: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        return self.infer(batch)[0]


def _reason(error: RuntimeError) -> str:
    """What OpenVINO says went wrong, without the places in its own source that stand before it."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith("Exception from")).rstrip(".")


def padded_width(longest: int, most: int) -> int:
    """The width of a batch whose longest row has ``longest`` tokens; not above ``most`` unless the row is."""
    step = SHORT_STEP if longest <= SHORT else LENGTH_STEP
    return min(-(-longest // step) * step, max(most, longest))
