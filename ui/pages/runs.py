"""The runs of the Evaluate tab: begin one, follow it, read its figures and its grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import urlencode

import gradio as gr

from rag.errors import RagsmithError, SettingsError
from rag.evaluation.grid import Grid, Shown
from rag.evaluation.runs import Run
from ui.pages import runs_view as view
from ui.pages.events import ADDRESSED, BRIDGED, QUIET, in_thread, telling, told, warn
from ui.pages.layout import Bridge

if TYPE_CHECKING:
    from rag.variants import Variant
    from ui.evaluating import Evaluations
    from ui.wiring import Workbench

Updates = dict[Any, Any]

LISTED = 100
ROWS = 25
LOOK_S = 2.0
_VARIANTS = "baseline:\nbrief: answer.style=brief\n"
_HINT = "NAME: SETTING=VALUE …, one a line. prompt=answer@2, model=…, retrieval.k=8, decoding.temperature=0.5 …"


class RunsTab:
    """Components and events. Made inside the tab that is open.

    What is shown of a run is told by ``chosen`` (its id), ``baseline``, ``show``, ``search``, ``start`` (of the
    grid's page) and ``cell``; all of it stands in the address.
    """

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        with gr.Row(elem_id="evaluate", equal_height=True):
            with gr.Column(elem_id="runs-left", min_width=0, scale=0):
                with gr.Accordion("New run", open=False, elem_id="new-run"):
                    self._dataset = gr.Dropdown(label="Dataset", elem_id="new-run-dataset", interactive=True)
                    self._variants = gr.Textbox(
                        label="Variants, the baseline first",
                        value=_VARIANTS,
                        lines=4,
                        max_lines=12,
                        info=_HINT,
                        elem_id="new-run-variants",
                    )
                    self._corpus = gr.Dropdown(label="Corpus", elem_id="new-run-corpus", interactive=True)
                    self._judge = gr.Textbox(
                        label="Judge (optional)",
                        placeholder="openai:NAME, local:PATH-OR-NAME",
                        max_lines=1,
                        elem_id="new-run-judge",
                    )
                    self._begin = gr.Button("Start", variant="primary", size="sm", elem_id="new-run-start")
                self._list = gr.HTML(elem_id="run-list", js_on_load=None, apply_default_css=False)
            with gr.Column(elem_id="runs-main", min_width=0, scale=1):
                self._head = gr.HTML(view.PICK_RUN, elem_id="run-head", js_on_load=None, apply_default_css=False)
                with gr.Row(elem_id="run-actions", visible=False) as self._actions:
                    self._baseline = gr.Dropdown(
                        label="Baseline", elem_id="run-baseline", interactive=True, type="index", filterable=False
                    )
                    self._stop = gr.Button("Stop", size="sm", variant="stop", elem_id="run-stop", visible=False)
                    self._resume = gr.Button("Resume", size="sm", elem_id="run-resume", visible=False)
                self._table = gr.HTML(elem_id="run-figures", js_on_load=None, apply_default_css=False)
                with gr.Row(elem_id="grid-filter", visible=False) as self._filter:
                    self._show = gr.Radio(
                        list(get_args(Shown)), value="all", show_label=False, container=False, elem_id="grid-show"
                    )
                    self._search = gr.Textbox(
                        show_label=False,
                        container=False,
                        placeholder="Text in questions and answers",
                        max_lines=1,
                        elem_id="grid-search",
                    )
                self._grid = gr.HTML(elem_id="grid", js_on_load=None, apply_default_css=False)
                with gr.Row(elem_id="grid-pager", visible=False) as self._pager:
                    self._back = gr.Button("‹ Before", size="sm", elem_id="grid-back")
                    self._on = gr.Button("After ›", size="sm", elem_id="grid-on")
            with gr.Column(elem_id="runs-cell", min_width=0, scale=0):
                self._cell = gr.HTML(view.PICK_CELL, elem_id="run-cell", js_on_load=None, apply_default_css=False)
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
            bridge: Where what was clicked is named.
        """
        self._tabs, self._inner = tabs, inner
        listed = [self._list, self._dataset, self._corpus]
        state = [self._chosen, self._baseline, self._show, self._search, self._start, self._at]
        figures = [self._head, self._actions, self._stop, self._resume, self._table, self._timer, self._baseline]
        grid = [self._filter, self._grid, self._pager, self._back, self._on, self._start, self._address]
        shown = [*listed, *figures, *grid, self._cell, self._at, self._chosen]
        tab.select(self.listing, self._chosen, listed, **QUIET)
        self._open_run.click(self.open, [bridge.value], shown, js=BRIDGED, **QUIET)
        for event in (self._show.input, self._search.submit, self._search.blur):
            event(self.filtered, state, grid, **QUIET)
        self._back.click(self.back, state, grid, **QUIET)
        self._on.click(self.on, state, grid, **QUIET)
        self._baseline.input(self.rebased, state, [self._table, self._address], **QUIET)
        self._open_cell.click(
            self.open_cell, [bridge.value, *state], [self._cell, self._at, self._grid, self._address],
            js=BRIDGED, **QUIET,
        )  # fmt: skip
        self._begin.click(self.begin, [self._dataset, self._variants, self._corpus, self._judge], shown, **QUIET)
        self._stop.click(self.stop, self._chosen, None, **QUIET)
        self._resume.click(self.resume, self._chosen, shown, **QUIET)
        self._timer.tick(self.look, state, [*figures, *grid, self._list], **QUIET)
        self._address.change(None, self._address, None, js=ADDRESSED, **QUIET)
        page.load(self.linked, None, [tabs, inner, *shown, self._show, self._search], **QUIET)

    @property
    def _runs(self) -> Evaluations:
        return self._bench.evaluations

    @telling
    def listing(self, chosen: str) -> Updates:
        """The runs, and what a new one may be about."""
        datasets = [f"{each.name}@{each.version}" for each in self._runs.datasets.list()]
        return {
            self._list: self._list_html(chosen),
            self._dataset: gr.Dropdown(choices=datasets, value=datasets[0] if datasets else None),
            self._corpus: gr.Dropdown(choices=self._bench.corpora(), value=self._bench.settings.corpus),
        }

    @telling
    def open(self, run_id: str) -> Updates:
        """Show a run of the list."""
        return self._shown(self._runs.runs.get(run_id))

    @telling
    def filtered(self, chosen: str, baseline: int, show: Shown, search: str, _start: int, at: str) -> Updates:
        """The first page of what fits."""
        return self._grid_of(chosen, baseline, show, search, 0, at)

    @telling
    def back(self, chosen: str, baseline: int, show: Shown, search: str, start: int, at: str) -> Updates:
        """The page before."""
        return self._grid_of(chosen, baseline, show, search, max(start - ROWS, 0), at)

    @telling
    def on(self, chosen: str, baseline: int, show: Shown, search: str, start: int, at: str) -> Updates:
        """The page after."""
        return self._grid_of(chosen, baseline, show, search, start + ROWS, at)

    @telling
    def rebased(self, chosen: str, baseline: int, show: Shown, search: str, start: int, at: str) -> Updates:
        """The figures against another baseline."""
        run = self._runs.runs.get(chosen)
        return {
            self._table: view.table_html(self._runs.recent_summary(run, baseline or 0)),
            self._address: _address(chosen, baseline, show, search, start, at),
        }

    @telling
    def open_cell(
        self, at: str, chosen: str, baseline: int, show: Shown, search: str, start: int, _at: str
    ) -> Updates:
        """Show one answer."""
        grid = self._grid_of(chosen, baseline, show, search, start, at)
        return {
            self._cell: self._cell_html(self._runs.runs.get(chosen), at),
            self._at: at,
            self._grid: grid[self._grid],
            self._address: grid[self._address],
        }

    async def begin(self, dataset: str | None, variants: str, corpus: str, judge: str) -> Any:
        """Begin a run, and follow it."""
        try:
            if not dataset:
                raise SettingsError(
                    "There is no dataset yet.", fix="Import one: `ragsmith datasets import NAME FILE`."
                )
            run = await in_thread(self._begun, dataset, variants, corpus, judge)
            self._runs.start(run)
            return await in_thread(self._shown, run)
        except Exception as error:  # noqa: BLE001 - shown as one sentence, with the form as it was
            warn(error)
            return gr.skip()

    async def resume(self, chosen: str) -> Any:
        """Go on with a run."""
        try:
            run = await in_thread(self._runs.resume, chosen)
            self._runs.start(run)
            return await in_thread(self._shown, run)
        except Exception as error:  # noqa: BLE001 - shown as one sentence
            warn(error)
            return gr.skip()

    async def stop(self, chosen: str) -> None:
        """Stop a run that this process works on."""
        if not self._runs.stop(chosen):
            gr.Warning("Another process works on this run: stop it there.", title="")

    @telling
    def look(self, chosen: str, baseline: int, show: Shown, search: str, start: int, at: str) -> Updates:
        """How far the run is that is shown."""
        run = self._runs.runs.get(chosen)
        return {
            **self._figures(run, baseline or 0),
            **self._grid_of(chosen, baseline, show, search, start, at),
            self._list: self._list_html(chosen),
        }

    @telling
    def linked(self, request: gr.Request) -> Any:
        """Show what the address of the page names."""
        asked = request.query_params
        if asked.get("tab") != "evaluate":
            return gr.skip()
        front = {self._tabs: gr.Tabs(selected="evaluate"), self._inner: gr.Tabs(selected="runs")}
        if not asked.get("run"):
            return {**front, **self.listing("")}
        run = self._runs.runs.get(asked["run"])
        number = {
            name: int(asked[name]) if asked.get(name, "").isdecimal() else 0 for name in ("start", "baseline")
        }
        show: Shown = next((each for each in get_args(Shown) if each == asked.get("show")), "all")
        baseline = min(number["baseline"], len(run.plan.variants) - 1)
        return {
            **front,
            **self._shown(run, baseline, show, asked.get("q", ""), number["start"], asked.get("cell", "")),
            self._show: show,
            self._search: asked.get("q", ""),
        }

    def _begun(self, dataset: str, variants: str, corpus: str, judge: str) -> Run:
        return self._runs.begin(dataset, _parsed(variants), corpus=corpus or "", judge=(judge or "").strip())

    def _shown(
        self, run: Run, baseline: int = 0, show: Shown = "all", search: str = "", start: int = 0, at: str = ""
    ) -> Updates:
        return {
            **self.listing(run.id),
            **self._figures(run, baseline),
            **self._grid_of(run.id, baseline, show, search, start, at),
            self._baseline: gr.Dropdown(
                choices=[variant.name for variant in run.plan.variants],
                value=run.plan.variants[baseline].name,
            ),
            self._cell: self._cell_html(run, at) if at else view.PICK_CELL,
            self._at: at,
            self._chosen: run.id,
        }

    def _figures(self, run: Run, baseline: int) -> Updates:
        working = self._runs.is_working(run.id)
        try:
            size = self._runs.dataset_of(run).size
            notes: list[str] = []
            table = view.table_html(self._runs.recent_summary(run, baseline))
        except RagsmithError as error:
            size, notes, table = 0, [told(error)], ""
        return {
            self._head: view.head_html(run, size, self._runs.progress(run.id), notes),
            self._actions: gr.Row(visible=True),
            self._stop: gr.Button(visible=working),
            self._resume: gr.Button(visible=not working and run.status in ("stopped", "interrupted", "failed")),
            self._table: table,
            self._timer: gr.Timer(active=working),
            self._baseline: gr.skip(),
        }

    def _grid_of(
        self, chosen: str, baseline: int | None, show: Shown, search: str, start: int, at: str
    ) -> Updates:
        run = self._runs.runs.get(chosen)
        version = self._runs.dataset_of(run)
        grid = Grid(self._runs.runs, self._runs.datasets, run, version)
        page = grid.page(start, ROWS, show=show, search=search or "")
        summary = self._runs.recent_summary(run, baseline or 0)
        return {
            self._filter: gr.Row(visible=True),
            self._grid: view.grid_html(page, summary, at),
            self._pager: gr.Row(visible=page.total > ROWS),
            self._back: gr.Button(interactive=start > 0),
            self._on: gr.Button(interactive=start + len(page.rows) < page.total),
            self._start: start,
            self._address: _address(chosen, baseline, show, search, start, at),
        }

    def _cell_html(self, run: Run, at: str) -> str:
        variant, _, position = at.partition(":")
        version = self._runs.dataset_of(run)
        if not (variant.isdecimal() and position.isdecimal() and int(position) < version.size):
            return view.PICK_CELL
        row = Grid(self._runs.runs, self._runs.datasets, run, version).row(int(position))
        number = min(int(variant), len(run.plan.variants) - 1)
        return view.cell_html(row, number, run.plan.variants[number].name)

    def _list_html(self, chosen: str) -> str:
        runs = self._runs.runs.list()
        listed = runs[:LISTED]
        totals = [self._runs.size_of(run) * len(run.plan.variants) for run in listed]
        counts = [self._runs.runs.count(run.id) for run in listed]
        return view.runs_html(listed, counts, totals, chosen, len(runs) - len(listed))


def _parsed(text: str) -> list[Variant]:
    from rag.variants import parse_variant

    return [parse_variant(line) for line in text.splitlines() if line.strip()]


def _address(chosen: str, baseline: int | None, show: str, search: str | None, start: int, at: str) -> str:
    """The query of the page's address; what is as usual is left out."""
    told_of = {
        "run": chosen,
        "baseline": str(baseline) if baseline else "",
        "show": "" if show == "all" else show,
        "q": search or "",
        "start": str(start) if start else "",
        "cell": at,
    }
    return urlencode({"tab": "evaluate", **{name: value for name, value in told_of.items() if value}})
