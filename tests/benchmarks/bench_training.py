"""Steps a second of a training with all that it records, and of a plain trainer that records nothing, in turns."""

from __future__ import annotations

import json
import os
import resource
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.worker import NICENESS
from tests.benchmarks.bench_handbook import FOLDER
from tests.benchmarks.bench_report import Group, Row
from tests.benchmarks.child import call
from tests.benchmarks.plan import Plan

if TYPE_CHECKING:
    from finetune.run_folder import RunFolder

ROUNDS, QUICK_ROUNDS = 3, 1
# Steps between two points of the curve; those before the first one compile kernels.
POINT = 10
# About 45 steps.
ROWS, VALIDATION_ROWS = 80, 20
RECIPE = """
name = "parity"
task = "sft"
base = "smollm2"
checkpoint_s = 20
validation = "validation"

[[stages]]
name = "answers"
learning_rate = 2e-4
batch_tokens = 256
validate_every = 1000
sources = [{ name = "answers" }]
"""


@dataclass(frozen=True, slots=True)
class Moment:
    """A step, and the time when it had been taken: of the clock, and of the processor for this process."""

    step: int
    wall_s: float
    cpu_s: float

    @staticmethod
    def now(step: int) -> Moment:
        """Return this moment."""
        return Moment(step, time.monotonic(), time.process_time())


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds a step of both, of the clock and of the processor, and of a validation with its samples."""

    plain_wall: float
    plain_cpu: float
    ours_wall: float
    ours_cpu: float
    validation_cpu: float


def run(plan: Plan) -> Iterator[Group]:
    """Train in turns, each time in a process of its own."""
    home = plan.fresh_workspace("training")
    rounds = []
    for number in range(QUICK_ROUNDS if plan.quick else ROUNDS):
        order = ("plain", "ours") if number % 2 == 0 else ("ours", "plain")
        found = {name: call(f"tests.benchmarks.bench_training:{name}", home=home).value for name in order}
        rounds.append(Round(**found["plain"], **found["ours"]))
        print(time.strftime("%H:%M:%S"), rounds[-1], flush=True)
    return iter([_group(rounds)])


def _group(rounds: Sequence[Round]) -> Group:
    rows = (
        Row("steps a second in % of plain, median (lowest, highest)", _percents(rounds, "wall")),
        Row("the same by seconds of the processor", _percents(rounds, "cpu")),
        Row("seconds of the processor a step: ragsmith / plain", _medians(rounds, "ours_cpu", "plain_cpu")),
        Row("those of a validation with its samples", _medians(rounds, "validation_cpu")),
    )
    how = (
        "smollm2, LoRA of rank 16 on all layers, paragraphs of the handbook in batches of at most 256 tokens; the "
        f"steps after the first {POINT}, without validations and samples, which are the last row "
        f"({VALIDATION_ROWS} rows, three texts of 48 tokens). ragsmith writes its curve, norms, checkpoints every "
        "20 s and an offline W&B run, whose process counts, too; plain is transformers' trainer with peft and "
        "reports nothing. On a busy machine, the seconds of the processor say more."
    )
    return Group("A training beside a plain one", rows, how, [asdict(one) for one in rounds])


def _medians(rounds: Sequence[Round], *names: str) -> str:
    return " / ".join(f"{statistics.median(getattr(one, name) for one in rounds):.2f}" for name in names)


def _percents(rounds: Sequence[Round], unit: str) -> str:
    ratios = [getattr(one, f"plain_{unit}") / getattr(one, f"ours_{unit}") for one in rounds]
    low, middle, high = (round(100 * share) for share in (min(ratios), statistics.median(ratios), max(ratios)))
    return f"{middle} ({low}, {high})"


def plain(home: str) -> dict[str, float]:
    """Train with the plain trainer; in a process of its own."""
    from transformers import TrainerCallback

    from finetune.recipe import SftRecipe
    from finetune.tasks import open_task
    from finetune.worker import prepare
    from tests.plain_trainer import plain_trainer

    os.nice(NICENESS)
    made = _new_run(Path(home), "off")
    recipe: Any = made.recipe
    assert isinstance(recipe, SftRecipe)
    task: Any = open_task(recipe, Path(home) / "models", made.data)
    features = prepare(made, recipe, task, lambda: None)
    moments: list[Moment] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
            moments.append(Moment.now(state.global_step))

    folder = task.base.files.folder
    trainer, _ = plain_trainer(folder, recipe, features["answers"], made.path / "plain", callbacks=[Clock()])
    trainer.train()
    wall, cpu = _pace(moments[POINT - 1], moments[-1])
    return {"plain_wall": wall, "plain_cpu": cpu}


def ours(home: str) -> dict[str, float]:
    """Train as the process of `ragsmith tune run` does; in a process of its own."""
    from finetune.run_folder import RunFolder
    from finetune.training import Point
    from finetune.worker import main

    os.nice(NICENESS)
    made = _new_run(Path(home), "offline")
    moments: list[Moment] = []
    add_point = RunFolder.add_point

    def added(run: RunFolder, point: Point) -> None:
        moments.append(Moment.now(point.step))
        add_point(run, point)

    RunFolder.add_point = added  # type: ignore[method-assign]
    if main(made.path):
        raise RuntimeError(f"The training failed: {made.status.message}")
    first, *_, last, end = (moment for moment in moments if moment.step)
    wall, cpu = _pace(first, last)
    # The last point comes after the validation at the end.
    validation = end.cpu_s - last.cpu_s - (end.step - last.step) * cpu
    beside = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "ours_wall": wall,
        "ours_cpu": cpu + (beside.ru_utime + beside.ru_stime) / end.step,
        "validation_cpu": validation,
    }


def _pace(first: Moment, last: Moment) -> tuple[float, float]:
    """Return seconds a step, of the clock and of the processor."""
    steps = last.step - first.step
    return (last.wall_s - first.wall_s) / steps, (last.cpu_s - first.cpu_s) / steps


def _new_run(home: Path, wandb: Any) -> RunFolder:
    from finetune.recipe import parse_recipe
    from finetune.run_folder import new_run
    from rag.settings import TrackingSettings
    from rag.workspace import open_workspace

    workspace, data = open_workspace(home), home / "rows"
    rows = _rows()
    _write(data / "validation.jsonl", rows[:VALIDATION_ROWS])
    _write(data / "answers.jsonl", rows[VALIDATION_ROWS:])
    recipe = parse_recipe(RECIPE, "the recipe")
    return new_run(workspace.runs, recipe, RECIPE, data, TrackingSettings(wandb=wandb))


def _rows() -> list[dict[str, str]]:
    """Paragraphs of the handbook: the second half is to be written after the first."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((FOLDER / "pages").glob("*.md"))]
    paragraphs = [part for text in texts for part in text.split("\n\n") if 60 <= len(part.split()) <= 110]
    halves = [
        (part.split()[: len(part.split()) // 2], part.split()[len(part.split()) // 2 :]) for part in paragraphs
    ]
    return [{"prompt": " ".join(one), "completion": " ".join(other)} for one, other in halves[:ROWS]]


def _write(path: Path, rows: Sequence[dict[str, str]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
