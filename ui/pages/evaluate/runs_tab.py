"""The runs of the Evaluate tab: start one, follow it, and read its figures and its grid."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import gradio as gr

from rag.errors import RagsmithError, SettingsError
from rag.evaluation.grid import Grid, Shown
from rag.evaluation.report_rendering import shortened
from rag.evaluation.run_store import Run
from ui.pages.chat.chat_layout import Bridge
from ui.pages.evaluate import runs_view as view
from ui.pages.evaluate.run_selection import TAB, RunSelection
from ui.pages.html_component import html_component
from ui.pages.page_events import (
    BRIDGED,
    QUIET,
    addressed,
    error_message,
    in_thread,
    show_errors,
    show_warning,
    warn,
)
from ui.pages.safe_markup import note

if TYPE_CHECKING:
    from rag.evaluation.summary import Summary
    from rag.settings import Settings
    from ui.app.evaluations import Evaluations
    from ui.app.stores import Stores

Updates = dict[Any, Any]

LISTED = 100
ROWS = 25
LOOK_S = 2.0
LONGEST_CELL = 20
"""Characters of ``VARIANT:POSITION``."""
PICK_CELL = "Choose an answer in the grid to see its passages and scores."
_VARIANTS = "baseline:\nbrief: answer.style=brief\n"
HINT = "NAME: SETTING=VALUE …, one per line. prompt=answer@2, model=…, retrieval.k=8, decoding.temperature=0.5 …"


class RunsTab:
    """Components and events of the runs, made inside the blocks that are open.

    The address of the page has the whole ``RunSelection`` that is shown.
    """

    def __init__(self, settings: Settings, stores: Stores, evaluations: Evaluations) -> None:
        self._settings = settings
        self._stores = stores
        self._runs = evaluations
        with gr.Row(elem_id="evaluate", equal_height=True):
            with gr.Column(elem_id="runs-left", min_width=0, scale=0):
                with gr.Accordion("New run", open=False, elem_id="new-run"):
                    self._dataset = gr.Dropdown(label="Dataset", elem_id="new-run-dataset", interactive=True)
                    self._variants = gr.Textbox(
                        label="Variants, the baseline first",
                        value=_VARIANTS,
                        lines=4,
                        max_lines=12,
                        info=HINT,
                        elem_id="new-run-variants",
                    )
                    self._corpus = gr.Dropdown(label="Corpus", elem_id="new-run-corpus", interactive=True)
                    self._judge = gr.Textbox(
                        label="Judge (optional)",
                        placeholder="openai:NAME",
                        max_lines=1,
                        elem_id="new-run-judge",
                    )
                    self._begin = gr.Button("Start", variant="primary", size="sm", elem_id="new-run-start")
                self._list = html_component("run-list")
            with gr.Column(elem_id="runs-main", min_width=0, scale=1):
                self._head = html_component("run-head", note("Choose a run, or start one.", "rs-pick"))
                with gr.Row(elem_id="run-actions", visible=False) as self._actions:
                    self._baseline = gr.Dropdown(
                        label="Baseline", elem_id="run-baseline", interactive=True, type="index", filterable=False
                    )
                    self._other = gr.Dropdown(
                        label="Compare with another run", elem_id="run-other", interactive=True, filterable=True
                    )
                    self._stop = gr.Button("Stop", size="sm", variant="stop", elem_id="run-stop", visible=False)
                    self._resume = gr.Button("Resume", size="sm", elem_id="run-resume", visible=False)
                self._table = html_component("run-figures")
                with gr.Row(elem_id="grid-filter", visible=False) as self._filter:
                    self._show = gr.Radio(
                        list(get_args(Shown)),
                        value="all",
                        label="Cases",
                        show_label=False,
                        container=False,
                        elem_id="grid-show",
                    )
                    self._search = gr.Textbox(
                        label="Text in questions and answers",
                        show_label=False,
                        container=False,
                        placeholder="Text in questions and answers",
                        max_lines=1,
                        elem_id="grid-search",
                    )
                self._grid = html_component("grid")
                with gr.Row(elem_id="grid-pager", visible=False) as self._pager:
                    self._back = gr.Button("‹ Previous", size="sm", elem_id="grid-back")
                    self._on = gr.Button("Next ›", size="sm", elem_id="grid-on")
            with gr.Column(elem_id="runs-cell", min_width=0, scale=0):
                self._cell = html_component("run-cell", note(PICK_CELL, "rs-pick"))
        with gr.Column(elem_classes="rs-bridge"):
            self._open_run = gr.Button(elem_id="do-open-run")
            self._open_cell = gr.Button(elem_id="do-open-cell")
            self._address = gr.Textbox()
        self._chosen = gr.State("")
        self._start = gr.State(0)
        self._at = gr.State("")
        self._timer = gr.Timer(LOOK_S, active=False)

    def wire(self, page: Any, tabs: Any, inner: Any, tab: Any, bridge: Bridge) -> None:
        """Connect the events.

        Args:
            page: The blocks.
            tabs, inner: All tabs of the page, and those of Evaluate, to bring this one to the front.
            tab: Evaluate.
            bridge: Names what was clicked.
        """
        self._tabs, self._inner = tabs, inner
        listed = [self._list, self._dataset, self._corpus]
        state = [self._chosen, self._baseline, self._other, self._show, self._search, self._start, self._at]
        head = [self._head, self._actions, self._stop, self._resume, self._table, self._timer]
        grid = [self._filter, self._grid, self._pager, self._back, self._on, self._start, self._address]
        shown = [*listed, *head, *grid, self._baseline, self._other, self._cell, self._at, self._chosen]
        tab.select(self.listing, [self._chosen, self._dataset, self._corpus], listed, **QUIET)
        self._open_run.click(self.open, bridge.value, shown, js=BRIDGED, **QUIET)
        for event in (self._show.input, self._search.submit, self._search.blur):
            event(self.filtered, state, grid, **QUIET)
        self._back.click(self.back, state, grid, **QUIET)
        self._on.click(self.on, state, grid, **QUIET)
        for chosen in (self._baseline, self._other):
            chosen.input(self.rebased, state, [*head, self._grid, self._address], **QUIET)
        opened = [self._cell, self._at, self._grid, self._address]
        self._open_cell.click(self.open_cell, [bridge.value, *state], opened, js=BRIDGED, **QUIET)
        self._begin.click(self.begin, [self._dataset, self._variants, self._corpus, self._judge], shown, **QUIET)
        self._stop.click(self.stop, self._chosen, None, **QUIET)
        self._resume.click(self.resume, self._chosen, shown, **QUIET)
        self._timer.tick(self.look, state, [*head, *grid, self._list], **QUIET)
        self._address.change(None, self._address, None, js=addressed("runs"), **QUIET)
        linked = [tabs, inner, *shown, self._show, self._search]
        bridge.links[TAB].click(self.linked, None, linked, **QUIET)

    @show_errors
    def listing(self, chosen: str, dataset: str | None = None, corpus: str | None = None) -> Updates:
        """List the runs, and the choices for a new one; what was chosen for it stays."""
        return {self._list: self._list_html(chosen), **self._choices(dataset, corpus)}

    def _choices(self, wanted: str | None = None, corpus: str | None = None) -> Updates:
        datasets = [f"{dataset.name}@{dataset.version}" for dataset in self._runs.datasets.list()]
        corpora = self._stores.corpus_names()
        first = datasets[0] if datasets else None
        return {
            self._dataset: gr.Dropdown(datasets, value=wanted if wanted in datasets else first),
            self._corpus: gr.Dropdown(corpora, value=corpus if corpus in corpora else self._settings.corpus),
        }

    @show_errors
    def open(self, run_id: str) -> Updates:
        """Show a run of the list."""
        return self._shown(RunSelection(run_id))

    @show_errors
    def filtered(self, *state: Any) -> Updates:
        """Show the first page of the matching cases."""
        return self._grid_of(replace(RunSelection.from_state(state), start=0))

    @show_errors
    def back(self, *state: Any) -> Updates:
        """Show the previous page."""
        selection = RunSelection.from_state(state)
        return self._grid_of(replace(selection, start=max(selection.start - ROWS, 0)))

    @show_errors
    def on(self, *state: Any) -> Updates:
        """Show the next page."""
        selection = RunSelection.from_state(state)
        return self._grid_of(replace(selection, start=selection.start + ROWS))

    @show_errors
    def rebased(self, *state: Any) -> Updates:
        """Compare the figures with another baseline."""
        selection = RunSelection.from_state(state)
        grid = self._grid_of(selection)
        return {**self._head_of(selection), self._grid: grid[self._grid], self._address: selection.address}

    @show_errors
    def open_cell(self, at: str, *state: Any) -> Updates:
        """Show one answer."""
        selection = replace(RunSelection.from_state(state), cell=at)
        return {
            self._cell: self._cell_html(selection),
            self._at: at,
            self._grid: self._grid_of(selection)[self._grid],
            self._address: selection.address,
        }

    async def begin(self, dataset: str | None, variants: str, corpus: str, judge: str) -> Any:
        """Start a run and show it."""
        try:
            if not dataset:
                raise SettingsError(
                    "There is no dataset yet.", fix="Import one: `ragsmith datasets import NAME FILE`."
                )
            run = await in_thread(self._begun, dataset, variants, corpus, judge)
            self._runs.start(run)
            return await in_thread(self._shown, RunSelection(run.id))
        except Exception as error:  # noqa: BLE001 - shown as one sentence, with the form as it was
            warn(error)
            return gr.skip()

    async def resume(self, chosen: str) -> Any:
        """Resume a run."""
        try:
            self._runs.start(await in_thread(self._runs.resume, chosen))
            return await in_thread(self._shown, RunSelection(chosen))
        except Exception as error:  # noqa: BLE001 - shown as one sentence
            warn(error)
            return gr.skip()

    async def stop(self, chosen: str) -> None:
        """Stop a run of this process."""
        if not self._runs.stop(chosen):
            show_warning("Another process is running this evaluation: stop it there.")

    @show_errors
    def look(self, *state: Any) -> Updates:
        """Update the run that is shown while it works."""
        selection = RunSelection.from_state(state)
        return {**self._head_of(selection), **self._grid_of(selection), self._list: self._list_html(selection.run)}

    @show_errors
    def linked(self, request: gr.Request) -> Any:
        """Show the run that the address of the page names."""
        if request.query_params.get("tab") != TAB:
            return gr.skip()
        selection = RunSelection.from_query(request.query_params)
        front: Updates = {self._tabs: gr.Tabs(selected="evaluate"), self._inner: gr.Tabs(selected="runs")}
        front |= {self._list: self._list_html(""), **self._choices()}
        if not selection.run:
            return front
        try:
            found, missing = self._existing(selection)
            shown = self._shown(found)
        except Exception as error:  # noqa: BLE001 - shown as one sentence, beside the list of runs
            warn(error)
            return front
        if missing:
            show_warning(f"The run {found.run} has no {' and no '.join(missing)}: the link may be out of date.")
        return {**front, **shown, self._show: found.show, self._search: found.search}

    def _existing(self, wanted: RunSelection) -> tuple[RunSelection, list[str]]:
        """Return a selection without the variant, the other run and the answer that do not exist, and their names.

        Raises:
            RagsmithError: The run or its dataset does not exist.
        """
        run = self._runs.runs.get(wanted.run)
        count, size = len(run.plan.variants), self._runs.dataset_of(run).size
        variant, _, position = wanted.cell.partition(":")
        digits = variant.isdecimal() and position.isdecimal() and len(wanted.cell) < LONGEST_CELL
        known = {
            "baseline": wanted.baseline < count,
            "other": not wanted.other or any(one.id == wanted.other for one in self._runs.runs.list()),
            "cell": not wanted.cell or (digits and int(variant) < count and int(position) < size),
        }
        names = {
            "baseline": f"variant {wanted.baseline}",
            "other": f"run {shortened(wanted.other, 20)!r} to compare with",
            "cell": f"answer {shortened(wanted.cell, 20)!r}",
        }
        defaults: dict[str, Any] = {"baseline": 0, "other": "", "cell": ""}
        lost = [name for name, exists in known.items() if not exists]
        selection = replace(wanted, run=run.id, **{name: defaults[name] for name in lost})
        return selection, [names[name] for name in lost]

    def _begun(self, dataset: str, variants: str, corpus: str, judge: str) -> Run:
        from rag.evaluation.variants import parse_variants

        return self._runs.begin(
            dataset, parse_variants(variants), corpus=corpus or "", judge=(judge or "").strip()
        )

    def _shown(self, wanted: RunSelection) -> Updates:
        run = self._runs.runs.get(wanted.run)
        names = [variant.name for variant in run.plan.variants]
        selection = replace(wanted, run=run.id, baseline=min(wanted.baseline, len(names) - 1))
        others = [(f"{one.name} · {one.id}", one.id) for one in self._runs.runs.list() if one.id != run.id]
        return {
            self._list: self._list_html(run.id),
            **self._head_of(selection),
            **self._grid_of(selection),
            self._baseline: gr.Dropdown(choices=names, value=names[selection.baseline]),
            self._other: gr.Dropdown(choices=[("none", ""), *others], value=selection.other),
            self._cell: self._cell_html(selection),
            self._at: selection.cell,
            self._chosen: run.id,
        }

    def _head_of(self, selection: RunSelection) -> Updates:
        run = self._runs.runs.get(selection.run)
        working = self._runs.is_working(run.id)
        try:
            size = self._runs.dataset_of(run).size
            summary, notes = self._summary(run, selection)
            table = view.table_html(summary)
        except RagsmithError as error:
            size, notes, table = 0, (error_message(error),), ""
        return {
            self._head: view.head_html(run, size, self._runs.progress(run.id), notes),
            self._actions: gr.Row(visible=True),
            self._stop: gr.Button(visible=working),
            self._resume: gr.Button(visible=not working and self._runs.runs.is_resumable(run)),
            self._table: table,
            self._timer: gr.Timer(active=working),
        }

    def _summary(self, run: Run, selection: RunSelection) -> tuple[Summary, tuple[str, ...]]:
        """Return the figures, and notes on what to know before relying on them."""
        if not selection.other:
            return self._runs.recent_summary(run, selection.baseline), ()
        return self._runs.summary_against(run, self._runs.side(self._runs.runs.get(selection.other)))

    def _grid_of(self, selection: RunSelection) -> Updates:
        run = self._runs.runs.get(selection.run)
        version = self._runs.dataset_of(run)
        grid = Grid(self._runs.runs, self._runs.datasets, run, version)
        page = grid.page(selection.start, ROWS, show=selection.show, search=selection.search)
        return {
            self._filter: gr.Row(visible=True),
            self._grid: view.grid_html(page, self._runs.recent_summary(run, selection.baseline), selection.cell),
            self._pager: gr.Row(visible=page.total > ROWS),
            self._back: gr.Button(interactive=selection.start > 0),
            self._on: gr.Button(interactive=selection.start + len(page.rows) < page.total),
            self._start: selection.start,
            self._address: selection.address,
        }

    def _cell_html(self, selection: RunSelection) -> str:
        run = self._runs.runs.get(selection.run)
        variant, _, position = selection.cell.partition(":")
        version = self._runs.dataset_of(run)
        if not (variant.isdecimal() and position.isdecimal() and int(position) < version.size):
            return note(PICK_CELL, "rs-pick")
        row = Grid(self._runs.runs, self._runs.datasets, run, version).row(int(position))
        number = min(int(variant), len(run.plan.variants) - 1)
        return view.cell_html(row, number, run.plan.variants[number].name)

    def _list_html(self, chosen: str) -> str:
        runs = self._runs.runs.list()
        listed = runs[:LISTED]
        totals = [self._runs.size_of(run) * len(run.plan.variants) for run in listed]
        counts = [self._runs.runs.count(run.id) for run in listed]
        return view.runs_html(listed, counts, totals, chosen, len(runs) - len(listed))
