"""Adapters: a low-rank difference to the base, in peft's format.

A difference that full training has made is cut down to a low rank by its singular values, which gives the
nearest matrix of that rank (Eckart and Young, Psychometrika 1936).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.encoders.tuned_architectures import TARGETS

if TYPE_CHECKING:
    import torch


def wrap(base: torch.nn.Module, rank: int) -> torch.nn.Module:
    """The base with an empty adapter on every matrix of its layers; only the adapter can be trained."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=list(TARGETS), bias="none")
    wrapped: torch.nn.Module = get_peft_model(base, config)
    return wrapped


def cut(trained: torch.nn.Module, fresh: torch.nn.Module, rank: int) -> tuple[torch.nn.Module, float]:
    """An adapter on a fresh base that comes as near to a trained one as its rank allows.

    Args:
        trained: The base after full training.
        fresh: The base before it; it is wrapped.
        rank: Of the adapter, 1 to 384.

    Returns:
        The wrapped base, and the share of the difference (squared) that the adapter holds, 0 to 1.
    """
    import torch

    wrapped = wrap(fresh, rank)
    moved = dict(trained.named_parameters())
    whole = held = 0.0
    with torch.no_grad():
        for name, module in wrapped.named_modules():
            if not hasattr(module, "lora_A"):
                continue
            layer: Any = module
            weight = moved[f"{name.removeprefix('base_model.model.')}.weight"]
            left, values, right = torch.linalg.svd((weight - layer.base_layer.weight).float(), full_matrices=False)
            if not values[0]:
                # Nothing has moved: both factors would be 0, and a product of zeros never gets a gradient.
                continue
            root = values[:rank].sqrt()
            layer.lora_B["default"].weight.copy_(left[:, :rank] * root)
            layer.lora_A["default"].weight.copy_(root[:, None] * right[:rank])
            whole += float(values.square().sum())
            held += float(values[:rank].square().sum())
    return wrapped, held / whole if whole else 1.0


def save(wrapped: torch.nn.Module, folder: Path) -> None:
    """Write the adapter in peft's format, its numbers in 16 bits."""
    import torch

    model: Any = wrapped
    model.save_pretrained(folder, safe_serialization=True)
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    save_file({name: tensor.to(torch.float16).contiguous() for name, tensor in load_file(path).items()}, path)
    (folder / "README.md").unlink(missing_ok=True)
