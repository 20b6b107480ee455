"""A loaded model: tokenizer, backend and batcher."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from langchain_core.messages import BaseMessage

from rag.errors import EncoderError, ModelError, ModelUnavailable, SettingsError, StorageFull
from rag.models.local.batching import Backend, Batcher, Request, Row, Sink
from rag.models.local.chat_template import render
from rag.models.local.local_adapters import AdapterFiles, find_lora
from rag.models.local.local_device import Device, check_memory, choose_device, free_memory, memory_needed
from rag.models.local.local_files import LocalFiles
from rag.models.local.local_tokenizer import open_tokenizer
from rag.models.local.token_sampling import GREEDY, Sampling
from rag.models.local.tune_libraries import need_library
from rag.settings import LocalSettings
from rag.workspace import ADAPTERS

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Decoding:
    """Decoding of an answer.

    Attributes:
        max_tokens: Maximum number of tokens.
        sampling: Sampling of the tokens.
        stops: Texts that end the answer; they are not part of it.
    """

    max_tokens: int
    sampling: Sampling = GREEDY
    stops: tuple[str, ...] = ()


class _Model(Backend, Protocol):
    ends: frozenset[int]
    window: int | None

    def load_adapter(self, adapter: AdapterFiles) -> None: ...


class LocalEngine:
    """A model that several chat models can share; create it with ``open_local_engine``.

    Args:
        name: Name of the model, without ``local:``.
        tokenizer: A tokenizer of transformers.
        backend: The backend, closed by ``close``.
        max_batch: Maximum requests of a batch.
    """

    def __init__(self, name: str, tokenizer: Any, backend: _Model, max_batch: int) -> None:
        self.name = name
        self.backend = backend
        self._tokenizer = tokenizer
        self._adapters: dict[str, AdapterFiles] = {}
        # The tokenizer is not thread-safe.
        self._tokenizing = Lock()
        self._batches = Batcher(backend, max_batch)

    @property
    def runtime(self) -> str:
        """Description of runtime and device for users."""
        return self.backend.runtime

    def load_adapter(self, adapter: AdapterFiles) -> None:
        """Load an adapter, so that requests may use it; torch waits for the running batch.

        Raises:
            ModelUnavailable: The adapter does not match the model, or a library is missing.
        """
        self.backend.load_adapter(adapter)
        self._adapters[adapter.name] = adapter

    def start(
        self, messages: Sequence[BaseMessage], decoding: Decoding, sink: Sink, adapter: str | None = None
    ) -> Row:
        """Queue a request and return its row, whose ``cancel`` stops it.

        Args:
            messages: The conversation.
            decoding: Decoding of the answer.
            sink: Receives the pieces of the answer, from another thread.
            adapter: Name of a loaded adapter; None for the base model.

        Raises:
            ModelError: The prompt is empty or too long, or the engine is closed.
            SettingsError: The adapter is not loaded.
        """
        if adapter is not None and adapter not in self._adapters:
            raise SettingsError(
                f"The adapter {adapter} is not loaded.", fix="Add it to local.adapters and restart ragsmith."
            )
        files = self._adapters[adapter] if adapter is not None else None
        with self._tokenizing:
            prompt = render(self._tokenizer, messages, files.chat_template if files else None)
        request = Request(
            prompt.ids,
            self._room(len(prompt.ids), decoding.max_tokens),
            decoding.sampling,
            (*decoding.stops, *prompt.stops, *(files.stops if files else ())),
            str(files.folder) if files else "",
        )
        row = Row(request, self._decode, self.backend.ends, sink)
        self._batches.submit(row)
        return row

    def close(self) -> None:
        """Stop all requests and release the memory."""
        self._batches.close()

    def _room(self, prompt: int, max_tokens: int) -> int:
        """Return the maximum tokens of the answer that fit the window."""
        window = self.backend.window
        if not prompt:
            raise ModelError("The prompt is empty.", fix="Ask a question.")
        if window is None or prompt + max_tokens <= window:
            return max_tokens
        if prompt >= window:
            less = prompt - window + min(max_tokens, window // 4)
            raise ModelError(
                f"The prompt has {prompt:,} tokens, but the model {self.name} reads at most {window:,}.",
                fix=f"Lower decoding.context_tokens by {less:,} or more, "
                "ask a shorter question, or choose a model with a longer window.",
            )
        return window - prompt

    def _decode(self, ids: list[int]) -> str:
        with self._tokenizing:
            text = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)


def open_local_engine(files: LocalFiles, settings: LocalSettings, models: Path) -> LocalEngine:
    """Load a model and the configured adapters.

    On the CPU it runs on OpenVINO GenAI, if it can be converted; the first call on a machine converts it.

    Args:
        files: The model.
        settings: Runtime, device, number format, adapters, batch size.
        models: The workspace's folder of models, for the converted one; adapters are in ``adapters`` below it.

    Raises:
        ModelUnavailable: An adapter is missing, or the model or an adapter is damaged, too large or incompatible.
    """
    wanted = wanted_adapters(settings, models / ADAPTERS)
    check_model(files, settings, wanted)
    device = choose_device(settings)
    folder = converted(files, settings, device, models)
    tokenizer = open_tokenizer(files, folder)
    backend: _Model
    if folder is not None:
        from rag.models.local.genai_backend import load_genai

        backend = load_genai(files, folder, device, tokenizer)
    else:
        from rag.models.local.torch_backend import load_torch

        backend = load_torch(files, device, tokenizer)
    engine = LocalEngine(files.name, tokenizer, backend, settings.max_batch)
    try:
        for adapter in wanted:
            engine.load_adapter(adapter)
    except BaseException:
        engine.close()
        raise
    return engine


def converted(files: LocalFiles, settings: LocalSettings, device: Device, models: Path) -> Path | None:
    """Return the folder of a model for OpenVINO, which may have to be converted; None if it runs on torch.

    Raises:
        ModelUnavailable: The settings demand OpenVINO, but the model cannot run on it.
    """
    if settings.runtime == "torch":
        return None
    folder, reason = _conversion(files, device, models)
    if folder is not None:
        return folder
    if settings.runtime == "openvino":
        raise ModelUnavailable(
            f"The model {files.name} cannot run on OpenVINO: {reason}.", fix="Set local.runtime to auto or torch."
        )
    if device.kind == "cpu":
        _log.warning("The model %s runs on torch, which is slower than OpenVINO: %s.", files.name, reason)
    return None


def _conversion(files: LocalFiles, device: Device, models: Path) -> tuple[Path | None, str]:
    """Return the folder of the converted model, or None and why there is none."""
    from rag.models.local import causal_conversion as conversion

    if device.kind != "cpu" or device.dtype == "f16":
        return None, f"the device is {device}"
    if importlib.util.find_spec("openvino_genai") is None:
        return None, "openvino-genai is not installed"
    free = free_memory("cpu")
    needed = memory_needed(files.folder, "f32") * conversion.CONVERSION_SHARE
    if free is not None and needed > free and not conversion.converted_folder(files, models).is_dir():
        return None, "its conversion needs more memory than is free"
    try:
        folder = conversion.converted_causal(files, models)
    except (EncoderError, StorageFull) as error:
        return None, f"its conversion failed ({error.message.removesuffix('.')})"
    reason = conversion.refusal_reason(folder)
    return (None, reason) if reason else (folder, "")


def wanted_adapters(settings: LocalSettings, adapters: Path) -> list[AdapterFiles]:
    """Return the distinct configured adapters, including the active one.

    Raises:
        ModelUnavailable: An adapter is missing or unusable.
    """
    names = [*settings.adapters, *([settings.adapter] if settings.adapter else [])]
    return [find_lora(name, adapters) for name in dict.fromkeys(names)]


def check_model(files: LocalFiles, settings: LocalSettings, adapters: Sequence[AdapterFiles]) -> str:
    """Check cheaply whether a model can be loaded.

    Returns:
        A description of its origin, device and memory for users.

    Raises:
        ModelUnavailable: A library is missing, the memory is too small, or the files are damaged.
    """
    device = choose_device(settings)
    if settings.runtime == "torch" or device.kind != "cpu":
        for adapter in adapters:
            need_library("peft", f"adapter {adapter.name}")
    needed = check_memory(files, device)
    return f"from the {files.origin}, {device}, about {needed / 1e9:.1f} GB"
