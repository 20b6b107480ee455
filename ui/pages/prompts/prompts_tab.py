"""The prompts tab: prompts and their versions, one of them from every side, and the labels that move."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import gradio as gr

from prompts import PRODUCTION
from rag.errors import PromptError, RagsmithError, prompt_errors
from rag.evaluation.standing import standings_of
from rag.tracing.prompt_usage import traces_of, use_of
from ui.app.login_name import login_name
from ui.pages.chat.chat_layout import Bridge
from ui.pages.page_events import ADDRESSED, BRIDGED, QUIET, telling, warn
from ui.pages.prompts import prompts_view as view
from ui.pages.prompts.lab_tab import LabTab
from ui.pages.prompts.prompts_edit import Editor
from ui.pages.prompts.prompts_list import Shelf
from ui.pages.safe_markup import note

if TYPE_CHECKING:
    from rag.settings import Settings
    from ui.app.evaluations import Evaluations
    from ui.app.models import Models
    from ui.app.releases import Releases
    from ui.app.stores import Stores

STEP = 60
USED = 50
PANES = {
    "template": "Template",
    "settings": "Settings",
    "compare": "Compare",
    "metrics": "Metrics",
    "used": "Used by",
    "history": "History",
}

Updates = dict[Any, Any]


@dataclass(frozen=True, slots=True)
class Shown:
    """What is looked at.

    Attributes:
        at: ``NAME@VERSION``; empty before anything was chosen.
        pane: One of ``PANES``.
        other: What ``at`` is compared with.
        text: The filter of the time line.
        limit: Versions on the time line.
    """

    at: str
    pane: str = "template"
    other: str = ""
    text: str = ""
    limit: int = STEP

    @property
    def name(self) -> str:
        """Of the prompt."""
        return self.at.partition("@")[0]

    @property
    def version(self) -> int:
        """Of the version, 0 where there is none."""
        return int(self.at.partition("@")[2] or 0)


class PromptsTab:
    """Components and events of the tab. Made inside the tab that is open."""

    def __init__(
        self, settings: Settings, stores: Stores, models: Models, releases: Releases, evaluations: Evaluations
    ) -> None:
        self._settings = settings
        self._stores = stores
        self._evaluations = evaluations
        self._shelf = Shelf(stores.prompts, stores.workspace.prompts)
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
                self._lab = LabTab(settings, stores, models, releases, evaluations)
        self._limit = gr.State(STEP)

    def _build_library(self) -> None:
        with gr.Row(elem_id="prompts", equal_height=True):
            with gr.Column(elem_id="prompt-names", min_width=0, scale=0):
                self._new = gr.Button("New prompt", size="sm", elem_id="prompt-begin-new")
                self._entries = _html("prompt-entries")
            with gr.Column(elem_id="prompt-line", min_width=0, scale=0):
                self._filter = gr.Textbox(
                    show_label=False,
                    container=False,
                    placeholder="Filter versions",
                    max_lines=1,
                    elem_id="prompt-filter",
                    html_attributes=gr.InputHTMLAttributes(spellcheck=False),
                )
                self._line = _html("prompt-points")
            with gr.Column(elem_id="prompt-detail", min_width=0, scale=1):
                self._bar = _html("prompt-bar")
                with gr.Column(elem_id="prompt-view", min_width=0) as self._view:
                    self._build_view()
                self._editor = Editor(self._shelf)

    def _build_view(self) -> None:
        self._head = _html("prompt-head", note("Choose a prompt.", "rs-pick"))
        with gr.Row(elem_id="prompt-actions", elem_classes="rs-actions"):
            self._edit = gr.Button("Duplicate and edit", size="sm", variant="primary", elem_id="prompt-edit")
            self._to_production = gr.Button("Move production here", size="sm", elem_id="prompt-to-production")
            self._to_label = gr.Button("Move a label…", size="sm", elem_id="prompt-to-label")
        with gr.Column(elem_id="prompt-move", visible=False, min_width=0) as self._form:
            self._notice = _html("prompt-move-told")
            with gr.Row(elem_id="prompt-move-row"):
                self._label = gr.Dropdown(
                    label="Label", allow_custom_value=True, elem_id="prompt-label", min_width=140
                )
                self._reason = gr.Textbox(
                    label="Why", max_lines=1, max_length=2000, elem_id="prompt-reason", scale=2
                )
            with gr.Row(elem_classes="rs-actions"):
                self._move = gr.Button("Move", size="sm", variant="primary", elem_id="prompt-move-it")
                self._remove = gr.Button("Take the label away", size="sm", elem_id="prompt-remove-it")
                self._cancel = gr.Button("Cancel", size="sm", elem_id="prompt-move-cancel")
        with gr.Tabs(elem_id="prompt-panes") as self._panes:
            self._tabs, self._bodies = {}, {}
            for pane, title in PANES.items():
                with gr.Tab(title, id=pane) as self._tabs[pane]:
                    if pane == "compare":
                        self._other = gr.Dropdown(
                            label="Compare with", allow_custom_value=True, elem_id="prompt-other", interactive=True
                        )
                    self._bodies[pane] = _html(f"prompt-{pane}-pane")

    def wire(self, page: Any, tabs: Any, tab: Any, bridge: Bridge) -> None:
        """Connect the events.

        Args:
            page: The blocks.
            tabs: All tabs, to bring this one to the front.
            tab: This one, for what happens when it is opened.
            bridge: Where what was clicked is named.
        """
        self._all_tabs, clicked = tabs, bridge.value
        state = [self._at, self._pane, self._other, self._filter, self._limit]
        body = list(self._bodies.values())
        shown = [
            *(self._at, self._pane, self._address, self._entries, self._line, self._limit, self._filter),
            *(self._head, self._edit, self._to_production, self._to_label, self._form, self._panes, self._other),
            *body,
        ]
        form = [self._form, self._notice, self._label, self._reason, self._move, self._remove]
        self._editor.wire(page, clicked, self._view, self._bar, self._saved, shown)
        # One at a time, as they were asked for: what was looked at before must not come last.
        look: dict[str, Any] = {
            "inputs": state,
            "outputs": [self._address, self._other, *body],
            "concurrency_id": "prompt-pane",
            "concurrency_limit": 1,
            **QUIET,
        }
        opened = tab.select(self.opened, state, shown, **QUIET).then(self.look, **look)
        # Another tab may have written an address of its own in the meantime.
        opened.then(None, self._address, None, js=ADDRESSED, **QUIET)
        bridge.links["prompts"].click(self.linked, None, [tabs, *shown], **QUIET)
        self._address.change(None, self._address, None, js=ADDRESSED, **QUIET)
        for button, choose in (
            (self._choose, self.choose),
            (self._open, self.choose),
            (self._choose_version, self.choose_version),
        ):
            button.click(choose, [clicked, *state], shown, js=BRIDGED, **QUIET).then(self.look, **look)
        self._more.click(self.more, state, [self._line, self._limit], **QUIET)
        # Gradio's event of an input misses what is pasted and what is taken out.
        self._filter.change(self.filtered, state, [self._line, self._limit], trigger_mode="always_last", **QUIET)
        for pane, tab_of_pane in self._tabs.items():
            turned = tab_of_pane.select(None, None, self._pane, js=f"() => {json.dumps(pane)}", **QUIET)
            turned.then(self.look, **look)
        self._other.input(self.look, **look)
        self._edit.click(self._editor.begin, [self._at, *self._editor.draft], self._editor.outputs, **QUIET)
        self._new.click(self._editor.begin_new, self._editor.draft, self._editor.outputs, **QUIET)
        self._to_production.click(self._ask(PRODUCTION), self._at, form, **QUIET)
        self._to_label.click(self._ask("staging"), self._at, form, **QUIET)
        self._label.change(self.explain, [self._at, self._label], form, **QUIET)
        self._cancel.click(self.cancel, None, self._form, **QUIET)
        self._lab.wire(page, tabs, self._lab_tab, bridge)
        moving = [self._label, self._reason, *state]
        self._move.click(self.move, moving, shown, **QUIET).then(self.look, **look)
        self._remove.click(self.remove, moving, shown, **QUIET).then(self.look, **look)

    @telling
    def opened(self, *state: Any) -> Updates:
        """Show what was looked at last, or what the chat runs."""
        shown = Shown(*state)
        return self._show(shown if shown.at else self._first())

    @telling
    def linked(self, request: gr.Request) -> Any:
        """Show what the address of the page names."""
        query = request.query_params
        if query.get("tab") != "prompts":
            return gr.skip()
        shown = self._first()
        try:
            if query.get("prompt"):
                shown = Shown(self._shelf.load(query["prompt"]).label)
        except RagsmithError as error:
            warn(error)
        pane = query.get("pane", "template")
        named = Shown(shown.at, pane if pane in PANES else "template", query.get("with", ""))
        return {self._all_tabs: gr.Tabs(selected="prompts"), **self._turn_to(named)}

    @telling
    def choose(self, reference: str, *state: Any) -> Updates:
        """Show the newest version of a prompt, or the one that is named."""
        before = Shown(*state)
        if "@" not in reference:
            reference = f"{reference}@{self._shelf.versions(reference)[0]}"
        prompt = self._shelf.load(reference)
        text = before.text if prompt.name == before.name else ""
        return {**self._show(Shown(prompt.label, text=text)), self._filter: text}

    @telling
    def choose_version(self, version: str, *state: Any) -> Updates:
        """Show another version."""
        before = Shown(*state)
        return self._show(Shown(f"{before.name}@{version}", text=before.text, limit=before.limit))

    @telling
    def more(self, *state: Any) -> Updates:
        """Show more of the time line."""
        before = Shown(*state)
        limit = before.limit + STEP
        return {self._line: self._line_of(Shown(before.at, text=before.text, limit=limit)), self._limit: limit}

    @telling
    def filtered(self, *state: Any) -> Updates:
        """Show the versions that fit."""
        before = Shown(*state)
        return {self._line: self._line_of(Shown(before.at, text=before.text)), self._limit: STEP}

    @telling
    def look(self, *state: Any) -> Any:
        """Fill the pane that is open, with what is looked at by now."""
        shown = Shown(*state)
        return self._body(shown) if shown.at else gr.skip()

    def _ask(self, label: str) -> Callable[[str], Updates]:
        @telling
        def ask(at: str) -> Updates:
            shown = Shown(at)
            if not at:
                return {self._form: gr.Column(visible=False)}
            return {
                self._form: gr.Column(visible=True),
                self._label: gr.Dropdown(self._shelf.choices(shown.name), value=label),
                self._reason: "",
                **self._explained(shown, label),
            }

        return ask

    @telling
    def explain(self, at: str, label: str | None) -> Updates:
        """Say what moving a label changes."""
        return self._explained(Shown(at), (label or "").strip())

    @telling
    def cancel(self) -> Any:
        """Move nothing."""
        return gr.Column(visible=False)

    @telling
    def move(self, label: str | None, reason: str | None, *state: Any) -> Updates:
        """Let a label point to the version that is shown."""
        shown = Shown(*state)
        return self._moved(shown, (label or "").strip(), shown.version, reason)

    @telling
    def remove(self, label: str | None, reason: str | None, *state: Any) -> Updates:
        """Take a label away."""
        return self._moved(Shown(*state), (label or "").strip(), None, reason)

    def _moved(self, shown: Shown, label: str, version: int | None, reason: str | None) -> Updates:
        with prompt_errors():
            self._stores.prompts.move(shown.name, label, version, by=login_name(), message=(reason or "").strip())
        gr.Info(f"{label} → {shown.at}" if version else f"{label} was taken away from {shown.name}.")
        return self._show(shown)

    def _explained(self, shown: Shown, label: str) -> Updates:
        now = self._shelf.labels(shown.name).get(label)
        set_by_hand = any(move.label == label for move in self._stores.prompts.moves(shown.name))
        here = now == shown.version
        where = f"points to v{now}" if now else "points nowhere yet"
        chat = self._settings.prompt.partition("@")
        runs = label == PRODUCTION and chat[0] == shown.name and chat[2] in ("", PRODUCTION)
        text = f"{label or 'A label'} {where}"
        text += ": it is here already." if here else f"; it moves to v{shown.version}."
        if runs and not here:
            text += " The chat answers with it from its next question on."
        return {
            self._notice: note(text, "rs-warn" if runs and not here else "rs-note"),
            self._move: gr.Button(f"Move {label} to v{shown.version}", interactive=bool(label) and not here),
            self._remove: gr.Button(interactive=bool(now) and set_by_hand),
        }

    def _saved(self, label: str) -> Updates:
        return {**self._turn_to(Shown(label)), self._filter: ""}

    def _first(self) -> Shown:
        """The version that the chat runs, else the first one there is."""
        try:
            return Shown(self._shelf.load(self._settings.prompt).label)
        except PromptError:
            for entry in self._shelf.entries():
                if not entry.error:
                    return Shown(f"{entry.name}@{entry.newest}")
            raise

    def _turn_to(self, shown: Shown) -> Updates:
        return {
            **self._show(shown),
            self._pane: shown.pane,
            self._panes: gr.Tabs(selected=shown.pane),
            **self._body(shown),
        }

    def _show(self, shown: Shown) -> Updates:
        """All but the pane: a person may turn to another one before this is seen."""
        prompt = self._shelf.load(shown.at)
        labels = [label for label, version in self._shelf.labels(shown.name).items() if version == shown.version]
        here = PRODUCTION in labels
        return {
            self._at: shown.at,
            self._other: gr.Dropdown(value=shown.other or None),
            self._limit: shown.limit,
            self._entries: view.entries_html(self._shelf.entries(), shown.name),
            self._line: self._line_of(shown),
            self._head: view.head_html(prompt, labels, ships=shown.version in self._shelf.ships(shown.name)),
            self._to_production: gr.Button(
                "In production" if here else "Move production here", interactive=not here
            ),
            self._form: gr.Column(visible=False),
        }

    def _line_of(self, shown: Shown) -> str:
        return view.line_html(self._shelf.line(shown.name, shown.text, shown.limit), shown.version)

    def _body(self, shown: Shown) -> Updates:
        """The pane that is open, and the address of it."""
        query = {"tab": "prompts", "prompt": shown.at, "pane": shown.pane}
        updates: Updates = {}
        if shown.pane == "compare":
            others = self._others(shown)
            other = shown.other if shown.other != shown.at else ""
            other = other or self._beside(shown, [reference for _, reference in others])
            query["with"] = other
            updates[self._other] = gr.Dropdown(others, value=other or None)
            html = self._compared(shown.at, other)
        else:
            html = self._pane_html(shown)
        return updates | {self._bodies[shown.pane]: html, self._address: urlencode(query, safe="@")}

    def _pane_html(self, shown: Shown) -> str:
        engine = self._stores.engine
        if shown.pane == "metrics":
            scores = standings_of(self._evaluations.runs, shown.name)
            return view.use_html(use_of(engine, shown.name), scores, shown.name, shown.version)
        if shown.pane == "used":
            return view.used_html(traces_of(engine, shown.at, USED), shown.at)
        if shown.pane == "history":
            with prompt_errors():
                return view.moves_html(self._stores.prompts.moves(shown.name), shown.name)
        prompt = self._shelf.load(shown.at)
        if shown.pane == "settings":
            return view.settings_html(prompt)
        return view.template_html(prompt, self._shelf.exports(shown.at))

    def _others(self, shown: Shown) -> list[tuple[str, str]]:
        """What a version can be compared with: label and reference."""
        at: dict[int, list[str]] = {}
        for label, version in self._shelf.labels(shown.name).items():
            at.setdefault(version, []).append(label)
        return [
            (" · ".join((f"{shown.name}@{version}", *at.get(version, ()))), f"{shown.name}@{version}")
            for version in self._shelf.versions(shown.name)
            if version != shown.version
        ]

    def _beside(self, shown: Shown, others: list[str]) -> str:
        """The version before this one, else the oldest other one."""
        earlier = [other for other in others if Shown(other).version < shown.version]
        return earlier[0] if earlier else (others[-1] if others else "")

    def _compared(self, at: str, other: str) -> str:
        if not other:
            return note("There is one version: nothing to compare it with yet.")
        old, new = self._shelf.load(other), self._shelf.load(at)
        return view.changes_html(self._shelf.changes(old, new), old.label, new.label)


def _html(name: str, html: str = "") -> Any:
    return gr.HTML(html, elem_id=name, js_on_load=None, apply_default_css=False)
