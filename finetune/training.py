"""What passes between the training process and the task that it trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune.features import Features
from finetune.predictions import Prediction


@dataclass(frozen=True, slots=True)
class Point:
    """A point of the loss curve.

    Attributes:
        step: Steps done in the stage; 0 for what a language model is like before the first one.
        loss: Mean over the steps since the last point; at step 0, the loss on the validation rows.
        figures: Metrics on the validation rows, at the steps that validate.
        seconds: Computing time since training began.
        tokens_per_s: Throughput since the last point, padding included.
        gradient_norm: Norm of the gradients of the step, before they were clipped; None in curves of before.
        samples: Texts for some validation rows, at the steps that validate; a language model writes them.
    """

    stage: str
    step: int
    steps: int
    loss: float
    learning_rate: float
    seconds: float
    tokens_per_s: float
    figures: Mapping[str, float] | None = None
    gradient_norm: float | None = None
    samples: tuple[Prediction, ...] = ()


def numbered(points: Iterable[Point]) -> list[tuple[int, Point]]:
    """Return the points of a curve with their steps, counted over all stages."""
    before, stage, steps = 0, "", 0
    found = []
    for point in points:
        if stage and point.stage != stage:
            before += steps
        stage, steps = point.stage, point.steps
        found.append((before + point.step, point))
    return found


def validation_losses(points: Iterable[Point]) -> list[tuple[int, float]]:
    """Return the losses on the validation rows with their steps, counted over all stages."""
    return [
        (step, point.figures["loss"])
        for step, point in numbered(points)
        if point.figures and "loss" in point.figures
    ]


class Stopped(Exception):
    """Training stopped on request: after a checkpoint was written, or before the first step."""


@dataclass(frozen=True)
class Training:
    """What a task needs for its training.

    Attributes:
        features: Features by stage name, and ``validation``.
        checkpoints: Folder of the checkpoints, see ``finetune.checkpoint``.
        on_point: Called with every point of the curve.
        stopping: Returns whether to stop; checked after every step, and during long work before the first one.
    """

    features: Mapping[str, Features]
    checkpoints: Path
    on_point: Callable[[Point], None]
    stopping: Callable[[], bool]
