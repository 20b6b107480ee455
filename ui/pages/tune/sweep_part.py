"""The part Sweep of the tab Tune: what to try, how long it takes at most, start, watch, stop and continue."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from finetune.launching import launch_sweep
from finetune.prepared.data_versions import DataVersions
from finetune.recipe import load_recipe
from finetune.recipe_changes import RecipeChanges, changed_recipe
from finetune.sweeps.search_space import joined
from finetune.sweeps.sweep_folder import Method, Sweep, all_sweeps, begin_sweep, find_sweep
from finetune.sweeps.sweep_plan import SweepOptions, middle_recipe, plan_sweep
from finetune.sweeps.sweep_results import read_results
from finetune.sweeps.sweep_study import trial_count
from rag.settings import SMOLLM2
from ui.pages.html_component import html_component
from ui.pages.page_events import QUIET, show_errors, show_info
from ui.pages.safe_markup import note
from ui.pages.tune.compare_view import estimated_html, sweep_html
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
    from rag.settings import Settings
    from rag.workspace import Workspace

Updates = dict[Any, Any]

# Fields with what they hold at first; one value is the same in all trials.
TRIED = {
    "learning_rate": "1e-5..1e-3:log",
    "rank": "4,8,16",
    "epochs": "2",
    "dropout": "0",
    "batch_tokens": "2048",
    "warmup": "0.05",
}
METHODS: dict[str, Method] = {
    "by earlier trials (tpe)": "tpe",
    "by chance (random)": "random",
    "all combinations (grid)": "grid",
}
TRIALS = 12
HOW = "A field takes one value for all trials, several such as 4,8,16, or a range such as 1e-5..1e-3:log."
# The name of the run that is measured for an estimate, and the number of trials.
Measuring = tuple[str, int]
NOTHING: Measuring = ("", 0)
PICK = "Say what to try, or choose a sweep."


class SweepPart:
    """Components and events of the part, made inside the blocks that are open."""

    def __init__(self, settings: Settings, workspace: Workspace) -> None:
        self._settings = settings
        self._workspace = workspace
        self._versions = DataVersions(workspace.data)
        with gr.Row(elem_classes="tune-part", equal_height=True):
            with gr.Column(elem_classes="tune-left", min_width=0, scale=0):
                self._build_fields()
                self._estimate, self._start = build_begin("sweep")
            with gr.Column(elem_classes="tune-main", min_width=0, scale=1):
                self._expected = html_component("sweep-expected")
                self._chosen = gr.Dropdown(label="Sweep", interactive=True, elem_id="sweep-chosen")
                with gr.Row(elem_id="sweep-actions"):
                    self._stop = gr.Button("Stop", size="sm", variant="stop", elem_id="sweep-stop", visible=False)
                    self._continue = gr.Button("Continue", size="sm", elem_id="sweep-continue", visible=False)
                self._shown = html_component("sweep-shown", note(PICK, "rs-pick"))
        self._measuring = gr.State(NOTHING)
        self._timer = gr.Timer(LOOK_S, active=False)

    def _build_fields(self) -> None:
        self._name = gr.Textbox(label="Name", value="tuned-sweep", max_lines=1, elem_id="sweep-name")
        self._base = gr.Textbox(label="Base", value=SMOLLM2, max_lines=1, elem_id="sweep-base")
        self._data = gr.Dropdown(label="Data", interactive=True, elem_id="sweep-data")
        gr.HTML(note(HOW))
        self._tried = []
        names = list(TRIED)
        for at in range(0, len(names), 2):
            with gr.Row():
                self._tried += [_tried_field(name) for name in names[at : at + 2]]
        self._method = gr.Dropdown(
            list(METHODS), label="Method", value=next(iter(METHODS)), interactive=True, elem_id="sweep-method"
        )
        with gr.Row():
            self._trials = gr.Number(
                label="Trials",
                value=TRIALS,
                minimum=1,
                maximum=1000,
                precision=0,
                min_width=80,
                elem_id="sweep-trials",
            )
            self._every = gr.Number(
                label="Validate every",
                value=100,
                minimum=1,
                precision=0,
                min_width=80,
                elem_id="sweep-every",
            )

    def wire(self, opened: Iterable[Any]) -> None:
        """Connect the events.

        Args:
            opened: Tabs that show the part when they are selected.
        """
        fields = [self._name, self._base, self._data, self._method, self._trials, self._every, *self._tried]
        watched = [self._chosen, self._measuring]
        shown = [self._shown, self._stop, self._continue, self._timer, self._expected, self._measuring]
        for tab in opened:
            tab.select(self.listing, [self._data, *watched], [self._data, self._chosen, *shown], **QUIET)
        self._chosen.input(self.look, watched, shown, **QUIET)
        self._timer.tick(self.look, watched, shown, concurrency_id="tune-sweep", concurrency_limit=1, **QUIET)
        self._estimate.click(self.estimate, fields, [self._expected, self._measuring, self._timer], **QUIET)
        self._start.click(self.start, fields, [self._chosen, *shown], **QUIET)
        self._stop.click(self.stop, watched, shown, **QUIET)
        self._continue.click(self.go_on, watched, shown, **QUIET)

    @show_errors
    def listing(self, data: str | None, chosen: str | None, measuring: Measuring) -> Updates:
        """Offer the prepared data and the sweeps, the newest first."""
        sweeps = [folder.name for folder in all_sweeps(self._workspace.runs)]
        chosen = chosen if chosen in sweeps else next(iter(sweeps), None)
        return {
            self._data: offered_data(self._versions, data),
            self._chosen: gr.Dropdown(choices=sweeps, value=chosen),
        } | self._looked(chosen, measuring)

    @show_errors
    def look(self, chosen: str | None, measuring: Measuring) -> Updates:
        """Show how a sweep goes."""
        return self._looked(chosen, measuring)

    @show_errors
    def estimate(self, *fields: Any) -> Updates:
        """Start to measure a training in the middle of what is tried; the timer shows the result."""
        sweep = self._sweep_of(*fields)
        name = begin_estimate(self._settings, self._workspace, middle_recipe(sweep), Path(sweep.data))
        measuring = (name, trial_count(sweep))
        return {self._expected: note(WAITING), self._measuring: measuring, self._timer: gr.Timer(active=True)}

    @show_errors
    def start(self, *fields: Any) -> Updates:
        """Start a sweep in a process of its own, or continue the same one, perhaps with more trials."""
        folder = begin_sweep(self._workspace.runs, self._sweep_of(*fields))
        self._launch(folder.name)
        show_info(f"{folder.name} has started. It goes on when the page is closed.")
        names = [one.name for one in all_sweeps(self._workspace.runs)]
        chosen = {self._chosen: gr.Dropdown(choices=names, value=folder.name), self._expected: ""}
        return chosen | self._looked(folder.name, NOTHING)

    @show_errors
    def stop(self, chosen: str, measuring: Measuring) -> Updates:
        """Ask a sweep to stop after a checkpoint."""
        find_sweep(self._workspace.runs, chosen).request_stop()
        show_info(f"{chosen} stops after a checkpoint.")
        return self._looked(chosen, measuring)

    @show_errors
    def go_on(self, chosen: str, measuring: Measuring) -> Updates:
        """Continue a sweep."""
        self._launch(chosen)
        return self._looked(chosen, measuring)

    def _launch(self, name: str) -> None:
        folder = find_sweep(self._workspace.runs, name)
        if not folder.is_active:
            launch_sweep(folder, self._settings.tracking, None, dict(os.environ))

    def _sweep_of(
        self, name: str, base: str, data: str | None, method: str, trials: int, every: int, *tried: str
    ) -> Sweep:
        folder = chosen_data(self._versions, data)
        plain = plain_name(name)
        changes = RecipeChanges(name=plain, base=base.strip() or None, validate_every=every)
        recipe = changed_recipe(load_recipe(RECIPE), changes)
        texts = [f"{field}={text}" for field, text in zip(TRIED, tried, strict=True) if text.strip()]
        options = SweepOptions(name=plain, method=METHODS[method], trials=trials)
        return plan_sweep(recipe, folder, joined(texts, None), options, self._workspace.models)

    def _looked(self, chosen: str | None, measuring: Measuring) -> Updates:
        folder = find_sweep(self._workspace.runs, chosen) if chosen else None
        active = bool(folder and folder.is_active)
        updates: Updates = {
            self._shown: note(PICK, "rs-pick"),
            self._stop: stop_button(folder, active),
            self._continue: gr.Button(visible=False),
            self._timer: gr.Timer(active=active or bool(measuring[0])),
        }
        if folder is not None:
            results = read_results(folder)
            updates[self._shown] = sweep_html(results, None, problem="" if active else folder.problem)
            updates[self._continue] = gr.Button(visible=not active and results.finished < results.trials)
        name, trials = measuring
        html = take_estimate(self._workspace, name, partial(estimated_html, trials)) if name else None
        return updates if html is None else updates | {self._measuring: NOTHING, self._expected: html}


def _tried_field(field: str) -> Any:
    return gr.Textbox(
        label=field.replace("_", " ").capitalize(),
        value=TRIED[field],
        max_lines=1,
        min_width=80,
        elem_id=f"sweep-{field.replace('_', '-')}",
    )
