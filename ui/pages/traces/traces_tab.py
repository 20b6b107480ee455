"""The traces tab: a filter, charts and a list, and beside them a trace, a conversation or two traces."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from rag.errors import FilterError, RagsmithError
from rag.tracing.trace_comparison import compare_traces
from rag.tracing.trace_query import Cursor, Listing
from ui.pages.chat.chat_layout import Bridge
from ui.pages.html_component import html_component
from ui.pages.page_events import BRIDGED, QUIET, addressed, show_errors, show_info, warn
from ui.pages.safe_markup import note
from ui.pages.traces.comparison_view import comparison_html
from ui.pages.traces.list_replay_part import ListReplayPart
from ui.pages.traces.list_state import TAB, ListState, act, state_of
from ui.pages.traces.list_view import chips_html, count_html, error_html, list_html
from ui.pages.traces.other_views import passage_html_of, session_html
from ui.pages.traces.rating_form import read_rating
from ui.pages.traces.trace_charts import charts_html
from ui.pages.traces.trace_view import trace_html

if TYPE_CHECKING:
    from ui.app.evaluations import Evaluations
    from ui.app.stores import Stores

PAGE = 50
PASSAGE_TRACES = 100
"""Maximum answers that are shown for a passage."""
PICK = "Choose a trace to see its steps."
_EXAMPLE = "latency > 2s and feedback = down, or words to search for"
# Clicks that change what stands beside the list, and not the list.
_BESIDE = frozenset({"steps", "session", "passage", "compare", "close", "against", "alone"})

# One after another: a click that comes before the answer to the last one must not undo it.
_IN_ORDER = QUIET | {"concurrency_id": "traces", "concurrency_limit": 1}

Updates = dict[Any, Any]
Cursors = tuple[Cursor, ...]


class TracesTab:
    """Components and events of the tab, made inside the blocks that are open.

    ``state`` is what the tab shows, and its address. A page of the list begins behind a trace: ``cursors`` are
    these traces for the pages so far, so that *Previous* leads back.
    """

    def __init__(self, stores: Stores, evaluations: Evaluations) -> None:
        self._stores = stores
        with gr.Row(elem_id="traces", equal_height=True):
            with gr.Column(elem_id="trace-list", min_width=0, scale=1):
                with gr.Row(elem_id="trace-filter"):
                    self._text = gr.Textbox(
                        label="Filter",
                        show_label=False,
                        container=False,
                        placeholder=_EXAMPLE,
                        max_lines=1,
                        max_length=2_000,
                        elem_id="trace-text",
                        scale=1,
                        min_width=0,
                    )
                    self._refresh = gr.Button("Refresh", size="sm", scale=0, min_width=80)
                    self._replay_all = gr.Button(
                        "Replay all…", size="sm", scale=0, min_width=100, elem_id="trace-replay-all"
                    )
                self._replaying = ListReplayPart(stores, evaluations)
                self._error = html_component("trace-error")
                self._chips = html_component("trace-chips")
                self._charts = html_component("trace-charts")
                self._list = html_component("trace-rows")
                with gr.Row(elem_id="trace-pager"):
                    self._newer = gr.Button("‹ Previous", size="sm", interactive=False)
                    self._older = gr.Button("Next ›", size="sm", interactive=False)
                    self._count = html_component("trace-count")
            with gr.Column(elem_id="trace-detail", min_width=0, scale=1):
                self._detail = html_component("trace-steps", note(PICK, "rs-pick"))
        with gr.Column(elem_classes="rs-bridge"):
            self._address = gr.Textbox()
            self._act = gr.Button(elem_id="do-traces")
            self._save = gr.Button(elem_id="do-save-filter")
            self._rate = gr.Button(elem_id="do-rate-trace")
        self._cursors = gr.State(())
        self._state = gr.State(ListState())

    def wire(self, page: Any, tabs: Any, tab: Any, bridge: Bridge) -> None:
        """Connect the events.

        Args:
            page: The blocks.
            tabs: All tabs, to bring this one to the front.
            tab: This one, to fill it when it is opened.
            bridge: Names what was clicked.
        """
        self._tabs = tabs
        listed = [self._list, self._count, self._newer, self._older, self._cursors]
        beside = [self._detail, self._state, self._address]
        shown = [self._text, self._error, *listed, *beside]
        clicked, paged = [bridge.value, self._state], [self._state, self._cursors]
        for event, handler, inputs, outputs in (
            (self._text.submit, self.filtered, [self._text, self._state], shown),
            (self._text.blur, self.typed, [self._text, self._state], shown),
            (self._refresh.click, self.filtered, [self._text, self._state], shown),
            (tab.select, self.first_page, self._state, listed),
            (self._act.click, self.clicked, clicked, shown),
        ):
            js = {"js": BRIDGED} if inputs is clicked else {}
            # The figures of many traces take longer than a page of them.
            event(handler, inputs, outputs, **js, **_IN_ORDER).then(
                self.figures, self._state, [self._chips, self._charts], **QUIET
            )
        # Its tab, which it brings to the front, then shows the figures.
        page.load(self.linked, None, [tabs, *shown], **_IN_ORDER)
        self._older.click(self.older, paged, listed, **_IN_ORDER)
        self._newer.click(self.newer, paged, listed, **_IN_ORDER)
        self._save.click(self.save, clicked, self._chips, js=BRIDGED, **_IN_ORDER)
        rated = [bridge.value, self._state, self._cursors]
        self._rate.click(self.rate, rated, [*listed, self._detail], js=BRIDGED, **_IN_ORDER)
        self._replaying.wire(self._replay_all, self._state)
        bridge.open_trace.click(self.open, clicked, [tabs, *beside], js=BRIDGED, **_IN_ORDER)
        self._address.change(None, self._address, None, js=addressed(TAB), **QUIET)

    @show_errors
    def first_page(self, state: ListState) -> Updates:
        """Show the first page."""
        return self._listed(state, ())

    @show_errors
    def figures(self, state: ListState) -> Updates:
        """Show the chips and the charts of the list; nothing where the address has no list yet."""
        try:
            return {self._chips: self._chips_html(state), self._charts: self._charts_html(state)}
        except FilterError:
            return gr.skip()  # type: ignore[no-any-return]

    @show_errors
    def typed(self, text: str | None, state: ListState) -> Any:
        """Apply a filter that was typed when its box is left, as by pressing a chip."""
        return gr.skip() if (text or "").strip() == state.filter else self.filtered(text, state)

    @show_errors
    def filtered(self, text: str | None, state: ListState) -> Updates:
        """Show what a typed filter keeps; one that is not understood changes nothing."""
        return self._applied(replace(state, filter=(text or "").strip()), state)

    @show_errors
    def clicked(self, click: str, state: ListState) -> Any:
        """Do what a chip, a header, a chart or a link of the tab asks for."""
        action, _, value = click.partition(" ")
        if action == "unsave":
            self._stores.saved_filters.delete(value)
            return gr.skip()
        if action in _BESIDE:
            return self._beside(act(state, action, value))
        return self._applied(act(state, action, value), state)

    @show_errors
    def older(self, state: ListState, cursors: Cursors) -> Updates:
        """Show the page behind this one."""
        page = self._page(state, cursors)
        return self._listed(state, (*cursors, page.next) if page.next else cursors)

    @show_errors
    def newer(self, state: ListState, cursors: Cursors) -> Updates:
        """Show the page before this one."""
        return self._listed(state, cursors[:-1])

    @show_errors
    def save(self, name: str, state: ListState) -> Updates:
        """Keep the filter under a name."""
        saved = self._stores.saved_filters.save(name, state.filter)
        show_info(f"Saved the filter {saved.name}.")
        return {self._chips: self._chips_html(state)}

    @show_errors
    def rate(self, given: str, state: ListState, cursors: Cursors) -> Updates:
        """Store the rating of a trace, and show it in the list and beside it."""
        rating = read_rating(given)
        correction = rating.correction if rating.rating == "down" else ""
        self._stores.traces.rate(rating.trace, rating.rating or None, rating.comment, correction)
        show_info("The rating is stored with the trace.", seconds=3)
        return {**self._listed(state, cursors), self._detail: self._detail_html(state)}

    @show_errors
    def open(self, trace_id: str, state: ListState) -> Updates:
        """Show a trace that was clicked, on any tab."""
        found = self._stores.traces.get(trace_id)
        return {self._tabs: gr.Tabs(selected=TAB), **self._beside(state.opened("trace", found.id))}

    @show_errors
    def linked(self, request: gr.Request) -> Any:
        """Show what the address of the page names."""
        state = state_of(request.query_params)
        if state is None:
            return gr.skip()
        front: Updates = {self._tabs: gr.Tabs(selected=TAB), **self._listed(ListState(), ())}
        front |= self._applied(state, ListState())
        try:
            return front | self._beside(state) if state.detail or state.compare else front
        except RagsmithError as error:
            warn(error)
            return front | self._applied(state.opened("", ""), ListState())

    def _applied(self, state: ListState, before: ListState) -> Updates:
        """Show the first page of another list; a filter that is not understood changes nothing."""
        try:
            listed = self._listed(state, ())
        except FilterError as error:
            return {
                self._text: state.filter,
                self._error: error_html(error, state.filter),
                self._state: before,
            }
        return {
            self._text: state.filter,
            self._error: "",
            **listed,
            self._state: state,
            self._address: state.address(),
        }

    def _beside(self, state: ListState) -> Updates:
        return {self._detail: self._detail_html(state), self._state: state, self._address: state.address()}

    def _detail_html(self, state: ListState) -> str:
        queries = self._stores.trace_queries
        match state.detail:
            case "trace":
                trace = self._stores.traces.get(state.shown)
                if state.compare and state.compare != trace.id:
                    return comparison_html(compare_traces(self._stores.traces.get(state.compare), trace))
                return trace_html(trace, queries.neighbours(state.query(), trace.id), state)
            case "session":
                return session_html(queries.session(state.shown), state.shown)
            case "passage":
                number = int(state.shown) if state.shown.isdecimal() and len(state.shown) < 19 else 0
                return passage_html_of(queries.with_passage(number, limit=PASSAGE_TRACES), state.shown)
            case _:
                return note(PICK, "rs-pick")

    def _listed(self, state: ListState, cursors: Cursors) -> Updates:
        page = self._page(state, cursors)
        return {
            self._list: list_html(page.traces, state),
            self._count: count_html(page, len(cursors) * PAGE + 1),
            self._newer: gr.Button(interactive=bool(cursors)),
            self._older: gr.Button(interactive=page.next is not None),
            self._cursors: cursors,
        }

    def _page(self, state: ListState, cursors: Cursors) -> Listing:
        after = cursors[-1] if cursors else None
        return self._stores.trace_queries.page(state.query(), limit=PAGE, after=after)

    def _chips_html(self, state: ListState) -> str:
        tails = self._stores.trace_series.tails(state.query())
        return chips_html(state, tails, self._stores.saved_filters.list())

    def _charts_html(self, state: ListState) -> str:
        return charts_html(self._stores.trace_series.series(state.query()))
