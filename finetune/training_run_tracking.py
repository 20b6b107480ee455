"""W&B tracking of a training run: configuration, curves, and the adapter as an artifact.

Every process that trains has a W&B run of its own; they share the name of the training run as their group. A
tracker that fails is disabled and never fails the training.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune.training import Point
from rag.settings import TrackingSettings
from rag.tracing.ledger import Spending
from rag.tracing.wandb_run import TrackedRun, open_run
from rag.tracing.wandb_traces import cost_values


class TrainingTracker:
    """Reports a training to its W&B run; where there is none, nothing happens.

    Args:
        settings: Project and mode.
        root: The workspace's folder.
        name: The training's name.
        config: Recipe and data version.
    """

    def __init__(self, settings: TrackingSettings, root: Path, name: str, config: Mapping[str, Any]) -> None:
        self._name = name
        self.run: TrackedRun = open_run(
            settings, root, config, subject=f"the training {name}", job_type="tune", group=name
        )

    def point(self, point: Point) -> None:
        """Log loss, throughput, learning rate and, if there are any, the validation metrics."""
        values: dict[str, Any] = {
            f"{point.stage}/loss": point.loss,
            f"{point.stage}/learning_rate": point.learning_rate,
            f"{point.stage}/step": point.step,
            "tokens_per_s": point.tokens_per_s,
            "seconds": point.seconds,
        }
        values |= {f"validation/{name}": value for name, value in (point.figures or {}).items()}
        self.run.attempt(lambda run: run.log(values))

    def result(self, folder: Path, card: Mapping[str, Any]) -> None:
        """Log the adapter's folder as an artifact, with its card as metadata."""

        def log(run: Any) -> None:
            import wandb

            artifact = wandb.Artifact(self._name, type="adapter", metadata=dict(card))
            artifact.add_dir(str(folder))
            run.log_artifact(artifact)

        self.run.attempt(log)

    def finish(self, spending: Spending, *, failed: bool = False) -> None:
        """End the run, marked as failed or not, with what it has cost; waits until W&B has written."""
        self.run.attempt(lambda run: run.summary.update(cost_values(spending)))
        self.run.finish(failed=failed)
