"""The prompts tab: the library of prompts and their versions, and the lab."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import gradio as gr

from prompts import PRODUCTION
from prompts.archive import PromptArchive
from rag.errors import PromptError, RagsmithError
from ui.app.archiving import PromptArchiving
from ui.app.prompt_labels import PromptLabels
from ui.pages.chat.chat_layout import Bridge
from ui.pages.html_component import html_component
from ui.pages.page_events import BRIDGED, QUIET, addressed, show_errors, show_info, warn
from ui.pages.prompts import prompts_view as view
from ui.pages.prompts.draft_review import DraftReview
from ui.pages.prompts.lab_tab import LabTab
from ui.pages.prompts.label_form import LabelForm
from ui.pages.prompts.prompt_editor import PromptEditor
from ui.pages.prompts.prompt_listing import PromptListing
from ui.pages.prompts.prompt_panes import PromptPanes
from ui.pages.prompts.prompt_selection import PANES, STEP, PromptSelection
from ui.pages.safe_markup import note

if TYPE_CHECKING:
    from rag.settings import Settings
    from ui.app.evaluations import Evaluations
    from ui.app.models import Models
    from ui.app.releases import Releases
    from ui.app.stores import Stores

Updates = dict[Any, Any]


class PromptsTab:
    """Components and events of the tab, made inside the blocks that are open."""

    def __init__(
        self, settings: Settings, stores: Stores, models: Models, releases: Releases, evaluations: Evaluations
    ) -> None:
        self._settings = settings
        self._prompt_labels = PromptLabels(stores.prompts, settings.answer_prompt)
        self._archiving = PromptArchiving(
            stores.prompts,
            PromptArchive(stores.workspace.prompts),
            settings.answer_prompt,
            lambda: evaluations.runs,
        )
        self._listing = PromptListing(stores.prompts, stores.workspace.prompts)
        self._contents = PromptPanes(stores, evaluations, self._listing)
        with gr.Column(elem_classes="rs-bridge"):
            self._at, self._pane, self._address = gr.Textbox(), gr.Textbox("template"), gr.Textbox()
            self._choose = gr.Button(elem_id="do-prompt")
            self._choose_version = gr.Button(elem_id="do-prompt-version")
            self._open = gr.Button(elem_id="do-prompt-open")
            self._more = gr.Button(elem_id="do-prompt-more")
        with gr.Tabs(elem_id="prompt-parts"):
            with gr.Tab("Library", id="library"):
                self._build_library()
            with gr.Tab("Lab", id="lab") as self._lab_tab:
                review = DraftReview(self._listing, self._prompt_labels)
                self._lab = LabTab(settings, stores, models, releases, evaluations, review)
        self._limit = gr.State(STEP)

    def _build_library(self) -> None:
        with gr.Row(elem_id="prompts", equal_height=True):
            with gr.Column(elem_id="prompt-names", min_width=0, scale=0):
                self._new = gr.Button("New prompt", size="sm", elem_id="prompt-begin-new")
                self._entries = html_component("prompt-entries")
            with gr.Column(elem_id="prompt-line", min_width=0, scale=0):
                self._filter = gr.Textbox(
                    label="Filter versions",
                    show_label=False,
                    container=False,
                    placeholder="Filter versions",
                    max_lines=1,
                    elem_id="prompt-filter",
                    html_attributes=gr.InputHTMLAttributes(spellcheck=False),
                )
                self._versions = html_component("prompt-points")
            with gr.Column(elem_id="prompt-detail", min_width=0, scale=1):
                self._bar = html_component("prompt-bar")
                with gr.Column(elem_id="prompt-view", min_width=0) as self._view:
                    self._build_view()
                self._editor = PromptEditor(self._listing, self._prompt_labels)

    def _build_view(self) -> None:
        self._head = html_component("prompt-head", note("Choose a prompt.", "rs-pick"))
        with gr.Row(elem_id="prompt-actions", elem_classes="rs-actions"):
            self._edit = gr.Button("Duplicate and edit", size="sm", variant="primary", elem_id="prompt-edit")
            self._to_production = gr.Button("Move production here", size="sm", elem_id="prompt-to-production")
            self._to_label = gr.Button("Move a label…", size="sm", elem_id="prompt-to-label")
            self._archive = gr.Button("Archive", size="sm", elem_id="prompt-archive")
        self._labels = LabelForm(self._prompt_labels, self._listing)
        with gr.Tabs(elem_id="prompt-panes") as self._panes:
            self._tabs, self._bodies = {}, {}
            for pane, title in PANES.items():
                with gr.Tab(title, id=pane) as self._tabs[pane]:
                    if pane == "compare":
                        self._other = gr.Dropdown(
                            label="Compare with", allow_custom_value=True, elem_id="prompt-other", interactive=True
                        )
                    self._bodies[pane] = html_component(f"prompt-{pane}-pane")

    def wire(self, page: Any, tabs: Any, tab: Any, bridge: Bridge) -> None:
        """Connect the events.

        Args:
            page: The blocks.
            tabs: All tabs, to bring this one to the front.
            tab: This one, to fill it when it is opened.
            bridge: Names what was clicked.
        """
        self._all_tabs, clicked = tabs, bridge.value
        state = [self._at, self._pane, self._other, self._filter, self._limit]
        body = list(self._bodies.values())
        shown = [
            *(self._at, self._pane, self._address, self._entries, self._versions, self._limit, self._filter),
            *(self._head, self._edit, self._to_production, self._to_label, self._labels.box),
            *(self._panes, self._other, *body),
        ]
        self._editor.wire(page, clicked, self._view, self._bar, self._saved, shown)
        # One at a time and in order, so that an earlier selection never replaces a later one.
        look: dict[str, Any] = {
            "inputs": state,
            "outputs": [self._address, self._other, *body],
            "concurrency_id": "prompt-pane",
            "concurrency_limit": 1,
            **QUIET,
        }
        tab.select(self.opened, state, shown, **QUIET).then(self.look, **look)
        bridge.links["prompts"].click(self.linked, None, [tabs, *shown], **QUIET)
        self._address.change(None, self._address, None, js=addressed("library"), **QUIET)
        for button, choose in (
            (self._choose, self.choose),
            (self._open, self.choose),
            (self._choose_version, self.choose_version),
        ):
            button.click(choose, [clicked, *state], shown, js=BRIDGED, **QUIET).then(self.look, **look)
        self._more.click(self.more, state, [self._versions, self._limit], **QUIET)
        # Gradio's input event misses text that is pasted or cut.
        self._filter.change(
            self.filtered, state, [self._versions, self._limit], trigger_mode="always_last", **QUIET
        )
        for pane, tab_of_pane in self._tabs.items():
            turned = tab_of_pane.select(None, None, self._pane, js=f"() => {json.dumps(pane)}", **QUIET)
            turned.then(self.look, **look)
        self._other.input(self.look, **look)
        self._edit.click(self._editor.begin, [self._at, *self._editor.draft], self._editor.outputs, **QUIET)
        self._new.click(self._editor.begin_new, self._editor.draft, self._editor.outputs, **QUIET)
        openers = ((self._to_production, PRODUCTION), (self._to_label, "staging"))
        for moved in self._labels.wire(openers, state, self._show, shown):
            moved.then(self.look, **look)
        self._archive.click(self.archive, state, shown, **QUIET).then(self.look, **look)
        self._lab.wire(page, tabs, self._lab_tab, bridge)

    @show_errors
    def opened(self, *state: Any) -> Updates:
        """Show the last selection, or the version that the chat runs."""
        selection = PromptSelection.of(*state)
        return self._show(selection if selection.at else self._first())

    @show_errors
    def linked(self, request: gr.Request) -> Any:
        """Show the version that the address of the page names."""
        query = request.query_params
        if query.get("tab") != "prompts":
            return gr.skip()
        selection = self._first()
        try:
            if query.get("prompt"):
                selection = PromptSelection(self._listing.load(query["prompt"]).label)
        except RagsmithError as error:
            warn(error)
        pane = query.get("pane", "template")
        named = replace(selection, pane=pane if pane in PANES else "template", other=query.get("with", ""))
        return {self._all_tabs: gr.Tabs(selected="prompts"), **self._turn_to(named)}

    @show_errors
    def choose(self, reference: str, *state: Any) -> Updates:
        """Show a version, or the newest one where only the prompt is named."""
        before = PromptSelection.of(*state)
        if "@" not in reference:
            reference = f"{reference}@{self._listing.versions(reference)[0]}"
        prompt = self._listing.load(reference)
        text = before.text if prompt.name == before.name else ""
        return {**self._show(PromptSelection(prompt.label, text=text)), self._filter: text}

    @show_errors
    def choose_version(self, version: str, *state: Any) -> Updates:
        """Show another version of the prompt."""
        before = PromptSelection.of(*state)
        return self._show(PromptSelection(f"{before.name}@{version}", text=before.text, limit=before.limit))

    @show_errors
    def archive(self, *state: Any) -> Any:
        """Archive the version that is shown, and show the newest one that is left."""
        selection = PromptSelection.of(*state)
        if not selection.at:
            return gr.skip()
        self._archiving.put_away(selection.at)
        show_info(f"Archived {selection.at}; `ragsmith prompts restore {selection.at}` brings it back.")
        is_left = selection.name in (entry.name for entry in self._listing.entries())
        newest = f"{selection.name}@{self._listing.versions(selection.name)[0]}" if is_left else ""
        return {**self._show(PromptSelection(newest) if newest else self._first()), self._filter: ""}

    @show_errors
    def more(self, *state: Any) -> Updates:
        """List more versions."""
        before = PromptSelection.of(*state)
        return self._listed(replace(before, limit=before.limit + STEP))

    @show_errors
    def filtered(self, *state: Any) -> Updates:
        """List the versions that match the filter."""
        return self._listed(replace(PromptSelection.of(*state), limit=STEP))

    @show_errors
    def look(self, *state: Any) -> Any:
        """Fill the open pane for the current selection."""
        selection = PromptSelection.of(*state)
        return self._body(selection) if selection.at else gr.skip()

    def _saved(self, label: str) -> Updates:
        return {**self._turn_to(PromptSelection(label)), self._filter: ""}

    def _first(self) -> PromptSelection:
        """Return the version that the chat runs, else the first readable prompt."""
        try:
            return PromptSelection(self._listing.load(self._settings.answer_prompt).label)
        except PromptError:
            for entry in self._listing.entries():
                if not entry.error:
                    return PromptSelection(f"{entry.name}@{entry.newest}")
            raise

    def _turn_to(self, selection: PromptSelection) -> Updates:
        return {
            **self._show(selection),
            self._pane: selection.pane,
            self._panes: gr.Tabs(selected=selection.pane),
            **self._body(selection),
        }

    def _show(self, selection: PromptSelection) -> Updates:
        """Update all but the pane: a person may open another one in the meantime."""
        name, version = selection.name, selection.version
        prompt = self._listing.load(selection.at)
        labels = [label for label, target in self._listing.labels(name).items() if target == version]
        here = PRODUCTION in labels
        return {
            self._at: selection.at,
            self._other: gr.Dropdown(value=selection.other or None),
            self._entries: view.entries_html(self._listing.entries(), name),
            **self._listed(selection),
            self._head: view.head_html(prompt, labels, ships=version in self._listing.ships(name)),
            self._to_production: gr.Button(
                "In production" if here else "Move production here", interactive=not here
            ),
            self._labels.box: gr.Column(visible=False),
        }

    def _listed(self, selection: PromptSelection) -> Updates:
        page = self._listing.version_page(selection.name, selection.text, selection.limit)
        return {self._versions: view.versions_html(page, selection.version), self._limit: selection.limit}

    def _body(self, selection: PromptSelection) -> Updates:
        """Fill the open pane, and set its address."""
        query = {"tab": "prompts", "prompt": selection.at, "pane": selection.pane}
        updates: Updates = {}
        if selection.pane == "compare":
            others = self._contents.others(selection)
            other = self._contents.compared_with(selection, others)
            selection = replace(selection, other=other)
            query["with"] = other
            updates[self._other] = gr.Dropdown(others, value=other or None)
        updates[self._bodies[selection.pane]] = self._contents.html(selection)
        return updates | {self._address: urlencode(query, safe="@")}
