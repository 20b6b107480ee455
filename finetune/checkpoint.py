"""Checkpoints: one folder each, written atomically, without pickles."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.disk import saving

if TYPE_CHECKING:
    import torch

# The last two, in case the last one is damaged.
KEPT = 2
STATE, PROGRESS = "state.safetensors", "place.json"
# Prefixes of the tensors that hold trained weights, and the initial weights of the stage.
WEIGHT, INITIAL = "weight/", "beginning/"
_NAME = re.compile(r"\d+-\d+")


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a training run.

    Attributes:
        stage: Index of the stage, from 0.
        step: Steps finished in this stage.
        seconds: Computing time so far, over all stages and processes.
    """

    stage: int = 0
    step: int = 0
    seconds: float = 0.0


def save(folder: Path, progress: Progress, tensors: dict[str, torch.Tensor]) -> None:
    """Write a checkpoint and delete all but this one and its predecessor.

    Raises:
        StorageFull: The disk is full; earlier checkpoints stay.
    """
    from safetensors.torch import save_file

    target = folder / f"{progress.stage}-{progress.step:07d}"
    work = folder / f".writing-{os.getpid()}"
    try:
        with saving(f"write the checkpoint {target}"):
            work.mkdir(parents=True)
            save_file(tensors, work / STATE)
            (work / PROGRESS).write_text(json.dumps(asdict(progress)), encoding="utf-8")
            for path in (work / STATE, work / PROGRESS):
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            shutil.rmtree(target, ignore_errors=True)
            work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    known = _all(folder)
    end = known.index(target) + 1
    # Later ones were damaged and skipped when training resumed.
    for other in (*known[: max(end - KEPT, 0)], *known[end:]):
        shutil.rmtree(other, ignore_errors=True)


def load(folder: Path) -> tuple[Progress, dict[str, torch.Tensor]] | None:
    """Load the newest intact checkpoint, or return None when there is none."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for left_over in folder.glob(".writing-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    for path in reversed(_all(folder)):
        try:
            values: dict[str, Any] = json.loads((path / PROGRESS).read_text(encoding="utf-8"))
            return Progress(**values), load_file(path / STATE)
        except (OSError, ValueError, TypeError, SafetensorError):
            # A power cut may damage the newest; fall back to the one before.
            continue
    return None


def state_of(
    trained: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    """Return trained weights and the state of their optimizer, for ``save``."""
    state = {f"{WEIGHT}{name}": parameter.detach() for name, parameter in trained.items()}
    for name, parameter in trained.items():
        for key, value in optimizer.state[parameter].items():
            state[f"{key}/{name}"] = value
    return state


def restore(
    trained: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, torch.Tensor],
) -> None:
    """Restore what ``state_of`` returned; without tensors, everything stays as it is."""
    import torch

    if not tensors:
        return
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(tensors[f"{WEIGHT}{name}"])
            optimizer.state[parameter] = {
                key.partition("/")[0]: value.to(parameter.device)
                for key, value in tensors.items()
                if key.partition("/")[2] == name and not key.startswith((WEIGHT, INITIAL))
            }


def _all(folder: Path) -> list[Path]:
    """Return the checkpoint folders in training order, compared as numbers so that stage 10 follows stage 9."""
    found = [path for path in folder.glob("*-*") if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: tuple(map(int, path.name.split("-"))))
