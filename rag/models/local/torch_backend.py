"""Generation with transformers: a base model with any number of LoRA adapters."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any

from rag.encoders.own_code import FIX, needs_own_code, refusal_of
from rag.errors import ModelError, ModelUnavailable, first_line
from rag.models.local.batching import Row
from rag.models.local.end_tokens import end_tokens
from rag.models.local.local_adapters import AdapterFiles, check_fit, quiet_peft
from rag.models.local.local_device import TORCH_NAMES, Device
from rag.models.local.local_files import LocalFiles
from rag.models.local.token_sampling import Recommended
from rag.models.local.torch_sampling import sampling_processors
from rag.models.local.tune_libraries import need_library


class _BatchOver(Exception):
    """All rows of the batch are over."""


class TorchBackend:
    """A causal language model of transformers; create it with ``load_torch``.

    Args:
        name: Name of the model.
        model: The model of transformers, in evaluation mode.
        device: The device of the model.
        ends: Tokens that end an answer.
        pad: Padding token of shorter rows, which is masked.
        recommended: Sampling defaults of the model's authors.
    """

    continuous = False

    def __init__(
        self, name: str, model: Any, device: Device, ends: frozenset[int], pad: int, recommended: Recommended
    ) -> None:
        self.name = name
        self.runtime = f"transformers on {device}"
        self.ends = ends
        self.window = window_of(model.config)
        self.model = model
        self._device = device
        self._recommended = recommended
        self._pad = pad
        self._rows: Sequence[Row] = ()
        # The model wrapped by peft, from the first adapter on; and peft's names of the adapters, by folder.
        self._wrapped: Any = None
        self._adapters: dict[str, str] = {}
        # Weights change only between batches.
        self._lock = Lock()
        for layer in _layers(model):
            layer.register_forward_pre_hook(self._check_over)

    def load_adapter(self, adapter: AdapterFiles) -> None:
        """Load an adapter, unless it is already loaded.

        Raises:
            ModelUnavailable: peft is missing, or the adapter does not match the model.
        """
        with self._lock:
            folder = str(adapter.folder)
            if folder in self._adapters:
                return
            need_library("peft", f"adapter {adapter.name}")
            check_fit(adapter, layer_sizes(self.model), self.name)
            # A folder's name may contain a dot, which torch does not allow in module names.
            key = f"adapter{len(self._adapters)}"
            from peft import PeftModel

            try:
                with quiet_peft():
                    if self._wrapped is None:
                        self._wrapped = PeftModel.from_pretrained(self.model, folder, adapter_name=key)
                    else:
                        self._wrapped.load_adapter(folder, adapter_name=key)
            except (ValueError, RuntimeError, KeyError, OSError) as error:
                raise ModelUnavailable(
                    f"The adapter {adapter.name} cannot be added to the model {self.name}: {first_line(error)}.",
                    fix="Set model to the base that the adapter was trained on, or clear local.adapter.",
                ) from error
            self._wrapped.eval()
            self._adapters[folder] = key

    def run(self, rows: Sequence[Row], more: Callable[[int], Sequence[Row]]) -> None:
        """Generate for all rows in one call until they are over; no others join."""
        import torch

        first = rows[0].request
        with self._lock, self._active(first.adapter), self._watched(rows):
            ids, mask = self._padded(rows)
            try:
                self.model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    generation_config=self._configured(rows),
                    logits_processor=sampling_processors(
                        first.sampling, self._recommended, ids.shape[1], self._device.kind
                    ),
                    stopping_criteria=[_token_handler(rows)],
                )
            except _BatchOver:
                return
            except RuntimeError as error:
                if isinstance(error, torch.OutOfMemoryError) or "memory" in str(error):
                    raise self._full(len(rows)) from error
                raise

    def close(self) -> None:
        """Release the memory."""
        self.model = self._wrapped = None
        gc.collect()
        self._free()

    def _check_over(self, *_: Any) -> None:
        # Runs before every layer, so that cancelling also interrupts the reading of a long prompt.
        if self._rows and all(row.over for row in self._rows):
            raise _BatchOver

    @contextmanager
    def _watched(self, rows: Sequence[Row]) -> Iterator[None]:
        self._rows = rows
        try:
            yield
        finally:
            self._rows = ()

    @contextmanager
    def _active(self, folder: str) -> Iterator[None]:
        if self._wrapped is None:
            yield
        elif not folder:
            with self._wrapped.disable_adapter():
                yield
        else:
            self._wrapped.set_adapter(self._adapters[folder], inference_mode=True)
            yield

    def _padded(self, rows: Sequence[Row]) -> tuple[Any, Any]:
        """Return token ids and mask of shape (rows, longest prompt), padded on the left."""
        import torch

        longest = max(len(row.request.prompt) for row in rows)
        missing = [longest - len(row.request.prompt) for row in rows]
        ids = [[self._pad] * count + list(row.request.prompt) for count, row in zip(missing, rows, strict=True)]
        mask = [[0] * count + [1] * (longest - count) for count in missing]
        device = self._device.kind
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    def _configured(self, rows: Sequence[Row]) -> Any:
        from transformers import GenerationConfig

        return GenerationConfig(
            max_new_tokens=max(row.request.max_tokens for row in rows),
            pad_token_id=self._pad,
            eos_token_id=sorted(self.ends) or None,
            # The processors sample, and leave only the sampled token.
            do_sample=False,
        )

    def _full(self, rows: int) -> ModelError:
        self._free()
        others = f", or local.max_batch: {rows} questions were answered together" if rows > 1 else ""
        return ModelError(
            f"The model {self.name} has used up the memory of the device {self._device.kind}.",
            fix=f"Lower decoding.context_tokens or decoding.max_tokens{others}.",
        )

    def _free(self) -> None:
        if self._device.kind == "cuda":
            import torch

            torch.cuda.empty_cache()


def load_torch(files: LocalFiles, device: Device, tokenizer: Any) -> TorchBackend:
    """Load a model for answers.

    Raises:
        ModelUnavailable: The model is damaged, or is not a causal language model of transformers.
    """
    from transformers import GenerationConfig

    model = load_causal(files, device.dtype)
    model.to(device.kind).eval()
    own = model.generation_config
    ends = end_tokens(own.eos_token_id, tokenizer)
    recommended = Recommended(own.top_k, own.top_p, own.min_p)
    model.generation_config = GenerationConfig(bos_token_id=own.bos_token_id)
    pad = tokenizer.pad_token_id
    return TorchBackend(files.name, model, device, ends, min(ends, default=0) if pad is None else pad, recommended)


def load_causal(files: LocalFiles, dtype: str) -> Any:
    """Load a causal language model of transformers into the memory of the CPU.

    Args:
        files: The files of the model.
        dtype: Number format of the weights: ``bf16``, ``f16`` or ``f32``.

    Raises:
        ModelUnavailable: The model is damaged, or is not a causal language model of transformers.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            files.folder,
            dtype=getattr(torch, TORCH_NAMES[dtype]),
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=False,
        )
    except Exception as error:
        if needs_own_code(error):
            raise ModelUnavailable(refusal_of(files.folder), fix=FIX) from error
        raise ModelUnavailable(
            f"The model {files.name} cannot be loaded: {first_line(error)}.",
            fix="Use a causal language model that transformers supports, or download it again.",
        ) from error
    if report["missing_keys"]:
        raise ModelUnavailable(
            f"The model {files.name} is incomplete or not a causal language model: the weights of "
            f"{min(report['missing_keys'])} are missing.",
            fix="Choose a model for text generation, or download it again.",
        )
    return model


def window_of(config: Any) -> int | None:
    """Return the context window of a model in tokens; None for no limit."""
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


def _token_handler(rows: Sequence[Row]) -> Any:
    """Return a stopping criterion that passes new tokens to their rows and ends the rows that are over."""
    import torch

    def handle(input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        newest = input_ids[:, -1].tolist()
        over = [row.take(token) for row, token in zip(rows, newest, strict=True)]
        return torch.tensor(over, device=input_ids.device)

    return handle


def layer_sizes(model: Any) -> dict[str, tuple[int, int] | None]:
    """Return the size of every layer by its path; None for a layer that is not linear."""
    return {
        path: (layer.in_features, layer.out_features) if hasattr(layer, "in_features") else None
        for path, layer in model.named_modules()
    }


def _layers(model: Any) -> list[Any]:
    """Return the layers of the model: the longest of the topmost module lists.

    Deeper lists are parts of a layer, such as its experts.
    """
    import torch

    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, torch.nn.ModuleList)]
    _, layers = max(lists, key=lambda item: (-item[0].count("."), len(item[1])), default=("", ()))
    return list(layers)
