"""LoRA adapters: low-rank differences to the base, in peft's format.

The result of full training is reduced to a low rank by singular value decomposition, which gives the nearest
matrix of that rank (Eckart and Young, Psychometrika 1936).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.encoders.tuned_architectures import TARGETS

if TYPE_CHECKING:
    import torch


def wrap(base: torch.nn.Module, rank: int) -> torch.nn.Module:
    """Wrap the base in an empty adapter on every matrix of its layers; only the adapter is trainable."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=list(TARGETS), bias="none")
    wrapped: torch.nn.Module = get_peft_model(base, config)
    return wrapped


def extract(trained: torch.nn.Module, fresh: torch.nn.Module, rank: int) -> tuple[torch.nn.Module, float]:
    """Extract the adapter that best approximates a fully trained base.

    Args:
        trained: The base after full training.
        fresh: The base before training; it is wrapped in place.
        rank: Rank of the adapter, 1 to 384.

    Returns:
        The wrapped base, and the share of the squared difference that the adapter captures, 0 to 1.
    """
    import torch

    wrapped = wrap(fresh, rank)
    moved = dict(trained.named_parameters())
    whole = captured = 0.0
    with torch.no_grad():
        for name, module in wrapped.named_modules():
            if not hasattr(module, "lora_A"):
                continue
            layer: Any = module
            weight = moved[f"{name.removeprefix('base_model.model.')}.weight"]
            left, values, right = torch.linalg.svd((weight - layer.base_layer.weight).float(), full_matrices=False)
            if not values[0]:
                # Unchanged: both factors would be 0, and a product of zeros never gets a gradient.
                continue
            root = values[:rank].sqrt()
            layer.lora_B["default"].weight.copy_(left[:, :rank] * root)
            layer.lora_A["default"].weight.copy_(root[:, None] * right[:rank])
            whole += float(values.square().sum())
            captured += float(values[:rank].square().sum())
    return wrapped, captured / whole if whole else 1.0


def save(wrapped: torch.nn.Module, folder: Path) -> None:
    """Write the adapter in peft's format, with 16-bit weights."""
    import torch

    model: Any = wrapped
    # Adapters never change the embeddings, and peft would look for the base on the hub to find that out.
    model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    save_file({name: tensor.to(torch.float16).contiguous() for name, tensor in load_file(path).items()}, path)
    (folder / "README.md").unlink(missing_ok=True)
