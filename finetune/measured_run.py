"""Runs that are only measured for an estimate: they are kept apart from the others, and deleted afterwards."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from finetune.recipe import Recipe
from finetune.run_folder import RunFolder, new_run
from finetune.training_preview import TrainingPreview, read_preview
from rag.settings import TrackingSettings
from rag.workspace import Workspace

LEFT_S = 3600.0
"""Seconds after which a run that nobody has taken is deleted: its page was closed, or its command interrupted."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found; without a preview, ``problem`` says why."""

    preview: TrainingPreview | None
    problem: str


def new_measured_run(
    workspace: Workspace, recipe: Recipe, text: str, data: Path, tracking: TrackingSettings
) -> RunFolder:
    """Create the folder of such a run; arguments and errors as for ``new_run``."""
    for path in workspace.measured.glob("*"):
        if path.stat().st_mtime < time.time() - LEFT_S and not RunFolder(path).is_active:
            shutil.rmtree(path, ignore_errors=True)
    return new_run(workspace.measured, recipe, text, data, tracking)


def take_measured(run: RunFolder) -> Measured | None:
    """Return what a run has found and delete it; None while it measures."""
    if run.is_active:
        return None
    preview, status = read_preview(run.path), run.status
    if preview is None and status.state != "failed":
        # Its process has not begun.
        return None
    shutil.rmtree(run.path, ignore_errors=True)
    return Measured(preview, "" if preview else status.message)
