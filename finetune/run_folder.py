"""A training run as a folder of files: configuration, progress and result.

``recipe.toml``        the recipe, unchanged
``run.json``           data folder, hash of the recipe, adapter it starts from, start time, tracking, sweep
``status.json``        state, progress, process; replaced atomically
``curve.jsonl``        one point of the loss curve per line
``predictions.jsonl``  what a finished language model writes for validation rows
``features/``          the rows of each stage as numbers
``checkpoints/``       see ``finetune.checkpoint``
``log.txt``            output of the process
``stop``, ``lock``     see ``finetune.work_folder``
``result/``            adapter, head and card of a finished run
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from finetune.predictions import Prediction
from finetune.recipe import Recipe, parse_recipe
from finetune.start import start_identity
from finetune.training import Point
from finetune.work_folder import WorkFolder, new_folder_in
from prompts.files import atomic_write
from rag.errors import TuningError
from rag.settings import TrackingSettings
from rag.workspace import disk_errors

# A sweep prunes a training, see ``finetune.sweeps.sweep_work``.
State = Literal["preparing", "running", "stopped", "pruned", "done", "failed"]
# What a language model's run does before its first step and after its last one.
MEASURING, WRITING = "measuring three steps", "writing answers"
RESULT = "result"
PREDICTIONS = "predictions.jsonl"


@dataclass(frozen=True, slots=True)
class Status:
    """State and progress of a run.

    Attributes:
        pid: Id of the training process.
        stage, step, steps: Current stage, steps done and total steps in it.
        loss: Loss at the last point.
        left_s: Estimated computing time left, in seconds; None if unknown.
        message: The reason of a failure.
        diverged: Whether the failure is that the loss was not finite.
        activity: ``MEASURING`` or ``WRITING``; empty while it reads data or takes steps.
    """

    state: State
    pid: int = 0
    stage: str = ""
    step: int = 0
    steps: int = 0
    loss: float | None = None
    seconds: float = 0.0
    left_s: float | None = None
    message: str = ""
    diverged: bool = False
    activity: str = ""


class RunFolder(WorkFolder):
    """The files of one run."""

    @property
    def recipe(self) -> Recipe:
        """Recipe of the run.

        Raises:
            TuningError: The recipe is missing, malformed, or has changed since the run started.
        """
        file = self.path / "recipe.toml"
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise TuningError(
                f"There is no run in {self.path}.", fix="List the runs with `ragsmith tune status`."
            ) from error
        recipe = parse_recipe(text, str(file))
        # Existing features and checkpoints belong to the original recipe.
        if _hash(text) != self._config["recipe_sha256"]:
            raise TuningError(
                f"{file} has changed since the run started.", fix="Undo the change, or start a new run."
            )
        return recipe

    @property
    def data(self) -> Path:
        """Folder of the training data."""
        return Path(str(self._config["data"]))

    @property
    def tracking(self) -> TrackingSettings:
        """W&B settings of the run."""
        return TrackingSettings(**self._config["tracking"])

    @property
    def sweep(self) -> str:
        """Name of the sweep that the run is a trial of; empty if of none."""
        return str(self._config["sweep"])

    @property
    def _config(self) -> dict[str, Any]:
        try:
            stored: dict[str, Any] = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
            config = {name: stored[name] for name in ("data", "recipe_sha256", "tracking")}
            return {**config, "start": stored.get("start"), "sweep": stored.get("sweep", "")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TuningError(
                f"The run in {self.path} is damaged: run.json cannot be read.", fix="Start a new run."
            ) from error

    @property
    def status(self) -> Status:
        """Status as last written; a run whose process is gone counts as stopped."""
        try:
            found = Status(**json.loads((self.path / "status.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return Status("stopped")
        if found.state in ("preparing", "running") and not self.is_active:
            return replace(found, state="stopped", left_s=None, activity="")
        return found

    def write_status(self, status: Status) -> None:
        """Replace the status atomically."""
        _write(self.path / "status.json", json.dumps(asdict(status)))

    def clear_left_overs(self) -> None:
        """Delete the partial files of a killed process; the caller must own the lock."""
        for path in (*self.path.glob(".*.[0-9]*"), *(self.path / "features").glob(".*.[0-9]*")):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def points(self) -> Iterator[Point]:
        """Yield the curve so far, without a line that a crash left incomplete."""
        try:
            lines = (self.path / "curve.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                yield _point(line)
            except (ValueError, TypeError):
                return

    def predictions(self) -> list[Prediction]:
        """Return what the finished model wrote for validation rows, the lowest loss first; empty without any."""
        try:
            lines = (self.path / PREDICTIONS).read_text(encoding="utf-8").splitlines()
            return [Prediction(**json.loads(line)) for line in lines]
        except (OSError, ValueError, TypeError):
            return []

    def write_predictions(self, predictions: Iterable[Prediction]) -> None:
        """Replace the predictions atomically."""
        _write(self.path / PREDICTIONS, "".join(_line(prediction) for prediction in predictions))

    def truncate_curve(self, stages: list[str], stage: int, step: int) -> None:
        """Drop the points after a checkpoint, which are computed again."""
        kept = [point for point in self.points() if (stages.index(point.stage), point.step) <= (stage, step)]
        _write(self.path / "curve.jsonl", "".join(_line(point) for point in kept))

    def add_point(self, point: Point) -> None:
        """Append a point to the curve."""
        with disk_errors("write the curve"), (self.path / "curve.jsonl").open("a", encoding="utf-8") as file:
            file.write(_line(point))


def new_run(
    runs: Path, recipe: Recipe, text: str, data: Path, tracking: TrackingSettings, *, sweep: str = ""
) -> RunFolder:
    """Create the folder of a run.

    Args:
        runs: The folder of all runs.
        recipe: The recipe.
        text: The text that the recipe was parsed from.
        data: The folder of the training data.
        tracking: The W&B settings.
        sweep: The sweep that the run is a trial of; the folder then has the name of the recipe, without the time.

    Raises:
        AdapterError: The adapter that the recipe starts from is missing.
        StorageFull, WorkspaceError: The folder cannot be written.
    """
    started = time.time()
    inputs = _inputs(recipe, text, data)
    stem = recipe.name if sweep else f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(started))}"
    with disk_errors("start a run"):
        path = new_folder_in(runs, stem)
        config = {**inputs, "started": started, "tracking": tracking.model_dump(), "sweep": sweep}
        (path / "run.json").write_text(json.dumps(config), encoding="utf-8")
        (path / "recipe.toml").write_text(text, encoding="utf-8")
    return RunFolder(path)


def run_like(runs: Path, recipe: Recipe, text: str, data: Path) -> RunFolder | None:
    """Find the newest run with the same recipe, starting adapter and data; arguments as for ``new_run``.

    Raises:
        AdapterError: The adapter that the recipe starts from is missing.
    """
    inputs = _inputs(recipe, text, data)
    for run in all_runs(runs):
        try:
            config = run._config
        except TuningError:
            # A damaged run cannot be resumed.
            continue
        if {name: config[name] for name in inputs} == inputs:
            return run
    return None


def find_run(runs: Path, name: str | None) -> RunFolder:
    """Find a run by its name, the newest run of an adapter by the adapter's name, or the newest one of all.

    Raises:
        TuningError: There is no such run.
    """
    if name and _is_run(runs / name):
        return RunFolder(runs / name)
    found = all_runs(runs)
    of_adapter = re.compile(rf"{re.escape(name or '')}-\d{{8}}-\d{{6}}(-\d+)?")
    if name and (newest := next((run for run in found if of_adapter.fullmatch(run.name)), None)):
        return newest
    if name or not found:
        known = ", ".join(run.name for run in found[:5]) or "none yet"
        raise TuningError(
            f"There is no run {name}." if name else "There are no runs yet.",
            fix=f"Runs: {known}." if name else "Start one with `ragsmith tune run RECIPE --data FOLDER`.",
        )
    return found[0]


def all_runs(runs: Path) -> list[RunFolder]:
    """Return all runs, newest first."""
    found = [path for path in runs.glob("*") if _is_run(path)]
    found.sort(key=lambda path: (path / "run.json").stat().st_mtime, reverse=True)
    return [RunFolder(path) for path in found]


def _is_run(path: Path) -> bool:
    # `Path.is_file` raises if a name is too long.
    return all(os.path.isfile(path / name) for name in ("recipe.toml", "run.json"))


def _inputs(recipe: Recipe, text: str, data: Path) -> dict[str, Any]:
    """Return everything but the code that determines the result of a run."""
    return {
        "recipe_sha256": _hash(text),
        "start": start_identity(recipe),
        "data": str(data.resolve()),
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _line(record: Point | Prediction) -> str:
    return json.dumps(asdict(record)) + "\n"


def _point(line: str) -> Point:
    values = json.loads(line)
    samples = tuple(Prediction(**sample) for sample in values.pop("samples", ()))
    return Point(**values, samples=samples)


def _write(path: Path, text: str) -> None:
    with disk_errors(f"write {path}"), atomic_write(path) as file:
        file.write(text.encode())
