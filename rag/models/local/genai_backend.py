"""Generation with OpenVINO GenAI on the CPU: continuous batching, and LoRA adapters that change at run time."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from rag.encoders.adapters import CONFIG, WEIGHTS
from rag.errors import ModelError, ModelUnavailable, first_line
from rag.models.local.batching import Row
from rag.models.local.converted_card import REPAIR, ConvertedCard, read_card
from rag.models.local.end_tokens import stored_end_tokens
from rag.models.local.genai_pipeline import Loop, cache_tokens, endless_config, open_pipeline, servable_dtype
from rag.models.local.local_adapters import AdapterFiles, check_fit, weight_shapes
from rag.models.local.local_device import Device
from rag.models.local.local_files import LocalFiles, read_json
from rag.models.local.token_sampling import Recommended, Sampling

# Seconds between two looks at what the pipeline has written.
POLL_S = 0.002
# The most that a number of tokens to choose from may be.
_MOST = 2**31 - 1
# Options of peft's adapters that OpenVINO GenAI ignores.
_IGNORED = (
    "use_dora",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "lora_bias",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
)
# These begin with other weights of the base model.
_CHANGING_STARTS = ("pissa", "olora", "corda", "loftq", "lora_ga")


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
        card: Its description.
        dtype: ``bf16`` or ``f32``.
        ends: Tokens that end an answer.
        recommended: Sampling defaults of the model's authors.

    Raises:
        ModelUnavailable: OpenVINO refuses the files.
    """

    continuous = True

    def __init__(
        self,
        name: str,
        folder: Path,
        card: ConvertedCard,
        dtype: str,
        ends: frozenset[int],
        recommended: Recommended,
    ) -> None:
        self.name = name
        self.runtime = f"OpenVINO GenAI on cpu, {dtype}"
        self.ends = ends
        cached = cache_tokens(card.window)
        self.window: int | None = min(card.window or cached, cached)
        self._folder = folder
        self._dtype = dtype
        self._recommended = recommended
        self._layers = card.layers
        self._adapters: dict[str, _Adapter] = {}
        # Adapters are added while another thread generates.
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
        if unsupported := _unsupported(adapter, [path for path in changed if self._layers[path] is None]):
            raise ModelUnavailable(
                f"The adapter {adapter.name} {unsupported}, which OpenVINO does not support.",
                fix="Set local.runtime to torch.",
            )
        loaded = openvino_genai.Adapter(adapter.folder / WEIGHTS)
        with self._lock:
            self._adapters[folder] = _Adapter(loaded, adapter.scale, changed)

    def run(self, rows: Sequence[Row], more: Callable[[int], Sequence[Row]]) -> None:
        """Generate for all rows until they are over, and for rows that arrive meanwhile."""
        adapter = self._prepared(rows[0].request.adapter)
        try:
            while rows:
                rows = self._generate(rows, more, adapter)
        except Exception as error:
            # The pipeline may be in any state; the next request opens another one.
            self._pipeline = None
            if not isinstance(error, RuntimeError):
                raise
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
        # Two models at once would need twice the memory.
        self._pipeline = None
        # A cache of 8 bits changes half of the answers and is no faster.
        properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": self._dtype, "KV_CACHE_PRECISION": "f16"}
        if layers:
            with self._lock:
                properties["adapters"] = self._config(*self._adapters.values())
        try:
            self._pipeline = open_pipeline(self._folder, self.window, properties)
        except RuntimeError as error:
            raise ModelUnavailable(
                f"The converted model in {self._folder} cannot be loaded: {first_line(error)}.", fix=REPAIR
            ) from error
        self._open_layers = layers

    def _prepared(self, folder: str) -> _Adapter | None:
        """Return a loaded adapter, or None for the base model, and open a pipeline that can apply it."""
        with self._lock:
            adapter = self._adapters.get(folder)
            known = frozenset().union(*(each.layers for each in self._adapters.values()))
        if adapter and not adapter.layers <= self._open_layers:
            self._open(known)
        elif self._pipeline is None:
            self._open(self._open_layers)
        return adapter

    def _generate(
        self, rows: Sequence[Row], more: Callable[[int], Sequence[Row]], adapter: _Adapter | None
    ) -> list[Row]:
        """Generate for rows and for those that join, and return those that came too late."""
        first, *arrived = rows
        if (config := self._configured(first)) is None:
            return arrived
        if self._open_layers:
            # The adapter of the leading request applies to all.
            config.adapters = self._config(*([adapter] if adapter else []))
        loop = Loop(self._pipeline, _tensor(first), config)
        running: list[tuple[Row, Any]] = [(first, loop)]
        try:
            while True:
                # Read first, so that nothing is missed that the loop did before its end.
                alive = loop.alive
                for row in arrived:
                    running += self._added(row, next(loop.numbers))
                running = [pair for pair in running if not self._advance(*pair)]
                if not alive:
                    break
                arrived = list(more(len(running))) if running else []
                if not arrived:
                    time.sleep(POLL_S)
        finally:
            for _, handle in running:
                handle.cancel()
            loop.join()
        # A row that joined at the very end was not begun.
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
        return [row for row, _ in running]

    def _added(self, row: Row, number: int) -> list[tuple[Row, Any]]:
        """Add a row to the running pipeline; empty if the pipeline refuses it."""
        if (config := self._configured(row)) is None:
            return []
        return [(row, self._pipeline.add_request(number, _tensor(row), config))]

    def _advance(self, row: Row, handle: Any) -> bool:
        """Pass new tokens to a row, and return whether its request is over."""
        from openvino_genai import GenerationStatus

        # Asked for before reading, because the loop goes on meanwhile.
        status = handle.get_status()
        while not row.over and handle.can_read():
            for part in handle.read().values():
                if any(row.take(token) for token in part.generated_ids):
                    break
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

    def _config(self, *adapters: _Adapter) -> Any:
        import openvino_genai

        config = openvino_genai.AdapterConfig()
        for adapter in adapters:
            config.add(adapter.loaded, adapter.scale)
        return config

    def _configured(self, row: Row) -> Any:
        """Return the configuration of a request; None if OpenVINO refuses it, and fail the row."""
        config = endless_config(row.request.max_tokens)
        try:
            if self.ends:
                config.ignore_eos = False
                config.set_eos_token_id(min(self.ends))
                config.stop_token_ids = set(self.ends)
            for name, value in _options(row.request.sampling, self._recommended).items():
                setattr(config, name, value)
            config.validate()
        except (RuntimeError, TypeError, ValueError) as error:
            row.fail(
                ModelError(
                    f"The model {self.name} refuses the request: {first_line(error)}.",
                    fix="Change the settings under decoding, or set local.runtime to torch.",
                )
            )
            return None
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
    stored = files.folder / "generation_config.json"
    own = read_json(stored) if stored.is_file() else {}
    return GenAIBackend(
        files.name,
        folder,
        read_card(folder),
        servable_dtype(device.dtype),
        stored_end_tokens(files.folder, tokenizer),
        Recommended(own.get("top_k"), own.get("top_p"), own.get("min_p")),
    )


def _unsupported(adapter: AdapterFiles, fixed: Sequence[str]) -> str:
    """Return what an adapter does that OpenVINO GenAI would ignore; empty if nothing.

    Args:
        adapter: The adapter.
        fixed: The layers of the adapter that OpenVINO GenAI does not change.
    """
    config = read_json(adapter.folder / CONFIG)
    if ignored := [name for name in _IGNORED if config.get(name)]:
        return f"uses {ignored[0]}"
    if config.get("bias", "none") != "none":
        return "uses bias"
    if str(config.get("init_lora_weights")).startswith(_CHANGING_STARTS):
        return f"uses init_lora_weights {config['init_lora_weights']}"
    if fixed:
        return f"changes the layer {min(fixed)}"
    others = [name for name in weight_shapes(adapter) if not name.endswith((".lora_A.weight", ".lora_B.weight"))]
    return f"has the weights {min(others)}" if others else ""


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


def _tensor(row: Row) -> Any:
    import numpy as np
    import openvino

    return openvino.Tensor(np.array([row.request.prompt], dtype=np.int64))
