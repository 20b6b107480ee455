"""The part Compare of the tab Tune: runs side by side, or the trials of a sweep."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, get_args

import gradio as gr

from finetune.run_comparison import GroupBy, compare_runs, compared_run
from finetune.run_folder import all_runs, find_run
from finetune.sweeps.sweep_folder import all_sweeps, find_sweep
from finetune.sweeps.sweep_results import read_results
from ui.pages.html_component import html_component
from ui.pages.page_events import QUIET, show_errors
from ui.pages.safe_markup import note
from ui.pages.tune.compare_view import comparison_html, sweep_html

if TYPE_CHECKING:
    from rag.workspace import Workspace

Updates = dict[Any, Any]

HINT = "Choose a sweep, or two runs or more."
NOTHING = "There are no runs yet. The part Train starts one, and the part Sweep a sweep of them."
# A sweep takes minutes at least.
LOOK_S = 5.0
APART = "not grouped"


class ComparePart:
    """Components and events of the part, made inside the blocks that are open."""

    def __init__(self, workspace: Workspace) -> None:
        self._runs = workspace.runs
        with gr.Row(elem_classes="tune-part", equal_height=True):
            with gr.Column(elem_classes="tune-left", min_width=0, scale=0):
                self._sweep = gr.Dropdown(label="Sweep", interactive=True, elem_id="compare-sweep")
                self._named = gr.Dropdown(label="Runs", multiselect=True, interactive=True, elem_id="compare-runs")
                self._by = gr.Dropdown(
                    [APART, *get_args(GroupBy)],
                    value=APART,
                    label="Group by",
                    interactive=True,
                    elem_id="compare-by",
                )
            with gr.Column(elem_classes="tune-main", min_width=0, scale=1):
                self._shown = html_component("tune-comparison", note(HINT))
        self._timer = gr.Timer(LOOK_S, active=False)

    def wire(self, opened: Iterable[Any]) -> None:
        """Connect the events.

        Args:
            opened: Tabs that show the part when they are selected.
        """
        chosen = [self._sweep, self._named, self._by]
        shown = [self._shown, self._timer]
        for tab in opened:
            tab.select(self.listing, chosen, [self._sweep, self._named, *shown], **QUIET)
        self._sweep.input(self.choose_sweep, chosen, [self._named, *shown], **QUIET)
        self._named.input(self.choose_runs, chosen, [self._sweep, *shown], **QUIET)
        self._by.input(self.look, chosen, shown, **QUIET)
        self._timer.tick(self.look, chosen, shown, concurrency_id="tune-compare", concurrency_limit=1, **QUIET)

    @show_errors
    def listing(self, sweep: str | None, named: list[str], by: str) -> Updates:
        """Offer runs and sweeps, the newest first."""
        runs = [run.name for run in all_runs(self._runs)]
        sweeps = [folder.name for folder in all_sweeps(self._runs)]
        sweep, named = sweep if sweep in sweeps else None, [name for name in named if name in runs]
        return {
            self._sweep: gr.Dropdown(choices=sweeps, value=sweep),
            self._named: gr.Dropdown(choices=runs, value=named),
        } | self._looked(sweep, named, by)

    @show_errors
    def choose_sweep(self, sweep: str | None, _named: list[str], by: str) -> Updates:
        """Show a sweep in place of runs."""
        return {self._named: gr.Dropdown(value=[])} | self._looked(sweep, [], by)

    @show_errors
    def choose_runs(self, _sweep: str | None, named: list[str], by: str) -> Updates:
        """Show runs in place of a sweep."""
        return {self._sweep: gr.Dropdown(value=None)} | self._looked(None, named, by)

    @show_errors
    def look(self, sweep: str | None, named: list[str], by: str) -> Updates:
        """Show what is chosen."""
        return self._looked(sweep, named, by)

    def _looked(self, sweep: str | None, named: list[str], chosen: str) -> Updates:
        by = next((one for one in get_args(GroupBy) if one == chosen), None)
        if sweep:
            folder = find_sweep(self._runs, sweep)
            return self._updates(sweep_html(read_results(folder), by), active=folder.is_active)
        if len(named) < 2:
            return self._updates(note(HINT if all_runs(self._runs) else NOTHING), active=False)
        runs = [find_run(self._runs, name) for name in named]
        html = comparison_html(compare_runs(map(compared_run, runs)), by)
        return self._updates(html, active=any(run.is_active for run in runs))

    def _updates(self, html: str, *, active: bool) -> Updates:
        return {self._shown: html, self._timer: gr.Timer(active=active)}
