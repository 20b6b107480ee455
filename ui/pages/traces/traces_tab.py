"""The traces tab: a list with a filter and a pager, and beside it the steps of one trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import urlencode

import gradio as gr

from rag.errors import RagsmithError
from rag.tracing.trace_store import Status, TracePage
from ui.pages.chat.chat_layout import Bridge
from ui.pages.html_component import html_component
from ui.pages.page_events import BRIDGED, QUIET, addressed, show_errors, warn
from ui.pages.safe_markup import note
from ui.pages.traces.trace_view import list_html, trace_html

if TYPE_CHECKING:
    from rag.tracing.trace_store import TraceStore

TAB = "traces"
PAGE = 50
ALL = "all"

Updates = dict[Any, Any]
Cursors = tuple[float, ...]


class TracesTab:
    """Components and events of the tab, made inside the blocks that are open.

    A page of the list begins below a time. ``cursors`` are these times for the pages so far, so that *Newer* leads
    back; ``chosen`` is the id of the trace that is shown.
    """

    def __init__(self, traces: TraceStore) -> None:
        self._traces = traces
        with gr.Row(elem_id="traces", equal_height=True):
            with gr.Column(elem_id="trace-list", min_width=0, scale=1):
                with gr.Row(elem_id="trace-filter"):
                    self._text = gr.Textbox(
                        show_label=False,
                        container=False,
                        placeholder="Text in question, answer or error",
                        max_lines=1,
                        elem_id="trace-text",
                        scale=1,
                        min_width=0,
                    )
                    self._status = gr.Dropdown(
                        [ALL, *get_args(Status)],
                        value=ALL,
                        show_label=False,
                        container=False,
                        elem_id="trace-status",
                        filterable=False,
                        scale=0,
                        min_width=130,
                    )
                    self._refresh = gr.Button("Refresh", size="sm", scale=0, min_width=80)
                self._list = html_component("trace-rows")
                with gr.Row(elem_id="trace-pager"):
                    self._newer = gr.Button("‹ Newer", size="sm", interactive=False)
                    self._older = gr.Button("Older ›", size="sm", interactive=False)
            with gr.Column(elem_id="trace-detail", min_width=0, scale=1):
                pick = note("Choose a trace to see its steps.", "rs-pick")
                self._detail = html_component("trace-steps", pick)
        with gr.Column(elem_classes="rs-bridge"):
            self._address = gr.Textbox()
        self._cursors = gr.State(())
        self._chosen = gr.State("")

    def wire(self, page: Any, tabs: Any, tab: Any, bridge: Bridge) -> None:
        """Connect the events.

        Args:
            page: The blocks.
            tabs: All tabs, to bring this one to the front.
            tab: This one, to fill it when it is opened.
            bridge: Names the trace that was clicked.
        """
        self._tabs = tabs
        filters = [self._text, self._status, self._chosen]
        paged = [*filters, self._cursors]
        listed = [self._list, self._newer, self._older, self._cursors]
        opened = [tabs, *listed, self._detail, self._chosen, self._address]
        for event in (self._text.submit, self._text.blur, self._status.input, self._refresh.click):
            event(self.first_page, filters, listed, **QUIET)
        tab.select(self.first_page, filters, listed, **QUIET)
        self._older.click(self.older, paged, listed, **QUIET)
        self._newer.click(self.newer, paged, listed, **QUIET)
        bridge.open_trace.click(self.open, [bridge.value, *filters[:2]], opened, js=BRIDGED, **QUIET)
        page.load(self.linked, None, opened, **QUIET)
        self._address.change(None, self._address, None, js=addressed("traces"), **QUIET)

    @show_errors
    def first_page(self, text: str | None, status: str, chosen: str) -> Updates:
        """Show the newest matching traces."""
        return self._show(text, status, chosen, ())

    @show_errors
    def older(self, text: str | None, status: str, chosen: str, cursors: Cursors) -> Updates:
        """Show the next older page."""
        shown = self._page(text, status, cursors)
        below = (*cursors, shown.traces[-1].started) if shown.traces else cursors
        return self._show(text, status, chosen, below)

    @show_errors
    def newer(self, text: str | None, status: str, chosen: str, cursors: Cursors) -> Updates:
        """Show the next newer page."""
        return self._show(text, status, chosen, cursors[:-1])

    @show_errors
    def open(self, trace_id: str, text: str | None, status: str) -> Updates:
        """Show a trace that was clicked, on any tab."""
        return self._opened(trace_id, text, status)

    def _opened(self, trace_id: str, text: str | None, status: str) -> Updates:
        trace = self._traces.get(trace_id)
        return {
            self._tabs: gr.Tabs(selected=TAB),
            **self._show(text, status, trace.id, ()),
            self._detail: trace_html(trace),
            self._chosen: trace.id,
            self._address: urlencode({"trace": trace.id}),
        }

    @show_errors
    def linked(self, request: gr.Request) -> Any:
        """Show the trace that the address of the page names."""
        named = request.query_params.get("trace", "")
        if not named and request.query_params.get("tab") != TAB:
            return gr.skip()
        front: Updates = {self._tabs: gr.Tabs(selected=TAB), **self._show("", ALL, "", ())}
        try:
            return front | self._opened(named, "", ALL) if named else front
        except RagsmithError as error:
            warn(error)
            return front

    def _show(self, text: str | None, status: str, chosen: str, cursors: Cursors) -> Updates:
        page = self._page(text, status, cursors)
        first = len(cursors) * PAGE + 1
        return {
            self._list: list_html(page, first, chosen),
            self._newer: gr.Button(interactive=bool(cursors)),
            self._older: gr.Button(interactive=first + len(page.traces) <= page.total),
            self._cursors: cursors,
        }

    def _page(self, text: str | None, status: str, cursors: Cursors) -> TracePage:
        known: Status | None = next((name for name in get_args(Status) if name == status), None)
        return self._traces.list(
            limit=PAGE, before=cursors[-1] if cursors else None, status=known, text=(text or "").strip() or None
        )
