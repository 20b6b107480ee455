"""The W&B run of a training: configuration, curves, and the adapter as an artifact.

Each process that works on a training has a run of its own; they share the training's name as their group. A
tracker that fails is given up, and never fails the training.
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
    """Is told how a training goes."""

    def point(self, point: Point) -> None:
        """A point of the curve."""
        ...

    def result(self, folder: Path, card: Mapping[str, Any]) -> None:
        """What came of it."""
        ...

    def finish(self, *, failed: bool = False) -> None:
        """No more will come; a training that failed is marked as such."""
        ...


class NullTracker:
    """Tells nobody."""

    def point(self, point: Point) -> None:
        """Nothing."""

    def result(self, folder: Path, card: Mapping[str, Any]) -> None:
        """Nothing."""

    def finish(self, *, failed: bool = False) -> None:
        """Nothing."""


class WandbTracker:
    """Tells W&B."""

    def __init__(self, run: Any, name: str) -> None:
        self._run = run
        self._name = name
        self._broken = False

    def point(self, point: Point) -> None:
        """Loss, pace and learning rate; the figures of the validation rows where there are some."""
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
        """The adapter's folder as an artifact, with its card."""

        def log() -> None:
            import wandb

            artifact = wandb.Artifact(self._name, type="adapter", metadata=dict(card))
            artifact.add_dir(str(folder))
            self._run.log_artifact(artifact)

        self._try(log)

    def finish(self, *, failed: bool = False) -> None:
        """End the run; waits until W&B has written."""
        self._try(lambda: self._run.finish(exit_code=int(failed)))

    def _try(self, tell: Callable[[], object]) -> None:
        if self._broken:
            return
        try:
            tell()
        except Exception as error:  # noqa: BLE001 - whatever W&B raises, the training goes on
            self._broken = True
            _log.warning("W&B is given up: %s", error)


def open_tracker(settings: TrackingSettings, root: Path, name: str, config: Mapping[str, Any]) -> TuningTracker:
    """A W&B run as the settings say; nobody where there can be none.

    Args:
        settings: Project and mode.
        root: The workspace.
        name: Of the training.
        config: Recipe and data version.
    """
    if settings.wandb == "off":
        return NullTracker()
    from rag.tracing.wandb_run import SwitchedOffError, init_run

    try:
        run, mode = init_run(settings, root, config, job_type="tune", group=name)
    except SwitchedOffError:
        return NullTracker()
    except Exception as error:  # noqa: BLE001 - whatever W&B raises, the training goes on
        _log.warning("W&B does not start: %s", error)
        return NullTracker()
    _log.info("W&B %s: %s", mode, run.settings.sync_dir if mode == "offline" else run.url)
    return WandbTracker(run, name)
