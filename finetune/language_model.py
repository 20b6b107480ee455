"""The causal language model that fine-tuning starts from, and its adapter."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.recipe import CausalRecipe
from rag.errors import ModelUnavailable, TuningError, first_line
from rag.models.local.local_adapters import AdapterFiles, check_fit, quiet_peft
from rag.models.local.local_device import Device, check_memory
from rag.models.local.local_files import LocalFiles, locate_local
from rag.models.local.shipped_base import prepare_base
from rag.models.local.torch_backend import layer_sizes, load_causal, window_of
from rag.settings import SMOLLM2

_LOCAL = "local:"
_BASES = (
    "The base must be smollm2, a folder with a causal language model of transformers, or OWNER/NAME on the "
    "Hugging Face hub, which `hf download OWNER/NAME` fetches while online."
)


@dataclass(frozen=True, slots=True)
class Base:
    """A base model."""

    files: LocalFiles

    @classmethod
    def locate(cls, name: str, models: Path | None = None) -> Base:
        """Find a model: ``smollm2``, or a folder or name on the hub, as after ``local:``.

        Args:
            name: The model.
            models: The workspace's folder of models, where ``smollm2`` is prepared.

        Raises:
            ModelUnavailable: There is no such model.
            TuningError: peft is not installed.
        """
        if importlib.util.find_spec("peft") is None:
            raise TuningError(
                "Fine-tuning a language model needs the library peft, which is not installed.",
                fix="Install it with `pip install 'ragsmith[tune]'`.",
            )
        if name == SMOLLM2 and models is not None:
            return cls(prepare_base(models))
        try:
            return cls(locate_local(name.removeprefix(_LOCAL)))
        except ModelUnavailable as error:
            # Its advice is on the setting `model`.
            raise ModelUnavailable(error.message, fix=_BASES) from error

    @property
    def name(self) -> str:
        """Name on the hub, or name of the folder."""
        return self.files.folder.name if self.files.origin == "folder" else self.files.name

    def sha256(self) -> str:
        """Hexadecimal hash of the weights."""
        return self.files.sha256()

    @property
    def window(self) -> int | float:
        """Context window in tokens; infinite if there is no limit."""
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(self.files.folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:
            raise ModelUnavailable(
                f"The model {self.name} cannot be loaded: {first_line(error)}.",
                fix="Use a causal language model that transformers supports.",
            ) from error
        return window_of(config) or math.inf


def open_trainable(base: Base, recipe: CausalRecipe, start: AdapterFiles | None) -> Any:
    """Load a model in 32 bits, wrapped in the adapter to train; the same for the same seed.

    Args:
        base: The model.
        recipe: Names seed and adapter.
        start: An adapter to continue; None for a new one, which changes nothing yet.

    Raises:
        ModelUnavailable: The model cannot be loaded, is too large, or does not match the adapter.
        TuningError: The recipe's adapter does not fit the model or the adapter to start from.
    """
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model

    device = Device("cuda" if torch.cuda.is_available() else "cpu", "f32")
    check_memory(base.files, device, fix="Free some memory, choose a smaller base, or train on a larger machine.")
    torch.manual_seed(recipe.seed)
    model = load_causal(base.files, "f32")
    # A cache for later tokens costs memory, and there are none.
    model.config.use_cache = False
    wanted = recipe.lora
    if start is not None:
        check_fit(start, layer_sizes(model), base.name)
        with quiet_peft():
            wrapped = PeftModel.from_pretrained(model, str(start.folder), is_trainable=True)
        _check_start(wrapped.peft_config["default"], recipe, start)
        return wrapped
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=wanted.rank,
        lora_alpha=wanted.alpha,
        lora_dropout=wanted.dropout,
        target_modules=list(wanted.targets),
        bias="none",
    )
    try:
        with quiet_peft():
            return get_peft_model(model, config)
    except ValueError as error:
        linear = {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear)
        }
        raise TuningError(
            f"The model {base.name} has no layers that an adapter could be added to under the names in "
            f"lora.targets: {', '.join(wanted.targets)}.",
            fix=f"Use some of: {', '.join(sorted(linear)) or first_line(error)}.",
        ) from error


def _check_start(config: Any, recipe: CausalRecipe, start: AdapterFiles) -> None:
    wanted = recipe.lora
    for name, value, found in (("rank", wanted.rank, config.r), ("alpha", wanted.alpha, config.lora_alpha)):
        if found != value:
            raise TuningError(
                f"The adapter {start.name} to start from has {name} {found}, but lora.{name} is {value}.",
                fix=f"Set lora.{name} = {found} in the recipe.",
            )
