"""The result of a training run: a folder with adapter, head and card."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from finetune import lora
from finetune.disk import saving
from finetune.recipe import Recipe
from finetune.start import start_identity
from rag.encoders.adapters import CARD, CONFIG, HEAD, AdapterCard

if TYPE_CHECKING:
    import torch


class BaseFiles(Protocol):
    """The files of a base model."""

    @property
    def name(self) -> str:
        """Name of the model."""
        ...

    def sha256(self) -> str:
        """Hexadecimal hash of the weights."""
        ...


def new_card(
    recipe: Recipe,
    files: BaseFiles,
    data: Mapping[str, Any],
    licences: Iterable[str],
    metrics: Mapping[str, float],
) -> AdapterCard:
    """Build the card of a trained adapter.

    Args:
        recipe: The recipe it was trained by.
        files: The files of the base model.
        data: Row counts and feature version per stage.
        licences: Licences of the data; duplicates are dropped.
        metrics: Metrics on the validation rows.
    """
    start = start_identity(recipe)
    if start is not None:
        data = {**data, "start": start}
    return AdapterCard(
        name=recipe.name,
        task=recipe.task,
        base=files.name,
        base_sha256=files.sha256(),
        rank=recipe.lora.rank,
        recipe=recipe.model_dump(),
        data=data,
        licences=tuple(sorted(set(licences))),
        figures={f"validation/{name}": value for name, value in metrics.items()},
    )


def write_result(network: torch.nn.Module, card: AdapterCard, result: Path) -> None:
    """Write adapter, head and card atomically.

    Args:
        network: A module with ``base`` (wrapped in its adapter) and ``head``.
        card: The card of the adapter.
        result: The folder to create; an existing one is replaced.

    Raises:
        StorageFull: The disk is full.
    """
    from safetensors.torch import save_file

    model: Any = network
    with _new_result(result, card) as work:
        lora.save(model.base, work)
        head = {name: tensor.detach().contiguous() for name, tensor in model.head.state_dict().items()}
        save_file(head, work / HEAD)


def write_lora(model: Any, card: AdapterCard, result: Path, texts: Mapping[str, str]) -> None:
    """Write the adapter of a language model and its card atomically.

    Args:
        model: The model, wrapped in its adapter by peft.
        card: The card of the adapter.
        result: The folder to create; an existing one is replaced.
        texts: Further files by name, such as the chat template that it was trained with.

    Raises:
        StorageFull: The disk is full.
    """
    with _new_result(result, card) as work:
        lora.save(model, work)
        for name, text in texts.items():
            (work / name).write_text(text, encoding="utf-8")


@contextmanager
def _new_result(result: Path, card: AdapterCard) -> Iterator[Path]:
    """Yield a folder for an adapter; add the card and rename it to ``result`` on success, remove it on failure."""
    work = result.with_name(f".{result.name}.{os.getpid()}")
    try:
        with saving(f"write {result}"):
            yield work
            _tidy(work / CONFIG, card.base)
            (work / CARD).write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")
            shutil.rmtree(result, ignore_errors=True)
            work.rename(result)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _tidy(config: Path, base: str) -> None:
    """Replace the local path of the base by its name, and sort sets so that the file is deterministic."""
    content = json.loads(config.read_text(encoding="utf-8"))
    content |= {"base_model_name_or_path": base, "target_modules": sorted(content["target_modules"])}
    config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def copy_result(result: Path, target: Path) -> None:
    """Copy a result to the folder it is served from, atomically; an existing folder is replaced.

    Raises:
        StorageFull, WorkspaceError: The folder cannot be written.
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
