"""The part Train of the tab Tune: fields, estimate, start, watch, stop, resume, and the list of runs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import gradio as gr

from finetune.launching import launch
from finetune.prepared.data_versions import DataVersions
from finetune.recipe import load_recipe
from finetune.recipe_changes import RecipeChanges, changed_recipe, recipe_toml
from finetune.run_folder import all_runs, find_run, new_run
from rag.settings import SMOLLM2
from ui.pages.html_component import html_component
from ui.pages.page_events import BRIDGED, QUIET, show_errors, show_info
from ui.pages.safe_markup import note
from ui.pages.tune import train_view as view
from ui.pages.tune.training_form import (
    LOOK_S,
    RECIPE,
    WAITING,
    begin_estimate,
    build_begin,
    chosen_data,
    offered_data,
    plain_name,
    stop_button,
    take_estimate,
)

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.recipe import Recipe
    from rag.settings import Settings
    from rag.workspace import Workspace
    from ui.pages.chat.chat_layout import Bridge

Updates = dict[Any, Any]

ALL_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
METHODS = {"LoRA on all layers": ALL_LAYERS, "LoRA on attention": ALL_LAYERS[:4]}
PICK = "Choose a run, or start one."


class TrainPart:
    """Components and events of the part, made inside the blocks that are open."""

    def __init__(self, settings: Settings, workspace: Workspace) -> None:
        self._settings = settings
        self._workspace = workspace
        self._versions = DataVersions(workspace.data)
        with gr.Row(elem_classes="tune-part", equal_height=True):
            with gr.Column(elem_classes="tune-left", min_width=0, scale=0):
                self._build_fields()
                self._estimate, self._start = build_begin("tune")
            with gr.Column(elem_classes="tune-main", min_width=0, scale=1):
                self._preview = html_component("tune-preview")
                self._runs = html_component("tune-runs")
                with gr.Row(elem_id="tune-run-actions"):
                    self._stop = gr.Button("Stop", size="sm", variant="stop", elem_id="tune-stop", visible=False)
                    self._resume = gr.Button("Resume", size="sm", elem_id="tune-resume", visible=False)
                self._run = html_component("tune-run", note(PICK, "rs-pick"))
        with gr.Column(elem_classes="rs-bridge"):
            self._open = gr.Button(elem_id="do-open-tune-run")
        self._chosen = gr.State("")
        # The run that is measured.
        self._estimated = gr.State("")
        self._timer = gr.Timer(LOOK_S, active=False)

    def _build_fields(self) -> None:
        self._base = gr.Textbox(label="Base", value=SMOLLM2, max_lines=1, elem_id="tune-base")
        self._data = gr.Dropdown(label="Data", interactive=True, elem_id="tune-data-of-run")
        self._method = gr.Dropdown(list(METHODS), label="Method", value=next(iter(METHODS)), interactive=True)
        with gr.Row():
            self._epochs = gr.Number(label="Epochs", value=2, minimum=0.01, min_width=80, elem_id="tune-epochs")
            self._rate = gr.Number(label="Learning rate", value=2e-4, minimum=0, min_width=80, elem_id="tune-rate")
        with gr.Row():
            self._rank = gr.Number(
                label="Rank", value=16, minimum=1, precision=0, min_width=80, elem_id="tune-rank"
            )
            self._length = gr.Number(label="Maximum tokens", value=1024, minimum=8, precision=0, min_width=80)
        self._name = gr.Textbox(label="Name", value="tuned", max_lines=1, elem_id="tune-name")
        with gr.Accordion("Advanced", open=False, elem_id="tune-advanced"):
            self._alpha = gr.Number(label="Alpha (0 for twice the rank)", value=0, minimum=0, precision=0)
            self._dropout = gr.Number(label="Dropout", value=0.0, minimum=0, maximum=0.99)
            self._batch = gr.Number(
                label="Tokens of a batch", value=2048, minimum=64, precision=0, elem_id="tune-batch"
            )
            self._warmup = gr.Number(label="Share of the steps that warm up", value=0.05, minimum=0, maximum=0.99)
            self._every = gr.Number(label="Steps between validations", value=100, minimum=1, precision=0)
            self._seed = gr.Number(label="Seed", value=1, precision=0)

    @property
    def _fields(self) -> list[Any]:
        return [
            *(
                self._data,
                self._base,
                self._method,
                self._epochs,
                self._rate,
                self._rank,
                self._length,
                self._name,
            ),
            *(self._alpha, self._dropout, self._batch, self._warmup, self._every, self._seed),
        ]

    def wire(self, opened: Iterable[Any], bridge: Bridge) -> None:
        """Connect the events.

        Args:
            opened: Tabs that show the part when they are selected.
            bridge: Names what was clicked.
        """
        watched = [self._chosen, self._estimated]
        shown = [self._runs, self._run, self._stop, self._resume, self._timer, self._preview, self._estimated]
        for tab in opened:
            tab.select(self.listing, [self._data, *watched], [self._data, *shown], **QUIET)
        self._timer.tick(self.look, watched, shown, concurrency_id="tune-look", concurrency_limit=1, **QUIET)
        self._open.click(self.open, [bridge.value, self._estimated], [self._chosen, *shown], js=BRIDGED, **QUIET)
        self._estimate.click(self.estimate, self._fields, [self._preview, self._estimated, self._timer], **QUIET)
        self._start.click(self.start, self._fields, [self._chosen, *shown], **QUIET)
        self._stop.click(self.stop, watched, shown, **QUIET)
        self._resume.click(self.resume, watched, shown, **QUIET)

    @show_errors
    def listing(self, data: str | None, chosen: str, estimated: str) -> Updates:
        """Show the runs, and offer the prepared data."""
        return {self._data: offered_data(self._versions, data)} | self._looked(chosen, estimated)

    @show_errors
    def look(self, chosen: str, estimated: str) -> Updates:
        """Show how the runs go."""
        return self._looked(chosen, estimated)

    @show_errors
    def open(self, chosen: str, estimated: str) -> Updates:
        """Show a run."""
        find_run(self._workspace.runs, chosen)
        return {self._chosen: chosen} | self._looked(chosen, estimated)

    @show_errors
    def estimate(self, *fields: Any) -> Updates:
        """Start to measure, in a process of its own; the timer shows the result."""
        name = begin_estimate(self._settings, self._workspace, *self._wanted(*fields))
        return {self._preview: note(WAITING), self._estimated: name, self._timer: gr.Timer(active=True)}

    @show_errors
    def start(self, *fields: Any) -> Updates:
        """Start a training in a process of its own."""
        recipe, data = self._wanted(*fields)
        run = new_run(self._workspace.runs, recipe, recipe_toml(recipe), data, self._settings.tracking)
        launch(run, None, dict(os.environ))
        show_info(f"{run.name} has started. It goes on when the page is closed.")
        return {self._chosen: run.name, self._preview: ""} | self._looked(run.name, "")

    @show_errors
    def stop(self, chosen: str, estimated: str) -> Updates:
        """Ask a run to stop after a checkpoint."""
        find_run(self._workspace.runs, chosen).request_stop()
        show_info(f"{chosen} stops after a checkpoint.")
        return self._looked(chosen, estimated)

    @show_errors
    def resume(self, chosen: str, estimated: str) -> Updates:
        """Continue a run from its checkpoint."""
        run = find_run(self._workspace.runs, chosen)
        if not run.is_active and run.status.state != "done":
            launch(run, None, dict(os.environ))
        return self._looked(chosen, estimated)

    def _wanted(
        self, data: str | None, base: str, method: str, epochs: float, rate: float, *rest: Any
    ) -> tuple[Recipe, Path]:
        """Return the recipe that the fields describe, and the folder of the data."""
        rank, length, name, alpha, dropout, batch, warmup, every, seed = rest
        folder = chosen_data(self._versions, data)
        changes = RecipeChanges(
            name=plain_name(name),
            base=base.strip() or None,
            targets=METHODS[method],
            epochs=epochs,
            learning_rate=rate,
            rank=rank,
            max_tokens=length,
            alpha=alpha or None,
            dropout=dropout,
            batch_tokens=batch,
            warmup=warmup,
            validate_every=every,
            seed=seed,
        )
        return changed_recipe(load_recipe(RECIPE), changes), folder

    def _looked(self, chosen: str, estimated: str) -> Updates:
        runs = all_runs(self._workspace.runs)
        run = next((one for one in runs if one.name == chosen), None)
        active = bool(run and run.is_active)
        state = run.status.state if run else ""
        updates = {
            self._runs: view.runs_html(runs, chosen),
            self._run: view.run_html(run) if run else note(PICK, "rs-pick"),
            self._stop: stop_button(run, active),
            self._resume: gr.Button(visible=bool(run) and not active and state in ("stopped", "failed")),
            self._timer: gr.Timer(active=bool(estimated) or any(one.is_active for one in runs[:5])),
        }
        html = take_estimate(self._workspace, estimated, view.preview_html) if estimated else None
        return updates if html is None else updates | {self._estimated: "", self._preview: html}
