"""What a training leaves behind: a folder with adapter, head and card."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import lora
from finetune.disk import saving
from finetune.recipe import Recipe
from finetune.start import find_start
from rag.encoders.adapters import CARD, CONFIG, HEAD, AdapterCard
from rag.encoders.encoder_files import ModelFiles

if TYPE_CHECKING:
    import torch


def new_card(
    recipe: Recipe,
    files: ModelFiles,
    data: Mapping[str, Any],
    licences: Iterable[str],
    figures: Mapping[str, float],
) -> AdapterCard:
    """The card of a result.

    Args:
        recipe: Of the training.
        files: Of the base.
        data: Rows and version of the features of each stage.
        licences: Of the data; each is named once.
        figures: Of the validation rows.
    """
    if recipe.start is not None:
        data = {**data, "start": find_start(recipe.start).identity}
    return AdapterCard(
        name=recipe.name,
        task=recipe.task,
        base=files.name,
        base_sha256=files.sha256(),
        rank=recipe.lora.rank,
        recipe=recipe.model_dump(),
        data=data,
        licences=tuple(sorted(set(licences))),
        figures={f"validation/{name}": value for name, value in figures.items()},
    )


def write_result(network: torch.nn.Module, card: AdapterCard, result: Path) -> None:
    """Write adapter, head and card: the folder is there whole, or not at all.

    Args:
        network: With ``base`` (wrapped in its adapter) and ``head``.
        card: What is known of it.
        result: The folder to make; one that is there is replaced.

    Raises:
        StorageFull: The disk has no room left.
    """
    from safetensors.torch import save_file

    model: Any = network
    work = result.with_name(f".{result.name}.{os.getpid()}")
    try:
        with saving(f"write {result}"):
            lora.save(model.base, work)
            _tidy(work / CONFIG, card.base)
            head = {name: tensor.detach().contiguous() for name, tensor in model.head.state_dict().items()}
            save_file(head, work / HEAD)
            (work / CARD).write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")
            shutil.rmtree(result, ignore_errors=True)
            work.rename(result)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _tidy(config: Path, base: str) -> None:
    """Name the base as the card does, not by its folder on this machine, and put what is a set in order."""
    held = json.loads(config.read_text(encoding="utf-8"))
    held |= {"base_model_name_or_path": base, "target_modules": sorted(held["target_modules"])}
    config.write_text(json.dumps(held, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def copy_result(result: Path, target: Path) -> None:
    """Copy a result to where it is used from: whole, or not at all; what is there is replaced.

    Raises:
        StorageFull, WorkspaceError: It cannot be written.
    """
    work = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with saving(f"copy the result to {target}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(result, work)
            shutil.rmtree(target, ignore_errors=True)
            work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
