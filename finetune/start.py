"""The network that training starts from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.recipe import CausalRecipe, Recipe
from rag.encoders.adapter_artifact import tracked_adapter
from rag.encoders.adapters import CARD, CONFIG, SHIPPED, WEIGHTS, Adapter, places_of, read_adapter
from rag.encoders.encoder_files import ModelFiles
from rag.errors import AdapterError, ModelUnavailable
from rag.models.local.local_adapters import AdapterFiles, find_lora

if TYPE_CHECKING:
    import torch


def open_network(recipe: Recipe, files: ModelFiles, *, plain: bool) -> torch.nn.Module:
    """Open the base with the recipe's starting adapter merged into it, and a head.

    The head is that of the starting adapter if it has the same task, and otherwise a fresh one.

    Args:
        recipe: Names task, seed and starting adapter.
        files: The files of the base model.
        plain: Whether to leave out the adapter.

    Raises:
        AdapterError: There is no such adapter, or it belongs to other weights.
    """
    import torch

    from rag.encoders.tuned_architectures import network_for, open_base
    from rag.encoders.tuned_conversion import check_base, merge, merge_base

    torch.manual_seed(recipe.seed)
    network: Any = network_for(recipe.task, open_base(files.folder))
    if recipe.start is not None and not plain:
        adapter = find_start(recipe.start)
        check_base(adapter)
        if adapter.card.task == recipe.task:
            merge(network, adapter.folder)
        else:
            merge_base(network.base, adapter.folder)
    return network


def start_identity(recipe: Recipe) -> str | None:
    """Return name and hash of the adapter that a recipe starts from; None if it starts from the base.

    Raises:
        AdapterError: There is no such adapter, or it is damaged.
    """
    return None if recipe.start is None else _found(recipe, recipe.start).identity


def tracked_start(recipe: Recipe) -> Adapter | None:
    """Return the adapter that a recipe starts from if an earlier training has made it.

    Raises:
        AdapterError: There is no such adapter, or it is damaged.
    """
    return None if recipe.start is None else tracked_adapter(_found(recipe, recipe.start).folder)


def _found(recipe: Recipe, start: str) -> Adapter | AdapterFiles:
    return find_lora_start(start) if isinstance(recipe, CausalRecipe) else find_start(start)


def find_lora_start(name: str) -> AdapterFiles:
    """Find the LoRA adapter of a language model that a recipe starts from, by its folder.

    Raises:
        AdapterError: There is no such adapter, or it is incomplete.
    """
    folder = Path(name).expanduser()
    try:
        return find_lora(str(folder), folder.parent)
    except ModelUnavailable as error:
        raise AdapterError(
            f"The adapter {name} to start from must be a folder with {CONFIG} and {WEIGHTS} of a LoRA adapter.",
            fix="Fix start in the recipe.",
        ) from error


def find_start(name: str) -> Adapter:
    """Find the adapter that a recipe starts from, by folder or by the name of a shipped one.

    Raises:
        AdapterError: There is no such adapter, or it is damaged.
    """
    folder = next((place for place in places_of(name, SHIPPED) if os.path.isfile(place / CARD)), None)
    if folder is None:
        shipped = ", ".join(sorted(path.parent.name for path in SHIPPED.glob(f"*/{CARD}")))
        raise AdapterError(
            f"There is no adapter {name} to start from.",
            fix=f"Name a folder with a card.json, or one of: {shipped}.",
        )
    return read_adapter(folder)
