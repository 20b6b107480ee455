"""The monitor tab: alerts, what was spent and how answers went, over time and by group."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import gradio as gr

from rag.tracing.ledger import GROUPINGS, TIMES, Grouping
from ui.pages.html_component import html_component
from ui.pages.monitor.alerts_part import NEW, AlertsPart
from ui.pages.monitor.answers_view import answers_html
from ui.pages.monitor.cost_view import Period, cost_html
from ui.pages.page_events import QUIET, addressed, show_errors

if TYPE_CHECKING:
    from ui.app.alerting import Alerting
    from ui.app.releases import Releases
    from ui.app.stores import Stores

TAB = "monitor"
RANGES = {"24 hours": 1, "7 days": 7, "30 days": 30}
DEFAULT_RANGE = "7 days"
GROUPS = [group for group in GROUPINGS if group not in TIMES]
DEFAULT_GROUP: Grouping = "model"
MEASURED = ("release", "prompt", "purpose")
LEFT_OUT = ("evaluation", "lab", "external")
"""Purposes that say nothing of what people experience."""

Updates = dict[Any, Any]


class MonitorTab:
    """Components and events of the tab, made inside the blocks that are open."""

    def __init__(self, stores: Stores, releases: Releases, alerting: Alerting) -> None:
        self._stores = stores
        self._releases = releases
        with gr.Column(elem_id="monitor"):
            with gr.Row(elem_id="monitor-choice"):
                self._range = gr.Radio(list(RANGES), value=DEFAULT_RANGE, label="Time", elem_id="monitor-range")
                self._by = gr.Radio(GROUPS, value=DEFAULT_GROUP, label="Group by", elem_id="monitor-by")
                self._all = gr.Checkbox(
                    label="Include evaluation and lab", container=False, elem_id="monitor-all", min_width=0
                )
                self._refresh = gr.Button("Refresh", size="sm", scale=0, min_width=80)
            self._alerts = AlertsPart(alerting, RANGES)
            self._cost = html_component("monitor-cost")
            self._answers = html_component("monitor-answers")
        with gr.Column(elem_classes="rs-bridge"):
            self._address = gr.Textbox()

    def wire(self, page: Any, tabs: Any, tab: Any) -> None:
        """Connect the events.

        Args:
            page: The blocks.
            tabs: All tabs, to bring this one to the front.
            tab: This one, to fill it when it is opened.
        """
        self._tabs = tabs
        chosen = [self._range, self._by, self._all]
        shown = [self._cost, self._answers, self._address, *self._alerts.shown]
        for event in (self._range.input, self._by.input, self._all.input, self._refresh.click, tab.select):
            event(self.show, [*chosen, self._alerts.chosen], shown, **QUIET)
        self._alerts.wire(self._range)
        page.load(self.linked, None, [tabs, *chosen, *shown], **QUIET)
        self._address.change(None, self._address, None, js=addressed(TAB), **QUIET)

    @show_errors
    def show(self, chosen_range: str, by: Grouping, with_all: bool, alert: str = NEW) -> Updates:
        """Show the alerts, what was spent, and how answers went."""
        days = RANGES[chosen_range]
        period = Period.last(days, time.time())
        ledger = self._stores.ledger
        times, rows = ledger.rows(period.by, period.since), ledger.rows(by, period.since)
        without = () if with_all else LEFT_OUT
        group: Grouping = by if by in MEASURED else "release"
        measures = self._stores.measures
        answers = answers_html(
            period,
            group,
            measures.total(period.since, without),
            measures.groups(period.by, period.since, without),
            measures.groups(group, period.since, without),
        )
        return {
            **self._alerts.show(alert),
            self._answers: answers,
            self._cost: cost_html(period, by, times, rows, self._releases.budget.warning()),
            self._address: urlencode({"tab": TAB, "days": days, "by": by} | ({"all": 1} if with_all else {})),
        }

    @show_errors
    def linked(self, request: gr.Request) -> Any:
        """Show what the address of the page names."""
        query = request.query_params
        if query.get("tab") != TAB:
            return gr.skip()
        chosen = next((name for name, days in RANGES.items() if str(days) == query.get("days")), DEFAULT_RANGE)
        by = next((group for group in GROUPS if group == query.get("by")), DEFAULT_GROUP)
        with_all = query.get("all") == "1"
        front = {self._tabs: gr.Tabs(selected=TAB), self._range: chosen, self._by: by, self._all: with_all}
        return front | self.show(chosen, by, with_all)
