"""The pipeline of OpenVINO GenAI: how it is opened, and the loop that runs it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from threading import Event, Thread
from typing import Any

# Tokens that one step reads at most, so that a cancelled request ends soon and others go on beside a long prompt.
STEP_TOKENS = 512
# Tokens of the key-value cache, shared by all requests of a batch; its memory is used as it fills.
CACHE_TOKENS = 16_384
BLOCK_TOKENS = 32
# Tokens that a loop's own request may have, many more than the few until others have been added.
LEADING_TOKENS = 256


class Loop:
    """A call of ``generate``, which runs the pipeline until all requests are over.

    Only ``generate`` leaves Python's lock to other threads while it computes, and only it changes adapters. It
    begins with a short request of its own, beside which others are added.
    """

    def __init__(self, pipeline: Any, leading: Any) -> None:
        # The leading request has the number 0.
        self.numbers = itertools.count(1)
        self._begun = Event()
        self._left = False
        self._error: BaseException | None = None
        self._thread = Thread(target=self._work, args=(pipeline, leading), name="local model loop", daemon=True)
        self._thread.start()
        self._begun.wait()

    @property
    def alive(self) -> bool:
        """Whether the pipeline may still read requests."""
        return self._thread.is_alive()

    def leave(self) -> None:
        """End the leading request, since others keep the loop running."""
        self._left = True

    def join(self) -> None:
        """Wait for the end of the loop, and raise its error."""
        self.leave()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _work(self, pipeline: Any, leading: Any) -> None:
        import numpy as np
        import openvino
        from openvino_genai import StreamerBase, StreamingStatus

        loop = self

        class Leading(StreamerBase):  # type: ignore[misc]
            def write(self, token: Any) -> StreamingStatus:
                loop._begun.set()
                return StreamingStatus.CANCEL if loop._left else StreamingStatus.RUNNING

            def end(self) -> None:
                pass

        try:
            pipeline.generate([openvino.Tensor(np.zeros((1, 1), np.int64))], [leading], Leading())
        except Exception as error:  # noqa: BLE001 - raised by `join`, in the thread that waits
            self._error = error
        finally:
            self._begun.set()


def open_pipeline(folder: Path, properties: Mapping[str, Any]) -> Any:
    """Open a converted model.

    Raises:
        RuntimeError: OpenVINO refuses the files.
    """
    import openvino_genai

    scheduler = openvino_genai.SchedulerConfig()
    scheduler.num_kv_blocks = CACHE_TOKENS // BLOCK_TOKENS
    scheduler.max_num_batched_tokens = STEP_TOKENS
    scheduler.dynamic_split_fuse = True
    # A cached prefix would be that of another adapter.
    scheduler.enable_prefix_caching = False
    return openvino_genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", dict(properties))


def servable_dtype(dtype: str) -> str:
    """Return the number format for this process: with a single core, OpenVINO 2026.4 crashes in bf16 (SIGFPE)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return "f32" if dtype == "bf16" and cores == 1 else dtype


def endless_config(tokens: int) -> Any:
    """Return the configuration of a greedy request that ends after so many tokens, and at no end token."""
    import openvino_genai

    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = tokens
    config.ignore_eos = True
    # A request without one is refused.
    config.set_eos_token_id(0)
    return config
