"""A sweep as a folder among the runs of a workspace; each of its trials is a run of its own.

``sweep.json``       what is tried; replaced atomically
``study.db``         the trials, in the storage of optuna
``problem.txt``      why the last process ended early; missing if it did not
``log.txt``          output of a process that a page has started
``stop``, ``lock``   see ``finetune.work_folder``
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from finetune.recipe import Part, Recipe, parse_recipe
from finetune.sweeps.search_space import MOST_TRIALS, Dimension
from finetune.work_folder import WorkFolder
from prompts.files import atomic_write
from rag.errors import TuningError
from rag.workspace import disk_errors

FILE = "sweep.json"
PROBLEM = "problem.txt"
Method = Literal["grid", "random", "tpe"]


class Sweep(Part):
    """What a sweep tries.

    Attributes:
        name: Name of its folder, and beginning of the names of its runs.
        started: Seconds since the epoch.
        recipe: The recipe that the trials change, as TOML.
        data: The folder of the training data.
        method: How values are chosen: all combinations, by chance, or by a tree-structured Parzen estimator
            (Bergstra and others, NIPS 2011).
        trials: Number of trainings.
        startup: Trials at the beginning that are never pruned, and that ``tpe`` chooses by chance.
        prune: Whether a training ends early if its validation loss is above the median of the earlier trials
            at the same step.
    """

    name: str = Field(pattern=r"^[a-z0-9-]+$", max_length=60)
    started: float
    recipe: str
    data: str
    method: Method
    space: tuple[Dimension, ...]
    trials: int = Field(ge=1, le=MOST_TRIALS)
    startup: int = Field(ge=1)
    seed: int
    prune: bool

    @property
    def base_recipe(self) -> Recipe:
        """The recipe that the trials change."""
        return parse_recipe(self.recipe, f"the recipe of the sweep {self.name}")


class SweepFolder(WorkFolder):
    """The files of a sweep."""

    @property
    def sweep(self) -> Sweep:
        """What the sweep tries.

        Raises:
            TuningError: The file is damaged.
        """
        try:
            return Sweep.model_validate_json((self.path / FILE).read_bytes())
        except (OSError, ValidationError) as error:
            raise TuningError(
                f"The sweep in {self.path} is damaged: {FILE} cannot be read.", fix="Delete that folder."
            ) from error

    def write(self, sweep: Sweep) -> None:
        """Replace what the sweep tries."""
        with disk_errors(f"write {self.path}"), atomic_write(self.path / FILE) as file:
            file.write(sweep.model_dump_json(indent=1).encode())

    @property
    def problem(self) -> str:
        """Why the last process ended early; empty if it did not."""
        try:
            return (self.path / PROBLEM).read_text(encoding="utf-8")
        except OSError:
            return ""

    def write_problem(self, reason: str) -> None:
        """Store why the process ends early; an empty reason removes that of an earlier one."""
        with disk_errors(f"write {self.path}"):
            if reason:
                (self.path / PROBLEM).write_text(reason, encoding="utf-8")
            else:
                (self.path / PROBLEM).unlink(missing_ok=True)

    @property
    def study(self) -> Path:
        """The database of its trials."""
        return self.path / "study.db"


def begin_sweep(runs: Path, sweep: Sweep) -> SweepFolder:
    """Create the folder of a sweep, or return that of the same sweep, which may get another number of trials.

    Raises:
        TuningError: A sweep of that name tries something else, or the name is that of a run.
        StorageFull, WorkspaceError: The folder cannot be written.
    """
    folder = SweepFolder(runs / sweep.name)
    if os.path.isfile(folder.path / FILE):
        stored = folder.sweep
        wanted = sweep.model_copy(update={"started": stored.started})
        for name in Sweep.model_fields:
            if name != "trials" and getattr(stored, name) != getattr(wanted, name):
                raise TuningError(
                    f"The sweep {sweep.name} exists with another {name}.",
                    fix="Repeat its options to continue it, or give the new one another --name.",
                )
        folder.write(wanted)
        return folder
    with disk_errors("start a sweep"):
        folder.path.mkdir(parents=True, exist_ok=True)
        # A crash may have left an empty folder.
        if any(folder.path.iterdir()):
            raise TuningError(f"There is a run {sweep.name} already.", fix="Choose another --name for the sweep.")
    folder.write(sweep)
    return folder


def all_sweeps(runs: Path) -> list[SweepFolder]:
    """Return all sweeps, newest first."""
    found = [path.parent for path in runs.glob(f"*/{FILE}")]
    found.sort(key=lambda path: (path / FILE).stat().st_mtime, reverse=True)
    return [SweepFolder(path) for path in found]


def find_sweep(runs: Path, name: str) -> SweepFolder:
    """Find a sweep by its name.

    Raises:
        TuningError: There is no such sweep.
    """
    found = all_sweeps(runs)
    folder = next((one for one in found if one.name == name), None)
    if folder is None:
        known = ", ".join(one.name for one in found[:5])
        raise TuningError(
            f"There is no sweep {name}.",
            fix=f"Sweeps: {known}." if known else "Start one with `ragsmith tune sweep RECIPE --data FOLDER`.",
        )
    return folder
