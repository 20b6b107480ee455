"""The page: a strip with the state of the process, and the tabs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.utils import get_upload_folder

from rag.errors import LoadError
from rag.evaluation.report_rendering import shortened
from ui.pages.chat.chat_layout import LINKED, build_bridge
from ui.pages.chat.chat_tab import chat_tab
from ui.pages.evaluate.evaluate_tab import EvaluateTab
from ui.pages.health_strip import notices_html, strip_html
from ui.pages.html_component import html_component
from ui.pages.monitor.monitor_tab import MonitorTab
from ui.pages.page_events import QUIET, as_text, show_errors, show_warning
from ui.pages.prompts.prompts_tab import PromptsTab
from ui.pages.traces.traces_tab import TracesTab
from ui.pages.tune.teach_part import TeachPart
from ui.pages.tune.tune_tab import TuneTab
from ui.pages.uploads import check_references

if TYPE_CHECKING:
    from ui.app.app import App
    from ui.app.health import HealthCheck

REFRESH_S = 15
DAY_S = 86_400
TABS = {
    "chat": "Chat",
    "prompts": "Prompts",
    "traces": "Traces",
    "evaluate": "Evaluate",
    "tune": "Tune",
    "monitor": "Monitor",
}


class Page(gr.Blocks):  # type: ignore[misc]
    """The blocks of the page; no event accepts a file that was not uploaded."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> Any:
        """Check the files that the browser names before Gradio opens them.

        Raises:
            gr.Error: A file was not uploaded, or is an address.
        """
        try:
            check_references(inputs, Path(get_upload_folder()))
        except LoadError as error:
            raise gr.Error(as_text(str(error)), print_exception=False) from error
        return await super().preprocess_data(block_fn, inputs, *args, **kwargs)


def build_page(app: App) -> Page:
    """Build the page, and pass every tab the parts that it uses."""
    settings, stores, models = app.settings, app.stores, app.models
    releases, evaluations = app.releases, app.evaluations
    page: Page
    with Page(
        title="ragsmith",
        fill_width=True,
        fill_height=True,
        analytics_enabled=False,
        # Uploads are moved out of the cache at once; what is left there was interrupted.
        delete_cache=(DAY_S, DAY_S),
    ) as page:
        strip = html_component("strip")
        notices = html_component("notices")
        bridge = build_bridge()
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab(TABS["chat"], id="chat"):
                chat = chat_tab(page, bridge, settings, stores, releases)
            with gr.Tab(TABS["prompts"], id="prompts") as prompts:
                prompts_tab = PromptsTab(settings, stores, models, releases, evaluations)
            with gr.Tab(TABS["traces"], id="traces") as traces:
                traces_tab = TracesTab(stores, evaluations)
            with gr.Tab(TABS["evaluate"], id="evaluate") as evaluate:
                evaluate_tab = EvaluateTab(settings, stores, models, releases, evaluations)
            with gr.Tab(TABS["tune"], id="tune") as tune:
                tune_tab = TuneTab(settings, app.workspace, TeachPart(app.stores, app.teaching))
            with gr.Tab(TABS["monitor"], id="monitor") as monitor:
                monitor_tab = MonitorTab(stores, releases, app.alerting)
        prompts_tab.wire(page, tabs, prompts, bridge)
        traces_tab.wire(page, tabs, traces, bridge)
        evaluate_tab.wire(page, tabs, evaluate, bridge, chat.question)
        tune_tab.wire(page, tabs, tune, bridge)
        monitor_tab.wire(page, tabs, monitor)
        page.load(check_tab, None, None, **QUIET)
        _keep_fresh(app.health, page, chat.corpus, [strip, notices])
    # A slow answer must not delay the events of other people and tabs.
    page.queue(default_concurrency_limit=32)
    return page


@show_errors
def check_tab(request: gr.Request) -> None:
    """Warn of an address that names a tab that the page does not have."""
    tab = request.query_params.get("tab", "")
    if tab and tab not in (*TABS, *LINKED):
        show_warning(f"The page has no tab {shortened(tab, 40)!r}: the link may be out of date.")


def _keep_fresh(health: HealthCheck, page: gr.Blocks, corpus: Any, shown: list[Any]) -> None:
    @show_errors
    def look(asked: str | None) -> tuple[str, str]:
        now = health.check(asked or "")
        return strip_html(now), notices_html(now)

    timer = gr.Timer(REFRESH_S)
    # One at a time and in order: an earlier check that ended later would show the corpus before.
    for event in (timer.tick, page.load, corpus.change):
        event(look, corpus, shown, concurrency_id="health", concurrency_limit=1, **QUIET)
