"""The training process: ``python -m finetune.worker RUN_FOLDER [--low-priority]``."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from finetune import checkpoint
from finetune.features import Feature, Features
from finetune.launching import PREVIEW
from finetune.prepared.data_versions import DataVersion, read_version
from finetune.recipe import VALIDATION, Recipe
from finetune.run_folder import MEASURING, RESULT, WRITING, RunFolder, State
from finetune.start import tracked_start
from finetune.tasks import Task, open_task
from finetune.training import Point, Stopped, Training
from finetune.training_expense import machine_usd, record_training
from finetune.training_preview import preview_training, read_preview, write_preview
from finetune.training_run_tracking import TrainingTracker
from rag.encoders.adapters import Adapter
from rag.errors import RagsmithError, TrainingDiverged, TuningError
from rag.workspace import Workspace, disk_errors, private_files

LOCK_S = 3.0
NICENESS = 5
_log = logging.getLogger(__name__)


def main(folder: Path, *, only_preview: bool = False) -> int:
    """Train until done, or until a stop is requested.

    Args:
        folder: The folder of the run.
        only_preview: Whether to end before the first step, see ``finetune.training_preview``.

    Returns:
        The exit status: 0 if done or stopped, 1 if failed.
    """
    from filelock import Timeout

    logging.basicConfig(
        stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S"
    )
    logging.getLogger("rag").setLevel(logging.WARNING)
    run = RunFolder(folder)
    try:
        # A process that checks the lock takes it for a moment, so wait briefly.
        with private_files(), run.lock.acquire(timeout=LOCK_S):
            return _Job(run, only_preview).run()
    except Timeout:
        _log.error("Another process is already training %s.", run.name)
        return 1


class _Job:
    """Trains, and keeps the files of the run up to date."""

    def __init__(self, run: RunFolder, only_preview: bool) -> None:
        self._run = run
        self._only_preview = only_preview
        # Keep the previous progress until the first point.
        self._status = replace(
            run.status, state="preparing", pid=os.getpid(), left_s=None, message="", diverged=False, activity=""
        )
        self._interrupted = False
        self._started = time.monotonic()
        self._steps: dict[str, int] = {}
        self._tracker: TrainingTracker

    def run(self) -> int:
        """Train and return the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        try:
            self._run.write_status(self._status)
            self._run.clear_left_overs()
            self._train()
        except Stopped:
            _log.info("Stopped.")
            return self._ended("stopped")
        except Exception as error:  # noqa: BLE001 - a background process: the traceback goes to the log
            known = isinstance(error, RagsmithError)
            message = str(error) if known else f"This is a bug in ragsmith: {type(error).__name__}: {error}"
            _log.error("%s", message, exc_info=not known)
            return self._ended("failed", message, diverged=isinstance(error, TrainingDiverged))
        _log.info("Done: %s", self._run.path / RESULT)
        return self._ended("done")

    def _ended(self, state: State, message: str = "", *, diverged: bool = False) -> int:
        ended = replace(self._status, state=state, left_s=None, message=message, diverged=diverged)
        try:
            self._run.write_status(ended)
        except RagsmithError as error:
            # A full disk may prevent even this; a run without a process counts as stopped.
            _log.error("%s", error)
            return 1
        return int(state == "failed")

    def _train(self) -> None:
        run = self._run
        recipe = run.recipe
        task = open_task(recipe, Workspace(run.path.parent.parent).models, run.data)
        features = prepare(run, recipe, task, self._check_stop)
        self._preview(task, features)
        found = checkpoint.load(run.path / "checkpoints")
        stages = [stage.name for stage in recipe.stages]
        run.truncate_curve(stages, *((found[0].stage, found[0].step) if found else (-1, 0)))
        self._steps = {stage.name: task.steps(features[stage.name], stage) for stage in recipe.stages}
        self._status = replace(self._status, state="running")
        run.write_status(self._status)
        data: dict[str, Any] = {name: stage.version for name, stage in features.items()}
        prepared = read_version(run.data)
        if prepared is not None:
            data["prepared"] = {"name": prepared.label, "sha256": prepared.sha256}
        config = {"recipe": recipe.model_dump(), "data": data}
        self._tracker = TrainingTracker(run.tracking, run.path.parent.parent, run.name, config, sweep=run.sweep)
        self._track_inputs(recipe, prepared, data)
        failed = True
        try:
            network = task.train(
                Training(features, run.path / "checkpoints", self._on_point, lambda: self._stop_requested)
            )
            card = task.finish(network, features[VALIDATION], run.path / RESULT, data)
            self._tracker.result(Adapter(run.path / RESULT, card))
            self._predict(task, network, features[VALIDATION])
            failed = False
        except Stopped:
            failed = False
            raise
        finally:
            spending = record_training(run, recipe.base, time.monotonic() - self._started)
            self._tracker.finish(spending, failed=failed)
        # No longer needed once the result is written, and over a hundred megabytes each.
        shutil.rmtree(run.path / "checkpoints", ignore_errors=True)

    def _track_inputs(self, recipe: Recipe, prepared: DataVersion | None, data: Mapping[str, Any]) -> None:
        if prepared is not None:
            self._tracker.data(self._run.data, prepared)
        else:
            self._tracker.rows(recipe.name, data)
        start = tracked_start(recipe)
        if start is not None:
            self._tracker.start(start)

    def _preview(self, task: Task, features: Mapping[str, Features]) -> None:
        """Store what the training is about to do, unless it has begun before or is one of many.

        Raises:
            Stopped: Only the preview is wanted, or a stop was requested.
        """
        from finetune.tasks.sft_task import SftTask

        begun = bool(self._run.sweep) or checkpoint.load(self._run.path / "checkpoints") is not None
        if isinstance(task, SftTask) and not begun and read_preview(self._run.path) is None:
            self._run.write_status(replace(self._status, activity=MEASURING))
            preview = preview_training(task, features, machine_usd(1.0))
            write_preview(self._run.path, preview)
            _log.info("Estimated: %.0f s, %.0f MB", preview.estimated_s, preview.memory_bytes / 1e6)
        if self._only_preview:
            raise Stopped
        self._check_stop()

    def _predict(self, task: Task, network: Any, validation: Features) -> None:
        """Store and track what the trained model writes for validation rows, if it writes."""
        from finetune.tasks.sft_task import SftTask

        if isinstance(task, SftTask):
            self._run.write_status(replace(self._status, activity=WRITING, left_s=None))
            predictions = task.predictions(network, validation)
            self._run.write_predictions(predictions)
            self._tracker.predictions(predictions)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._interrupted = True

    @property
    def _stop_requested(self) -> bool:
        return self._interrupted or self._run.stop_requested

    def _check_stop(self) -> None:
        if self._stop_requested:
            raise Stopped

    def _on_point(self, point: Point) -> None:
        self._run.add_point(point)
        names = list(self._steps)
        done = sum(self._steps[name] for name in names[: names.index(point.stage)]) + point.step
        self._status = replace(
            self._status,
            stage=point.stage,
            step=point.step,
            steps=point.steps,
            loss=point.loss,
            seconds=point.seconds,
            left_s=point.seconds / done * (sum(self._steps.values()) - done) if done else None,
        )
        self._run.write_status(self._status)
        self._tracker.point(point)
        metrics = "".join(f", {name} {value:.4f}" for name, value in (point.figures or {}).items())
        _log.info(
            "%s %d/%d: loss %.4f, %.0f tokens/s%s",
            *(point.stage, point.step, point.steps, point.loss, point.tokens_per_s, metrics),
        )


def prepare(run: RunFolder, recipe: Recipe, task: Task, between: Callable[[], None]) -> Mapping[str, Features]:
    """Load or build the features of every stage and of the validation rows.

    Args:
        run: The run that stores them.
        recipe: Names the sources.
        task: Builds the features.
        between: Called before each source and every 1000 rows; may raise to stop.

    Raises:
        TuningError: The data are missing or malformed, or a stage has no rows.
        StorageFull: The disk is full.
    """
    folder = run.path / "features"
    with disk_errors(f"write {folder}"):
        folder.mkdir(exist_ok=True)
    found: dict[str, Features] = {}
    same: dict[object, Features] = {}
    for name, sources in ((VALIDATION, ()), *((stage.name, stage.sources) for stage in recipe.stages)):
        path = folder / f"{name}.npz"
        between()
        stored = Features.load(path)
        if stored is not None:
            built = stored
        elif sources in same:
            built = same[sources]
            built.save(path)
        elif not sources:
            built = Features.pack(task.validation(run.data, recipe.validation_rows))
            built.save(path)
        else:
            built = Features.pack(
                feature
                for source in sources
                for turn in range(source.repeat)
                for feature in _watched(task.features(source, run.data, recipe.seed + turn), between)
            )
            built.save(path)
        if not len(built):
            raise TuningError(f"{run.data} contains no rows for {name}.")
        found[name] = same[sources] = built
        _log.info("%s: %d rows, %d tokens", name, len(built), int(built.lengths.sum()))
    return found


def _watched(features: Iterator[Feature], between: Callable[[], None]) -> Iterator[Feature]:
    for number, feature in enumerate(features):
        if number % 1000 == 0:
            between()
        yield feature


if __name__ == "__main__":
    if hasattr(os, "nice"):
        # Answers to people come first.
        os.nice(NICENESS)
    sys.exit(main(Path(sys.argv[1]), only_preview=PREVIEW in sys.argv[2:]))
