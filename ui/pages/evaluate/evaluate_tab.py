"""The Evaluate tab: evaluation runs, retrieval, and datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from ui.pages.chat.chat_layout import Bridge
from ui.pages.evaluate.datasets_tab import CasesTab
from ui.pages.evaluate.retrieval_tab import RetrievalTab
from ui.pages.evaluate.runs_tab import RunsTab

if TYPE_CHECKING:
    from rag.settings import Settings
    from ui.app.evaluations import Evaluations
    from ui.app.models import Models
    from ui.app.releases import Releases
    from ui.app.stores import Stores


class EvaluateTab:
    """The three tabs inside it, made inside the blocks that are open."""

    def __init__(
        self, settings: Settings, stores: Stores, models: Models, releases: Releases, evaluations: Evaluations
    ) -> None:
        with gr.Tabs(elem_id="evaluate-tabs") as self._inner:
            with gr.Tab("Runs", id="runs") as self._on_runs:
                self._runs = RunsTab(settings, stores, evaluations)
            with gr.Tab("Retrieval", id="retrieval") as self._on_retrieval:
                self._retrieval = RetrievalTab(settings, stores, releases, evaluations.datasets)
            with gr.Tab("Datasets", id="datasets") as self._on_cases:
                self._cases = CasesTab(settings, stores, models, evaluations.datasets)

    def wire(self, page: Any, tabs: Any, tab: Any, bridge: Bridge, question: Any) -> None:
        """Connect the events.

        Args:
            page: The blocks.
            tabs: All tabs, to bring one to the front.
            tab: This one.
            bridge: Names what was clicked.
            question: The input box of the chat.
        """
        self._runs.wire(page, tabs, self._inner, tab, bridge)
        self._retrieval.wire(page, tabs, self._inner, self._on_retrieval, bridge, question)
        self._cases.wire(page, tabs, self._inner, self._on_cases, bridge)
