"""Checkpoints: a folder each, written whole or not at all, without pickles."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.disk import saving

if TYPE_CHECKING:
    import torch

# The last one, and the one before it in case the last turns out to be damaged.
KEPT = 2
STATE, PLACE = "state.safetensors", "place.json"
_NAME = re.compile(r"\d+-\d+")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a training stands.

    Attributes:
        stage: Number of the stage, from 0.
        step: Steps finished in it.
        seconds: Computing time so far, all stages and all processes together.
    """

    stage: int = 0
    step: int = 0
    seconds: float = 0.0


def save(folder: Path, place: Place, tensors: dict[str, torch.Tensor]) -> None:
    """Write a checkpoint and clear away all but this one and the one before it.

    Raises:
        StorageFull: The disk has no room left; the earlier checkpoints stay.
    """
    from safetensors.torch import save_file

    target = folder / f"{place.stage}-{place.step:07d}"
    work = folder / f".writing-{os.getpid()}"
    try:
        with saving(f"write the checkpoint {target}"):
            work.mkdir(parents=True)
            save_file(tensors, work / STATE)
            (work / PLACE).write_text(json.dumps(asdict(place)), encoding="utf-8")
            for path in (work / STATE, work / PLACE):
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            shutil.rmtree(target, ignore_errors=True)
            work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    known = _all(folder)
    end = known.index(target) + 1
    # Those behind it were damaged, and passed over when the training went on.
    for other in (*known[: max(end - KEPT, 0)], *known[end:]):
        shutil.rmtree(other, ignore_errors=True)


def load(folder: Path) -> tuple[Place, dict[str, torch.Tensor]] | None:
    """The newest checkpoint that is whole; None where there is none."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for left_over in folder.glob(".writing-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    for path in reversed(_all(folder)):
        try:
            held: dict[str, Any] = json.loads((path / PLACE).read_text(encoding="utf-8"))
            return Place(**held), load_file(path / STATE)
        except (OSError, ValueError, TypeError, SafetensorError):
            # A power cut may damage the newest: the one before it stands in.
            continue
    return None


def _all(folder: Path) -> list[Path]:
    """In the order of training: a tenth stage comes after the ninth."""
    found = [path for path in folder.glob("*-*") if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: tuple(map(int, path.name.split("-"))))
