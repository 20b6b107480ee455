"""The work of a sweep: one training after the other, each in a process of its own.

What a trial comes to depends on its curve alone, and not on when this process looks at it. A process that was
killed leaves the trial unfinished, and its training may still go on: the next process continues there.
"""

from __future__ import annotations

import math
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.recipe_changes import RecipeChanges, changed_recipe, recipe_toml
from finetune.run_folder import RunFolder, Status, new_run, run_like
from finetune.sweeps.search_space import Value
from finetune.sweeps.sweep_folder import Sweep, SweepFolder
from finetune.sweeps.sweep_study import RUN, next_trial, open_study, trial_count
from finetune.training import numbered, validation_losses
from rag.errors import TuningError
from rag.settings import TrackingSettings

if TYPE_CHECKING:
    from optuna import Study, Trial

POLL_S = 0.3
# Who asks whether a sweep is active takes its lock for a moment.
LOCK_S = 1.0


@dataclass(frozen=True, slots=True)
class SweepProgress:
    """How far a sweep is.

    Attributes:
        number: Number of the current trial, from 1.
        trials: Number of all trials.
        run: The run of the current trial.
        values: Its values.
        status: The state of its training.
    """

    number: int
    trials: int
    run: str
    values: Mapping[str, Value]
    status: Status


@dataclass(frozen=True)
class SweepWork:
    """Works on one sweep, in one process at a time.

    Attributes:
        folder: The sweep.
        tracking: The W&B settings of its runs.
        launch: Starts the process of a training.
        stop: Set to stop after a checkpoint; a stop requested in the folder does the same.
        on_progress: Called often.
    """

    folder: SweepFolder
    tracking: TrackingSettings
    launch: Callable[[RunFolder], None]
    stop: threading.Event
    on_progress: Callable[[SweepProgress], None]

    def run(self) -> bool:
        """Work until all trials are finished, or until a training or the sweep is stopped.

        Returns:
            Whether all trials are finished.

        Raises:
            TuningError: Another process works on the sweep, or a training failed otherwise than by diverging; the
                same trial can go on when that is remedied.
        """
        from filelock import Timeout

        try:
            with self.folder.lock.acquire(timeout=LOCK_S):
                self.folder.clear_stop()
                self.folder.write_problem("")
                sweep = self.folder.sweep
                with open_study(self.folder, sweep) as study:
                    while not self._is_stopping:
                        found = next_trial(study, sweep)
                        if found is None:
                            return True
                        if not self._trial(study, sweep, *found):
                            return False
                    return False
        except Timeout as error:
            raise TuningError(
                f"Another process is working on the sweep {self.folder.name}.",
                fix=f"See how far it is with `ragsmith tune compare --sweep {self.folder.name}`.",
            ) from error

    @property
    def _is_stopping(self) -> bool:
        return self.stop.is_set() or self.folder.stop_requested

    def _trial(self, study: Study, sweep: Sweep, trial: Trial, values: dict[str, Value]) -> bool:
        """Train to the end or until it is pruned; return whether the trial is finished."""
        from optuna.trial import TrialState

        run = _run_of(self.folder.path.parent, sweep, trial.number, values, self.tracking)
        trial.set_user_attr(RUN, run.name)

        def report(status: Status) -> None:
            self.on_progress(SweepProgress(trial.number + 1, trial_count(sweep), run.name, values, status))

        if self._followed(trial, run, report):
            _prune(trial, run)
            study.tell(trial, state=TrialState.PRUNED)
            return True
        status = run.status
        if status.state == "stopped":
            return False
        if status.state == "failed" and not status.diverged:
            raise TuningError(
                f"The training {run.name} failed: {status.message.rstrip('.')}.",
                fix="Remedy the cause, and continue the sweep: it tries this training again.",
            )
        losses = [loss for _, loss in validation_losses(run.points())]
        if status.state == "failed" or not losses or not math.isfinite(losses[-1]):
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, losses[-1])
        return True

    def _followed(self, trial: Trial, run: RunFolder, report: Callable[[Status], None]) -> bool:
        """Wait for the end of a training; return whether it is pruned."""
        pruned = _is_pruned(trial, run)
        if not pruned and run.status.state != "done" and not run.is_active:
            self.launch(run)
        while run.is_active:
            pruned = pruned or _is_pruned(trial, run)
            if pruned or self._is_stopping:
                run.request_stop()
            report(run.status)
            time.sleep(POLL_S)
        report(run.status)
        return pruned or _is_pruned(trial, run)


def _run_of(
    runs: Path, sweep: Sweep, number: int, values: dict[str, Value], tracking: TrackingSettings
) -> RunFolder:
    """Return the run of a trial, created unless an earlier process has done so."""
    changes = RecipeChanges.model_validate({**values, "name": f"{sweep.name}-{number:03d}"})
    recipe = changed_recipe(sweep.base_recipe, changes)
    text, data = recipe_toml(recipe), Path(sweep.data)
    found = run_like(runs, recipe, text, data)
    return found or new_run(runs, recipe, text, data, tracking, sweep=sweep.name)


def _is_pruned(trial: Trial, run: RunFolder) -> bool:
    """Report new validations until one is hopeless; the last of a stage never is, since its training is done."""
    known = _reported(trial)
    if known and trial.should_prune():
        return True
    reported = max(known, default=-1)
    for step, point in numbered(run.points()):
        loss = (point.figures or {}).get("loss", math.nan)
        # Before the first step, the loss says nothing about the values.
        if step > reported and 0 < point.step < point.steps and math.isfinite(loss):
            trial.report(loss, step)
            if trial.should_prune():
                return True
    return False


def _prune(trial: Trial, run: RunFolder) -> None:
    """Mark a training as pruned, and drop what it has computed before it stopped."""
    stages = [stage.name for stage in run.recipe.stages]
    end = max(_reported(trial))
    kept = [point for step, point in numbered(run.points()) if step <= end]
    if kept:
        run.truncate_curve(stages, stages.index(kept[-1].stage), kept[-1].step)
    run.write_status(replace(run.status, state="pruned", left_s=None))
    # It is not resumed, and each checkpoint is large.
    shutil.rmtree(run.path / "checkpoints", ignore_errors=True)


def _reported(trial: Trial) -> Mapping[int, float]:
    """Return the validation losses of a trial that earlier processes and this one have reported, by step."""
    return trial.storage.get_trial(trial._trial_id).intermediate_values
