"""What the parts that start trainings have in common: buttons, the choice of the data, and the estimate."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from finetune.launching import launch
from finetune.measured_run import new_measured_run, take_measured
from finetune.recipe_changes import recipe_toml
from finetune.run_folder import RunFolder
from rag.errors import TuningError
from ui.pages.page_events import show_warning

if TYPE_CHECKING:
    from finetune.prepared.data_versions import DataVersions
    from finetune.recipe import Recipe
    from finetune.training_preview import TrainingPreview
    from finetune.work_folder import WorkFolder
    from rag.settings import Settings
    from rag.workspace import Workspace

LOOK_S = 2.0
RECIPE = "sft"
WAITING = "Measuring three steps; that takes a moment."


def build_begin(part: str) -> tuple[Any, Any]:
    """Build the buttons that estimate and start."""
    with gr.Row():
        estimate = gr.Button("Estimate", size="sm", elem_id=f"{part}-estimate", min_width=80)
        start = gr.Button("Start", size="sm", variant="primary", elem_id=f"{part}-start", min_width=80)
    return estimate, start


def offered_data(versions: DataVersions, chosen: str | None) -> Any:
    """Update the choice of the prepared data, the newest first."""
    names = [version.name for version in versions.newest()]
    return gr.Dropdown(choices=names, value=chosen if chosen in names else next(iter(names), None))


def chosen_data(versions: DataVersions, chosen: str | None) -> Path:
    """Return the folder of the data that are chosen.

    Raises:
        TuningError: None are.
    """
    if not chosen:
        raise TuningError("No data is chosen.", fix="Prepare some in the part Data first.")
    return versions.folder(versions.resolve(chosen))


def begin_estimate(settings: Settings, workspace: Workspace, recipe: Recipe, data: Path) -> str:
    """Start to measure a training in a process of its own, and return the name of its run."""
    run = new_measured_run(workspace, recipe, recipe_toml(recipe), data, settings.tracking)
    launch(run, None, dict(os.environ), preview=True)
    return run.name


def take_estimate(workspace: Workspace, name: str, html: Callable[[TrainingPreview], str]) -> str | None:
    """Return an estimate as HTML, empty after a warning where none can be made; None while it is measured."""
    found = take_measured(RunFolder(workspace.measured / name))
    if found is None:
        return None
    if found.preview is None:
        show_warning(found.problem)
        return ""
    return html(found.preview)


def stop_button(folder: WorkFolder | None, active: bool) -> Any:
    """Update the button that stops: it is there while a process works, and says so once a stop is requested."""
    stopping = active and folder is not None and folder.stop_requested
    return gr.Button("Stopping …" if stopping else "Stop", interactive=not stopping, visible=active)


def plain_name(name: str) -> str:
    """Return what a recipe takes of a name: lower-case letters, digits and hyphens."""
    plain = "".join(sign if sign.isascii() and sign.isalnum() else "-" for sign in name.strip().lower())
    return plain.strip("-")[:40] or "tuned"
