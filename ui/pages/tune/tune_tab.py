"""The Tune tab: prepare data, train, sweep, compare, try the result, and teach, in the order of the work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from ui.pages.chat.chat_layout import Bridge
from ui.pages.page_events import QUIET
from ui.pages.tune.compare_part import ComparePart
from ui.pages.tune.data_part import DataPart
from ui.pages.tune.sweep_part import SweepPart
from ui.pages.tune.train_part import TrainPart
from ui.pages.tune.try_part import TryPart

if TYPE_CHECKING:
    from rag.settings import Settings
    from rag.workspace import Workspace
    from ui.pages.tune.teach_part import TeachPart

TAB = "tune"


class TuneTab:
    """The parts as tabs inside it, made inside the blocks that are open."""

    def __init__(self, settings: Settings, workspace: Workspace, teach: TeachPart) -> None:
        with gr.Tabs(elem_id="tune-tabs"):
            with gr.Tab("Data", id="tune-data") as self._on_data:
                self._data = DataPart(workspace)
            with gr.Tab("Train", id="tune-train") as self._on_train:
                self._train = TrainPart(settings, workspace)
            with gr.Tab("Sweep", id="tune-sweep") as self._on_sweep:
                self._sweep = SweepPart(settings, workspace)
            with gr.Tab("Compare", id="tune-compare") as self._on_compare:
                self._compare = ComparePart(workspace)
            with gr.Tab("Try", id="tune-try") as self._on_try:
                self._try = TryPart(settings, workspace)
            with gr.Tab("Teach", id="tune-teach") as on_teach:
                teach.build(on_teach.select)

    def wire(self, page: Any, tabs: Any, tab: Any, bridge: Bridge) -> None:
        """Connect the events.

        Args:
            page: The blocks.
            tabs: All tabs, to bring this one to the front.
            tab: This one.
            bridge: Names what was clicked.
        """
        self._data.wire((tab, self._on_data))
        self._train.wire((tab, self._on_train), bridge)
        self._sweep.wire((tab, self._on_sweep))
        self._compare.wire((tab, self._on_compare))
        self._try.wire((tab, self._on_try))

        def linked(request: gr.Request) -> Any:
            return gr.Tabs(selected=TAB) if request.query_params.get("tab") == TAB else gr.skip()

        page.load(linked, None, tabs, queue=False, **QUIET)
