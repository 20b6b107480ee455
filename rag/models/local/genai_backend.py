"""Generation with OpenVINO GenAI on the CPU: continuous batching, and LoRA adapters that change at run time."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from rag.encoders.adapters import CONFIG, WEIGHTS
from rag.errors import ModelError, ModelUnavailable, first_line
from rag.models.local.batching import Row
from rag.models.local.causal_conversion import read_layers
from rag.models.local.end_tokens import stored_end_tokens
from rag.models.local.local_adapters import AdapterFiles, check_fit
from rag.models.local.local_device import Device
from rag.models.local.local_files import LocalFiles, read_json
from rag.models.local.token_sampling import Recommended, Sampling

# Tokens that one step reads at most, so that a cancelled request ends soon and others go on beside a long prompt.
STEP_TOKENS = 512
# Tokens of the key-value cache, shared by all requests of a batch; its memory is used as it fills.
CACHE_TOKENS = 16_384
BLOCK_TOKENS = 32
# The most that a number of tokens to choose from may be.
_MOST = 2**31 - 1
# Adapters of peft may have these, but OpenVINO GenAI ignores them.
_IGNORED = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern")


@dataclass(frozen=True, slots=True)
class _Adapter:
    """An adapter of OpenVINO GenAI, with the factor of its change and the paths of its layers."""

    loaded: Any
    scale: float
    layers: frozenset[str]


class GenAIBackend:
    """A causal language model converted to OpenVINO.

    Args:
        name: Name of the model.
        folder: The converted model.
        dtype: ``bf16`` or ``f32``.
        ends: Tokens that end an answer.
        window: Maximum tokens of prompt and answer; None for no limit of the model's own.
        recommended: Sampling defaults of the model's authors.

    Raises:
        ModelUnavailable: OpenVINO refuses the files.
    """

    continuous = True

    def __init__(
        self,
        name: str,
        folder: Path,
        dtype: str,
        ends: frozenset[int],
        window: int | None,
        recommended: Recommended,
    ) -> None:
        self.name = name
        self.runtime = f"OpenVINO GenAI on cpu, {dtype}"
        self.ends = ends
        self.window: int | None = min(window or CACHE_TOKENS, CACHE_TOKENS)
        self._folder = folder
        self._dtype = dtype
        self._recommended = recommended
        self._layers = read_layers(folder)
        self._adapters: dict[str, _Adapter] = {}
        # Adapters change while another thread generates.
        self._lock = Lock()
        self._pipeline: Any = None
        self._open(frozenset())

    def load_adapter(self, adapter: AdapterFiles) -> None:
        """Load an adapter, unless it is already loaded.

        Raises:
            ModelUnavailable: The adapter does not match the model, or needs torch.
        """
        import openvino_genai

        folder = str(adapter.folder)
        if folder in self._adapters:
            return
        changed = check_fit(adapter, self._layers, self.name)
        config = read_json(adapter.folder / CONFIG)
        ignored = [name for name in _IGNORED if config.get(name)]
        if ignored or config.get("bias", "none") != "none":
            raise ModelUnavailable(
                f"The adapter {adapter.name} uses {(ignored or ['bias'])[0]}, which OpenVINO does not support.",
                fix="Set local.runtime to torch.",
            )
        loaded = openvino_genai.Adapter(adapter.folder / WEIGHTS)
        with self._lock:
            self._adapters[folder] = _Adapter(loaded, _scale(config), changed)

    def run(self, rows: Sequence[Row], more: Callable[[int], Sequence[Row]]) -> None:
        """Generate for all rows until they are over, and for rows that arrive meanwhile."""
        adapter = rows[0].request.adapter
        running: dict[int, tuple[Row, Any]] = {}
        number = 0
        try:
            self._switch(adapter)
            arrived = rows
            while running or arrived:
                for row in arrived:
                    running[number] = row, self._pipeline.add_request(number, _tensor(row), self._configured(row))
                    number += 1
                self._pipeline.step()
                running = {key: pair for key, pair in running.items() if not self._advance(*pair)}
                arrived = more(len(running))
            self._drain()
        except RuntimeError as error:
            # The pipeline may be in any state.
            self._open(self._open_layers)
            raise ModelError(
                f"The model {self.name} failed: {first_line(error)}.",
                fix="Ask again, or set local.runtime to torch.",
            ) from error

    def close(self) -> None:
        """Release the memory."""
        self._pipeline = None
        self._adapters.clear()

    def _open(self, layers: frozenset[str]) -> None:
        """Load the model so that adapters may change some layers."""
        import openvino_genai

        scheduler = openvino_genai.SchedulerConfig()
        scheduler.num_kv_blocks = CACHE_TOKENS // BLOCK_TOKENS
        scheduler.max_num_batched_tokens = STEP_TOKENS
        scheduler.dynamic_split_fuse = True
        # A cached prefix would be that of another adapter.
        scheduler.enable_prefix_caching = False
        # A cache of 8 bits changes half of the answers and is no faster.
        properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": self._dtype, "KV_CACHE_PRECISION": "f16"}
        if layers:
            properties["adapters"] = self._config(*self._adapters.values())
        try:
            self._pipeline = openvino_genai.ContinuousBatchingPipeline(self._folder, scheduler, "CPU", properties)
        except RuntimeError as error:
            raise ModelUnavailable(
                f"The converted model in {self._folder} cannot be loaded: {first_line(error)}.",
                fix="Delete that folder; it is created again at the next start.",
            ) from error
        self._open_layers = layers
        self._active = ""

    def _switch(self, folder: str) -> None:
        """Activate an adapter for the coming requests; an empty name is the base model."""
        if folder == self._active:
            return
        with self._lock:
            adapter = self._adapters.get(folder)
            if adapter and not adapter.layers <= self._open_layers:
                self._open(frozenset().union(*(known.layers for known in self._adapters.values())))
        import numpy as np
        import openvino
        import openvino_genai

        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = 1
        config.adapters = self._config(*([adapter] if adapter else []))
        # Only `generate` changes adapters; requests of `add_request` use those of the last call.
        first = openvino.Tensor(np.zeros((1, 1), np.int64))
        self._pipeline.generate([first], [config])
        self._active = folder

    def _advance(self, row: Row, handle: Any) -> bool:
        """Pass new tokens to a row, and return whether its request is over."""
        from openvino_genai import GenerationStatus

        while not row.over and handle.can_read():
            for part in handle.read().values():
                if any(row.take(token) for token in part.generated_ids):
                    break
        status = handle.get_status()
        if row.over:
            handle.cancel()
        elif status == GenerationStatus.IGNORED:
            row.fail(
                ModelError(
                    f"The model {self.name} has no room for a prompt of {len(row.request.prompt):,} tokens.",
                    fix="Lower decoding.context_tokens or local.max_batch.",
                )
            )
        elif status == GenerationStatus.FINISHED:
            row.finish("length")
        return row.over

    def _drain(self) -> None:
        """Let the pipeline forget cancelled requests."""
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()

    def _config(self, *adapters: _Adapter) -> Any:
        import openvino_genai

        config = openvino_genai.AdapterConfig()
        for adapter in adapters:
            config.add(adapter.loaded, adapter.scale)
        return config

    def _configured(self, row: Row) -> Any:
        import openvino_genai

        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = row.request.max_tokens
        config.stop_token_ids = set(self.ends)
        if self.ends:
            config.eos_token_id = min(self.ends)
        for name, value in _options(row.request.sampling, self._recommended).items():
            setattr(config, name, value)
        return config


def load_genai(files: LocalFiles, folder: Path, device: Device, tokenizer: Any) -> GenAIBackend:
    """Load a converted model.

    Args:
        files: The original model.
        folder: The converted model.
        device: The CPU, and the number format.
        tokenizer: The tokenizer of the model.

    Raises:
        ModelUnavailable: OpenVINO refuses the files.
    """
    own = read_json(folder / "generation_config.json") if (folder / "generation_config.json").is_file() else {}
    window = read_json(folder / "config.json").get("max_position_embeddings")
    return GenAIBackend(
        files.name,
        folder,
        device.dtype,
        stored_end_tokens(folder, tokenizer),
        window if isinstance(window, int) and window > 0 else None,
        Recommended(own.get("top_k"), own.get("top_p"), own.get("min_p")),
    )


def _options(sampling: Sampling, recommended: Recommended) -> dict[str, Any]:
    options: dict[str, Any] = {"do_sample": sampling.drawn}
    if sampling.repetition_penalty is not None:
        options["repetition_penalty"] = sampling.repetition_penalty
    if not sampling.drawn:
        return options
    top_k = sampling.top_k or recommended.top_k
    given: Mapping[str, Any] = {
        "temperature": sampling.temperature,
        "top_k": top_k and min(top_k, _MOST),
        "top_p": recommended.top_p if sampling.top_p is None else sampling.top_p,
        "min_p": recommended.min_p,
        # Without a seed, OpenVINO GenAI draws the same numbers for every request.
        "rng_seed": secrets.randbits(32) if sampling.seed is None else sampling.seed,
    }
    return options | {name: value for name, value in given.items() if value is not None}


def _scale(config: Mapping[str, Any]) -> float:
    """Return the factor of an adapter's change: alpha / rank, or alpha / √rank (rsLoRA, arXiv 2312.03732)."""
    rank = float(config["r"])
    return float(config["lora_alpha"]) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _tensor(row: Row) -> Any:
    import numpy as np
    import openvino

    return openvino.Tensor(np.array([row.request.prompt], dtype=np.int64))
