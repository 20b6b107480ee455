"""What passes between the training process and the task that it trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune.features import Features


@dataclass(frozen=True, slots=True)
class Point:
    """A point of the loss curve.

    Attributes:
        loss: Mean over the steps since the last point.
        figures: Metrics on the validation rows, at the steps that validate.
        seconds: Computing time since training began.
        tokens_per_s: Throughput since the last point, padding included.
    """

    stage: str
    step: int
    steps: int
    loss: float
    learning_rate: float
    seconds: float
    tokens_per_s: float
    figures: Mapping[str, float] | None = None


class Stopped(Exception):
    """Training stopped on request, after a checkpoint was written."""


@dataclass(frozen=True)
class Training:
    """What a task needs for its training.

    Attributes:
        features: Features by stage name, and ``validation``.
        checkpoints: Folder of the checkpoints, see ``finetune.checkpoint``.
        on_point: Called with every point of the curve.
        stopping: Returns whether to stop; checked after every step.
    """

    features: Mapping[str, Features]
    checkpoints: Path
    on_point: Callable[[Point], None]
    stopping: Callable[[], bool]
