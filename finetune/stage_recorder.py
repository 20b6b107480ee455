"""What follows every step of a stage: points of the curve, validation, checkpoints, and a requested stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from finetune import checkpoint
from finetune.checkpoint import Progress
from finetune.predictions import Prediction
from finetune.recipe import Stage
from finetune.training import Point, Stopped, Training
from rag.errors import TrainingDiverged

if TYPE_CHECKING:
    import torch

# Steps between two points of the loss curve.
POINT_STEPS = 10
# Name of the tensor in a checkpoint with the losses since the last point.
LOSSES = "losses"


@dataclass
class StageRecorder:
    """Records the steps of one stage.

    Attributes:
        training: Where to report and save.
        stage: The stage.
        steps: Its total steps.
        checkpoint_s: Seconds between two checkpoints.
        progress: Progress so far, updated by every step.
        validate: Computes the metrics on the validation rows.
        state: Returns the tensors of a checkpoint.
        sample: Writes texts for some validation rows, after the metrics.
        losses: Losses since the last point; restored too, so that interruptions do not change the curve.
    """

    training: Training
    stage: Stage
    steps: int
    checkpoint_s: float
    progress: Progress
    validate: Callable[[], Mapping[str, float]]
    state: Callable[[], Mapping[str, torch.Tensor]]
    sample: Callable[[], tuple[Prediction, ...]] = tuple
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._started = self._saved = self._pointed = time.monotonic()
        self._before = self.progress.seconds
        self._tokens = 0

    def begin(self) -> None:
        """Record what the model is like before the first step, unless there has been one."""
        if self.progress.step or self.progress.stage:
            return
        figures = self.validate()
        point = Point(
            self.stage.name, 0, self.steps, figures["loss"], 0.0, 0.0, 0.0, figures=figures, samples=self.sample()
        )
        self.training.on_point(point)
        self._started = self._saved = self._pointed = time.monotonic()

    def check_loss(self, loss: float) -> None:
        """Raise TrainingDiverged if a loss is not finite; called before the weights change."""
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"The loss is not finite at step {self.progress.step + 1} of stage {self.stage.name}: "
                "training has diverged.",
                fix="Lower the stage's learning_rate and start a new run.",
            )

    def record(self, loss: float, learning_rate: float, tokens: int, gradient_norm: float) -> None:
        """Record a finished step.

        Args:
            loss: Loss of the step.
            learning_rate: Learning rate of the step.
            tokens: Tokens of its batch, padding included.
            gradient_norm: Norm of its gradients, before they were clipped.

        Raises:
            Stopped: A stop was requested.
            StorageFull: A checkpoint could not be written; the previous one stays.
        """
        self.losses.append(loss)
        self._tokens += tokens
        now = time.monotonic()
        step = self.progress.step + 1
        self.progress = replace(self.progress, step=step, seconds=self._before + now - self._started)
        validates = step % self.stage.validate_every == 0 or step == self.steps
        if step % POINT_STEPS == 0 or validates:
            speed = self._tokens / max(now - self._pointed, 1e-9)
            mean = sum(self.losses) / len(self.losses)
            point = Point(
                self.stage.name,
                step,
                self.steps,
                mean,
                learning_rate,
                self.progress.seconds,
                speed,
                gradient_norm=gradient_norm,
            )
            if validates:
                point = replace(point, figures=self.validate(), samples=self.sample())
            self.training.on_point(point)
            self.losses, self._tokens, self._pointed = [], 0, time.monotonic()
        stopping = self.training.stopping()
        if stopping or step == self.steps or time.monotonic() - self._saved > self.checkpoint_s:
            checkpoint.save(self.training.checkpoints, self.progress, self._tensors())
            self._saved = time.monotonic()
        if stopping and step < self.steps:
            raise Stopped

    def _tensors(self) -> dict[str, torch.Tensor]:
        import torch

        tensors = dict(self.state())
        if self.losses:
            tensors[LOSSES] = torch.tensor(self.losses, dtype=torch.float64)
        return tensors
