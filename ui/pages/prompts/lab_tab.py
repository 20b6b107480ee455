"""The lab of the prompts tab: one question, answered side by side by up to four variants."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr

from ui.pages.chat.chat_layout import Bridge
from ui.pages.page_events import BRIDGED, QUIET, addressed, show_errors
from ui.pages.prompts.lab_asking import AskingAll
from ui.pages.prompts.lab_drafts import KEEP, KEPT
from ui.pages.prompts.lab_layout import build_lab
from ui.pages.prompts.lab_showing import TAB, Showing

if TYPE_CHECKING:
    from rag.settings import Settings
    from ui.app.evaluations import Evaluations
    from ui.app.models import Models
    from ui.app.releases import Releases
    from ui.app.stores import Stores
    from ui.pages.prompts.draft_review import DraftReview


class LabTab:
    """Components and events of the lab, made inside the blocks that are open."""

    def __init__(
        self,
        settings: Settings,
        stores: Stores,
        models: Models,
        releases: Releases,
        evaluations: Evaluations,
        review: DraftReview,
    ) -> None:
        self._parts = build_lab()
        self._showing = Showing(settings, stores, releases, review, self._parts)
        self._asking = AskingAll(settings, releases, models, evaluations, self._parts, self._showing)
        self._fronts: dict[Any, Any] = {}

    def wire(self, page: Any, tabs: Any, tab: Any, bridge: Bridge) -> None:
        """Connect the events.

        Args:
            page: The blocks.
            tabs: All tabs of the page, to bring one to the front.
            tab: The tab of the lab, possibly nested in one of these.
            bridge: Has the button that an address of the lab presses.
        """
        parts, showing, asking = self._parts, self._showing, self._asking
        self._fronts = _fronts(tab, tabs)
        given = self._inputs()
        shown = self._outputs()
        # One at a time and in order: an earlier event that ended later would bring the old state back.
        look: dict[str, Any] = {"inputs": given, "outputs": shown, "concurrency_id": "lab", **QUIET}
        fields = [field for column in parts.columns for field in column.fields]
        looked = [field.blur for field in fields if isinstance(field, gr.Textbox)]
        looked += [field.submit for field in fields if isinstance(field, gr.Textbox)]
        looked += [field.input for field in fields if not isinstance(field, gr.Textbox)]
        looked += [parts.question.blur, parts.corpus.input, parts.fixed.input, parts.values_json.blur]
        looked += [value.blur for value in parts.values]
        looked += [parts.run.click, parts.question.submit]
        gr.on(looked, showing.look, trigger_mode="multiple", concurrency_limit=1, **look)
        changed = [parts.add.click(showing.add, **look)]
        for number, column in enumerate(parts.columns):
            changed.append(column.copy.click(partial(showing.copy, number), **look))
            changed.append(column.remove.click(partial(showing.remove, number), **look))
            changed += self._wire_draft(number, look)
        changed.append(parts.original.close.click(showing.close_trace, **look))
        for event in changed:
            # Text typed in the meantime was resolved with the old columns.
            event.then(showing.look, **look)
        drafts = [column.draft.text for column in parts.columns]
        for draft in drafts:
            draft.change(None, drafts, None, js=KEEP, **QUIET)
        free: dict[str, Any] = {"concurrency_limit": None, **QUIET}
        for event in (parts.run.click, parts.question.submit):
            event(asking.run, given, asking.written, **free)
        parts.stop.click(asking.stop, None, None, **free)
        parts.evaluate.click(asking.evaluate, {*given, parts.dataset}, [tabs], **free)
        parts.address.change(None, parts.address, None, js=addressed(TAB), **QUIET)
        tab.select(showing.opened, concurrency_limit=1, **look)
        fronted = [*shown, *self._fronts]
        bridge.links[TAB].click(self.linked, bridge.value, fronted, js=KEPT, **QUIET)
        bridge.playground.click(self.open_trace, bridge.value, fronted, js=BRIDGED, **QUIET)

    def _wire_draft(self, number: int, look: dict[str, Any]) -> list[Any]:
        """Connect the events of a draft; return those that change the column."""
        draft, showing = self._parts.columns[number].draft, self._showing
        draft.review.click(partial(showing.review_draft, number), **look)
        draft.back.click(partial(showing.back_to_draft, number), **look)
        with_reason = look | {"inputs": {*look["inputs"], draft.why}}
        return [
            draft.begin.click(partial(showing.begin_draft, number), **look),
            draft.discard.click(partial(showing.discard_draft, number), **look),
            draft.save.click(partial(showing.save_draft, number), **with_reason),
        ]

    @show_errors
    def open_trace(self, trace_id: str) -> Any:
        """Open a trace in the playground, and bring the lab to the front."""
        updates = self._showing.open_trace(trace_id)
        # After an error there is nothing to bring to the front.
        return updates | self._selected() if self._parts.question in updates else updates

    def _selected(self) -> dict[Any, Any]:
        return {tabs: gr.Tabs(selected=front) for tabs, front in self._fronts.items()}

    @show_errors
    def linked(self, kept: str | None, request: gr.Request) -> Any:
        """Show the columns that the address of the page names."""
        if request.query_params.get("tab", "") != TAB:
            return gr.skip()
        return self._showing.linked(request.query_params, kept) | self._selected()

    def _inputs(self) -> set[Any]:
        parts = self._parts
        fields = (field for column in parts.columns for field in column.fields)
        states = (parts.names, parts.kept, parts.answers, parts.count, parts.original.trace_id)
        return {parts.question, parts.corpus, parts.fixed, parts.values_json, *parts.values, *fields, *states}

    def _outputs(self) -> list[Any]:
        parts = self._parts
        columns = [part for column in parts.columns for part in self._of_column(column)]
        states = [parts.names, parts.kept, parts.answers, parts.count, parts.address, *parts.original.outputs]
        asked = [parts.question, parts.corpus, parts.run, parts.stop, parts.fixed, parts.add, parts.dataset]
        values = [parts.values_box, *parts.values, parts.values_json]
        return [*asked, *values, parts.note, *columns, *states]

    @staticmethod
    def _of_column(column: Any) -> list[Any]:
        shown = [column.box, column.copy, column.remove, column.settings, column.answer, column.sources]
        return [*shown, *column.fields, *column.draft.outputs]


def _fronts(tab: Any, tabs: Any) -> dict[Any, Any]:
    """Return the tabs to select, up to the outermost, so that a nested tab is shown."""
    found: dict[Any, Any] = {}
    while tab is not None and tabs not in found:
        if isinstance(tab.parent, gr.Tabs):
            found[tab.parent] = tab.id
        tab = tab.parent
    return found
