"""Trainings without a model: a curve that depends on the learning rate and the rank alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sft_data import recipe_text

from finetune.recipe import CausalRecipe
from finetune.run_folder import RunFolder, Status
from finetune.sweeps.search_space import parse_dimension
from finetune.sweeps.sweep_folder import Method, Sweep, SweepFolder, begin_sweep
from finetune.sweeps.sweep_work import SweepWork
from finetune.training import Point
from rag.settings import TrackingSettings
from rag.workspace import Workspace

STEPS = (2, 4, 6)
OFF = TrackingSettings(wandb="off")
SPACE = ("learning_rate=1e-4..1e-2:log", "rank=2,4,8")


class Killed(BaseException):
    """The process is gone."""


def a_sweep(
    data: Path, space: tuple[str, ...] = SPACE, method: Method = "tpe", trials: int = 6, **changes: object
) -> Sweep:
    made = Sweep(
        name="swept",
        started=time.time(),
        recipe=recipe_text("some/base"),
        data=str(data),
        method=method,
        space=tuple(map(parse_dimension, space)),
        trials=trials,
        startup=2,
        seed=7,
        prune=True,
    )
    return Sweep.model_validate(made.model_dump() | changes)


def losses_of(run: RunFolder) -> list[float]:
    """The validation losses: the nearer to a rate of 0.001 the better, and a little by the rank."""
    recipe = run.recipe
    assert isinstance(recipe, CausalRecipe)
    rate = recipe.stages[0].learning_rate
    worse = abs(rate - 0.001) * 100 + 1 / recipe.lora.rank
    return [worse + 1 / step for step in STEPS]


def write_points(run: RunFolder, until: int) -> None:
    """Write the curve up to a step, as a training that goes on does."""
    run.truncate_curve(["answers"], -1, 0)
    for step, loss in zip(STEPS, losses_of(run), strict=True):
        if step <= until:
            run.add_point(Point("answers", step, STEPS[-1], loss, 1e-3, 1.0, 100.0, {"loss": loss}))


def train(run: RunFolder) -> None:
    write_points(run, STEPS[-1])
    run.write_status(Status("done", 1, "answers", STEPS[-1], STEPS[-1]))


@dataclass
class Scripted:
    """A sweep whose trainings are scripted."""

    workspace: Workspace
    sweep: Sweep
    stop: threading.Event = field(default_factory=threading.Event)
    launched: list[str] = field(default_factory=list)

    @property
    def folder(self) -> SweepFolder:
        return begin_sweep(self.workspace.runs, self.sweep)

    def work(self, training: Callable[[RunFolder], None] = train) -> bool:
        def launch(run: RunFolder) -> None:
            self.launched.append(run.name)
            training(run)

        return SweepWork(self.folder, OFF, launch, self.stop, lambda _: None).run()
