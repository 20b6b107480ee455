"""W&B tracking of a training run: configuration, curves, and the adapter as an artifact.

Every process that trains has a W&B run of its own; they share the name of the training run as their group. A
tracker that fails is disabled and never fails the training.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from finetune.loop import Point
from rag.settings import TrackingSettings

_log = logging.getLogger(__name__)


class TuningTracker(Protocol):
    """Receives the progress of a training run."""

    def point(self, point: Point) -> None:
        """Log a point of the curve."""
        ...

    def result(self, folder: Path, card: Mapping[str, Any]) -> None:
        """Log the result."""
        ...

    def finish(self, *, failed: bool = False) -> None:
        """End the tracked run, marked as failed if training failed."""
        ...


class NullTracker:
    """Tracks nothing."""

    def point(self, point: Point) -> None:
        """Nothing."""

    def result(self, folder: Path, card: Mapping[str, Any]) -> None:
        """Nothing."""

    def finish(self, *, failed: bool = False) -> None:
        """Nothing."""


class WandbTracker:
    """Tracks to W&B."""

    def __init__(self, run: Any, name: str) -> None:
        self._run = run
        self._name = name
        self._disabled = False

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
        self._try(lambda: self._run.log(values))

    def result(self, folder: Path, card: Mapping[str, Any]) -> None:
        """Log the adapter's folder as an artifact, with its card as metadata."""

        def log() -> None:
            import wandb

            artifact = wandb.Artifact(self._name, type="adapter", metadata=dict(card))
            artifact.add_dir(str(folder))
            self._run.log_artifact(artifact)

        self._try(log)

    def finish(self, *, failed: bool = False) -> None:
        """Finish the W&B run; waits until it is written."""
        self._try(lambda: self._run.finish(exit_code=int(failed)))

    def _try(self, log: Callable[[], object]) -> None:
        if self._disabled:
            return
        try:
            log()
        except Exception as error:  # noqa: BLE001 - whatever W&B raises, training continues
            self._disabled = True
            _log.warning("W&B tracking is disabled for the rest of this run: %s", error)


def open_tracker(settings: TrackingSettings, root: Path, name: str, config: Mapping[str, Any]) -> TuningTracker:
    """Open a W&B run as configured, or a null tracker if tracking is off or fails to start.

    Args:
        settings: Project and mode.
        root: The workspace folder.
        name: Name of the training run.
        config: Recipe and data version.
    """
    if settings.wandb == "off":
        return NullTracker()
    from rag.tracing.wandb_run import SwitchedOffError, init_run

    try:
        run, mode = init_run(settings, root, config, job_type="tune", group=name)
    except SwitchedOffError:
        return NullTracker()
    except Exception as error:  # noqa: BLE001 - whatever W&B raises, training continues
        _log.warning("W&B cannot start: %s", error)
        return NullTracker()
    _log.info("W&B %s: %s", mode, run.settings.sync_dir if mode == "offline" else run.url)
    return WandbTracker(run, name)
