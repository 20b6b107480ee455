"""Training runs side by side: what came of them, how they differ, and how their losses went."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from finetune.prepared.data_versions import read_version
from finetune.recipe import Recipe
from finetune.run_folder import RunFolder, all_runs
from finetune.training import validation_losses
from rag.errors import TuningError

Setting = str | int | float | bool
GroupBy = Literal["sweep", "base", "data"]
# Parts of a recipe that are no hyperparameters.
_LEFT_OUT = {"name", "base", "sources", "licences", "validation", "method", "stages", "lora", "checkpoint_s"}


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """A run in a comparison.

    Attributes:
        loss: The last loss on the validation rows; None before the first.
        step: The step of that loss, counted over all stages.
        sweep: The sweep that it is a trial of; empty if of none.
        base: Name of the base model.
        data: Name and version of the prepared data, else the name of the data's folder.
        settings: The hyperparameters by name, and the data.
        curve: The losses on the validation rows by step.
        message: The reason of a failure.
    """

    name: str
    state: str
    loss: float | None
    step: int
    sweep: str
    base: str
    data: str
    settings: Mapping[str, Setting]
    curve: tuple[tuple[int, float], ...]
    message: str = ""


@dataclass(frozen=True, slots=True)
class RunComparison:
    """Runs side by side, the best first: those that are done by their loss, then the others by theirs.

    Attributes:
        differing: Hyperparameters that are not the same in all runs.
        common: The others, with their values.
    """

    runs: tuple[ComparedRun, ...]
    differing: tuple[str, ...]
    common: Mapping[str, Setting]


@dataclass(frozen=True, slots=True)
class RunGroup:
    """Runs that have something in common; best and median loss are of those that are done."""

    name: str
    runs: tuple[ComparedRun, ...]
    best: float | None
    median: float | None


def compared_run(run: RunFolder) -> ComparedRun:
    """Return what a comparison shows of a run.

    Raises:
        TuningError: The files of the run are damaged.
    """
    recipe, status = run.recipe, run.status
    curve = tuple(validation_losses(run.points()))
    prepared = read_version(run.data)
    data = prepared.label if prepared else run.data.name
    return ComparedRun(
        name=run.name,
        state=status.state,
        loss=curve[-1][1] if curve else None,
        step=curve[-1][0] if curve else 0,
        sweep=run.sweep,
        base=recipe.base,
        data=data,
        settings=_settings(recipe) | {"data": data},
        curve=curve,
        message=status.message,
    )


def all_compared(runs: Path) -> list[ComparedRun]:
    """Return all runs for a comparison, the newest first; damaged ones are left out."""
    found = []
    for run in all_runs(runs):
        with suppress(TuningError):
            found.append(compared_run(run))
    return found


def compare_runs(runs: Iterable[ComparedRun], first: Sequence[str] = ()) -> RunComparison:
    """Compare runs.

    Args:
        runs: The runs.
        first: Hyperparameters that come before the others.
    """
    ordered = tuple(sorted(runs, key=_rank))
    names = dict.fromkeys(name for run in ordered for name in run.settings)
    differing = [name for name in names if len({run.settings.get(name) for run in ordered}) > 1]
    differing.sort(key=lambda name: first.index(name) if name in first else len(first))
    common = {name: ordered[0].settings[name] for name in names if name not in differing}
    return RunComparison(ordered, tuple(differing), common)


def grouped(comparison: RunComparison, by: GroupBy) -> tuple[RunGroup, ...]:
    """Return the runs of a comparison by their sweep, base or data, the group with the best run first."""
    found: dict[str, list[ComparedRun]] = {}
    for run in comparison.runs:
        found.setdefault(getattr(run, by), []).append(run)
    groups = []
    for name, runs in found.items():
        losses = [run.loss for run in runs if run.state == "done" and run.loss is not None]
        groups.append(RunGroup(name, tuple(runs), min(losses, default=None), median(losses) if losses else None))
    return tuple(groups)


def written(value: Setting | None) -> str:
    """Return a hyperparameter as text."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _rank(run: ComparedRun) -> tuple[bool, float, str]:
    return run.state != "done", math.inf if run.loss is None or math.isnan(run.loss) else run.loss, run.name


def _settings(recipe: Recipe) -> dict[str, Setting]:
    """Return the hyperparameters by their names, with that of the stage where there are several."""
    values = recipe.model_dump()
    found = {"base": recipe.base} | _plain(values["lora"])
    for stage in values["stages"]:
        prefix = f"{stage['name']}." if len(values["stages"]) > 1 else ""
        found |= {f"{prefix}{name}": value for name, value in _plain(stage).items() if name != "name"}
    return found | _plain(values)


def _plain(values: Mapping[str, Any]) -> dict[str, Setting]:
    return {
        name: ", ".join(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if name not in _LEFT_OUT and value is not None
    }
