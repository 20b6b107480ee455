"""A training run as files: what was asked for, how far it is, what came of it.

``recipe.toml``      the recipe, as it was given
``run.json``         data folder, hash of the recipe, adapter it starts from, when it began, how it is tracked
``status.json``      state, place, process; replaced whole
``curve.jsonl``      a point a line
``features/``        the rows of each stage as numbers
``checkpoints/``     see ``finetune.checkpoint``
``log.txt``          what the process printed
``stop``             there while somebody wants it to stop
``lock``             held while a process trains
``result/``          the adapter, the head and the card; there when the run is done
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from finetune.loop import Point
from finetune.recipe import Recipe, parse_recipe
from finetune.start import find_start
from prompts.files import atomic_write
from rag.errors import TuningError
from rag.settings import TrackingSettings
from rag.workspace import disk_errors

if TYPE_CHECKING:
    from filelock import FileLock

State = Literal["preparing", "running", "stopped", "done", "failed"]
RESULT = "result"


@dataclass(frozen=True, slots=True)
class Status:
    """How far a run is.

    Attributes:
        pid: Of the process that computes.
        stage, step, steps: Where it stands.
        loss: Of the last point.
        left_s: Computing time still needed, in seconds; None while unknown.
        message: Why it failed.
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


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def recipe(self) -> Recipe:
        """The recipe.

        Raises:
            TuningError: It is missing or malformed, or not what the run began with.
        """
        file = self.path / "recipe.toml"
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise TuningError(
                f"There is no run in {self.path}.", fix="`ragsmith tune status` lists the runs."
            ) from error
        recipe = parse_recipe(text, str(file))
        # The rows and the checkpoints that are there were made by the recipe as it was.
        if _hash(text) != self._told["recipe_sha256"]:
            raise TuningError(
                f"{file} was changed since the run began.", fix="Undo the change, or begin a new run with it."
            )
        return recipe

    @property
    def data(self) -> Path:
        """The folder of data."""
        return Path(str(self._told["data"]))

    @property
    def tracking(self) -> TrackingSettings:
        """How the run is told to W&B."""
        return TrackingSettings(**self._told["tracking"])

    @property
    def _told(self) -> dict[str, Any]:
        try:
            held: dict[str, Any] = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
            told = {name: held[name] for name in ("data", "recipe_sha256", "tracking")}
            return {**told, "start": held.get("start")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TuningError(
                f"The run in {self.path} is damaged: run.json cannot be read.", fix="Begin a new one."
            ) from error

    @property
    def status(self) -> Status:
        """As last written; a run whose process is gone counts as stopped."""
        try:
            found = Status(**json.loads((self.path / "status.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return Status("stopped")
        if found.state in ("preparing", "running") and not self.is_worked_on:
            return replace(found, state="stopped", left_s=None)
        return found

    @property
    def lock(self) -> FileLock:
        """Held by the process that trains; it dies with it."""
        from filelock import FileLock

        return FileLock(self.path / "lock")

    @property
    def is_worked_on(self) -> bool:
        """Whether a process trains at this moment."""
        from filelock import Timeout

        try:
            with self.lock.acquire(timeout=0):
                return False
        except Timeout:
            return True

    def write_status(self, status: Status) -> None:
        """Replace the status, whole."""
        _write(self.path / "status.json", json.dumps(asdict(status)))

    @property
    def stop_asked(self) -> bool:
        """Whether somebody wants it to stop."""
        return (self.path / "stop").exists()

    def ask_to_stop(self) -> None:
        """Let the process write a checkpoint and end."""
        with disk_errors(f"stop the run {self.name}"):
            (self.path / "stop").touch()

    def forget_stop(self) -> None:
        """Before it goes on."""
        (self.path / "stop").unlink(missing_ok=True)

    def clear_left_overs(self) -> None:
        """Delete what a killed process did not finish writing; for the process that holds the lock."""
        for path in (*self.path.glob(".*.[0-9]*"), *(self.path / "features").glob(".*.[0-9]*")):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def points(self) -> Iterator[Point]:
        """The curve so far; a line that a crash left unfinished is left out."""
        try:
            lines = (self.path / "curve.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                yield Point(**json.loads(line))
            except (ValueError, TypeError):
                return

    def cut_curve(self, stages: list[str], stage: int, step: int) -> None:
        """Take out what came after a checkpoint: it is computed again."""
        kept = [point for point in self.points() if (stages.index(point.stage), point.step) <= (stage, step)]
        _write(self.path / "curve.jsonl", "".join(_line(point) for point in kept))

    def add_point(self, point: Point) -> None:
        """Lengthen the curve."""
        with disk_errors("write the curve"), (self.path / "curve.jsonl").open("a", encoding="utf-8") as file:
            file.write(_line(point))


def new_run(runs: Path, recipe: Recipe, text: str, data: Path, tracking: TrackingSettings) -> RunFolder:
    """Make the folder of a run.

    Args:
        runs: Where the runs of the workspace are.
        recipe: The recipe.
        text: The same, as it was given.
        data: The folder of data.
        tracking: How the run is told to W&B.

    Raises:
        AdapterError: There is no adapter such as the recipe starts from.
        StorageFull, WorkspaceError: The folder cannot be written.
    """
    started = time.time()
    asked = _asked(recipe, text, data)
    stem = f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(started))}"
    with disk_errors("begin a run"):
        runs.mkdir(parents=True, exist_ok=True)
        for number in range(1, 1000):
            path = runs / (stem if number == 1 else f"{stem}-{number}")
            try:
                path.mkdir()
                break
            except FileExistsError:
                continue
        told = {**asked, "started": started, "tracking": tracking.model_dump()}
        (path / "run.json").write_text(json.dumps(told), encoding="utf-8")
        (path / "recipe.toml").write_text(text, encoding="utf-8")
    return RunFolder(path)


def run_like(runs: Path, recipe: Recipe, text: str, data: Path) -> RunFolder | None:
    """The newest run that was asked for the same: recipe, the adapter it starts from, and data.

    Args:
        runs, recipe, text, data: See ``new_run``.

    Raises:
        AdapterError: There is no adapter such as the recipe starts from.
    """
    asked = _asked(recipe, text, data)
    for run in all_runs(runs):
        try:
            told = run._told
        except TuningError:
            # Whatever it was asked for, it cannot go on.
            continue
        if {name: told[name] for name in asked} == asked:
            return run
    return None


def find_run(runs: Path, name: str | None) -> RunFolder:
    """The run of that name; the newest one without a name.

    Raises:
        TuningError: There is none.
    """
    if name and _is_run(runs / name):
        return RunFolder(runs / name)
    found = all_runs(runs)
    if name or not found:
        known = ", ".join(each.name for each in found[:5]) or "none yet"
        raise TuningError(
            f"There is no run {name}." if name else "There is no run yet.",
            fix=f"Runs: {known}." if name else "Begin one with `ragsmith tune run RECIPE --data FOLDER`.",
        )
    return found[0]


def all_runs(runs: Path) -> list[RunFolder]:
    """Every run, the newest first."""
    found = [path for path in runs.glob("*") if _is_run(path)]
    found.sort(key=lambda path: (path / "run.json").stat().st_mtime, reverse=True)
    return [RunFolder(path) for path in found]


def _is_run(path: Path) -> bool:
    # `Path.is_file` raises where a name is too long for a file.
    return all(os.path.isfile(path / name) for name in ("recipe.toml", "run.json"))


def _asked(recipe: Recipe, text: str, data: Path) -> dict[str, Any]:
    """What decides what a training makes, beside the code."""
    return {
        "recipe_sha256": _hash(text),
        "start": find_start(recipe.start).identity if recipe.start is not None else None,
        "data": str(data.resolve()),
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _line(point: Point) -> str:
    held: dict[str, Any] = asdict(point)
    return json.dumps(held) + "\n"


def _write(path: Path, text: str) -> None:
    with disk_errors(f"write {path}"), atomic_write(path) as file:
        file.write(text.encode())
