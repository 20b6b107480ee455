"""The pipeline of OpenVINO GenAI: how it is opened, and the loop that runs it."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

# Tokens that one step reads at most, so that a cancelled request ends soon and others go on beside a long prompt.
# OpenVINO keeps kernels for every number of tokens that a step has had, 3 MB each with an adapter: with steps of
# 256 tokens, SmolLM2 grew by 360 MB in 120 prompts; with 64 it stayed within 200 MB. An answer takes 3 % longer.
STEP_TOKENS = 64
# Most tokens of the key-value cache, which all requests of a batch share; its memory is used as it fills.
CACHE_TOKENS = 16_384
# A model whose window is shorter needs no larger cache, for several requests of the usual length.
USUAL_CACHE_TOKENS = 8_192
BLOCK_TOKENS = 32


@dataclass(frozen=True, slots=True)
class LeadingTokens:
    """New tokens, as OpenVINO's handles return them."""

    generated_ids: list[int]


class Loop:
    """A call of ``generate``, which runs the pipeline until all requests are over.

    Only ``generate`` leaves Python's lock to other threads while it computes, and only it changes adapters.
    Its own request leads: it is read by the methods of OpenVINO's handles, and others are added beside it once
    it has begun. A request that is alone is computed in the same steps each time, so greedy answers repeat.

    Args:
        pipeline: The pipeline, without a request.
        prompt: Token ids of the leading request, of shape (1, n).
        config: Its configuration.
    """

    def __init__(self, pipeline: Any, prompt: Any, config: Any) -> None:
        # The leading request has the number 0.
        self.numbers = itertools.count(1)
        self._begun = Event()
        self._left = False
        self._tokens: deque[int] = deque()
        self._wrote = False
        self._error: BaseException | None = None
        given = (pipeline, prompt, config)
        self._thread = Thread(target=self._work, args=given, name="local model loop", daemon=True)
        self._thread.start()
        self._begun.wait()

    @property
    def alive(self) -> bool:
        """Whether the pipeline may still read requests."""
        return self._thread.is_alive()

    def get_status(self) -> Any:
        """Return the status of the leading request."""
        from openvino_genai import GenerationStatus

        if self.alive or self._error is not None:
            return GenerationStatus.RUNNING
        # Without room in the cache, nothing is generated.
        return GenerationStatus.FINISHED if self._wrote or self._left else GenerationStatus.IGNORED

    def can_read(self) -> bool:
        """Whether the leading request has new tokens."""
        return bool(self._tokens)

    def read(self) -> dict[int, LeadingTokens]:
        """Return the next token of the leading request."""
        return {0: LeadingTokens([self._tokens.popleft()])}

    def cancel(self) -> None:
        """End the leading request; others keep the loop running."""
        self._left = True

    def join(self) -> None:
        """Wait for the end of the loop, and raise its error."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _work(self, pipeline: Any, prompt: Any, config: Any) -> None:
        from openvino_genai import StreamerBase, StreamingStatus

        loop = self

        class Leading(StreamerBase):  # type: ignore[misc]
            def write(self, token: int | list[int]) -> StreamingStatus:
                loop._tokens.extend(token if isinstance(token, list) else [token])
                loop._wrote = True
                loop._begun.set()
                return StreamingStatus.CANCEL if loop._left else StreamingStatus.RUNNING

            def end(self) -> None:
                pass

        try:
            pipeline.generate([prompt], [config], Leading())
        except Exception as error:  # noqa: BLE001 - raised by `join`, in the thread that waits
            self._error = error
        finally:
            self._begun.set()


def cache_tokens(window: int | None) -> int:
    """Return the tokens of the key-value cache for a model with this window; None for no limit."""
    return min(max(window or CACHE_TOKENS, USUAL_CACHE_TOKENS), CACHE_TOKENS)


def open_pipeline(folder: Path, window: int | None, properties: Mapping[str, Any]) -> Any:
    """Open a converted model with this window.

    Raises:
        RuntimeError: OpenVINO refuses the files.
    """
    import openvino_genai

    scheduler = openvino_genai.SchedulerConfig()
    scheduler.num_kv_blocks = cache_tokens(window) // BLOCK_TOKENS
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
