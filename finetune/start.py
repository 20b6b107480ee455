"""The network that a training begins with."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from finetune.recipe import Recipe
from rag.encoders.adapters import CARD, SHIPPED, Adapter, places_of, read_adapter
from rag.encoders.encoder_files import ModelFiles
from rag.errors import AdapterError

if TYPE_CHECKING:
    import torch


def open_network(recipe: Recipe, files: ModelFiles, *, plain: bool) -> torch.nn.Module:
    """The base, with the adapter that the recipe starts from, and a fresh head.

    Args:
        recipe: Names task, seed and start.
        files: Of the base.
        plain: Without the adapter.

    Raises:
        AdapterError: There is no such adapter, or it was made for other weights.
    """
    import torch

    from rag.encoders.tuned_architectures import network_for, open_base
    from rag.encoders.tuned_conversion import check_base, merge_base

    torch.manual_seed(recipe.seed)
    base: Any = open_base(files.folder)
    if recipe.start is not None and not plain:
        adapter = find_start(recipe.start)
        check_base(adapter)
        merge_base(base, adapter.folder)
    return network_for(recipe.task, base)


def find_start(name: str) -> Adapter:
    """The adapter that a recipe starts from: a folder, or the name of one that ships.

    Raises:
        AdapterError: There is none, or it is damaged.
    """
    folder = next((place for place in places_of(name, SHIPPED) if os.path.isfile(place / CARD)), None)
    if folder is None:
        shipped = ", ".join(sorted(path.parent.name for path in SHIPPED.glob(f"*/{CARD}")))
        raise AdapterError(
            f"There is no adapter {name} to start from.",
            fix=f"Give a folder with a card.json, or one of: {shipped}.",
        )
    return read_adapter(folder)
