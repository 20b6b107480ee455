"""The form that moves a label of a prompt to the version that is shown, or removes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gradio as gr

from prompts import PRODUCTION
from rag.errors import PromptError
from ui.app.login_name import login_name
from ui.app.prompt_labels import PromptLabels
from ui.pages.html_component import html_component
from ui.pages.page_events import QUIET, show_errors, show_info
from ui.pages.prompts.prompt_listing import PromptListing
from ui.pages.prompts.prompt_selection import PromptSelection
from ui.pages.safe_markup import note

Updates = dict[Any, Any]


class LabelForm:
    """Components and events of the form, made inside the blocks that are open and hidden until it is asked for."""

    def __init__(self, labels: PromptLabels, listing: PromptListing) -> None:
        self._labels = labels
        self._listing = listing
        with gr.Column(elem_id="prompt-move", visible=False, min_width=0) as self.box:
            self._notice = html_component("prompt-move-notice")
            with gr.Row(elem_id="prompt-move-row"):
                self._label = gr.Dropdown(
                    label="Label", allow_custom_value=True, elem_id="prompt-label", min_width=140
                )
                self._reason = gr.Textbox(
                    label="Reason", max_lines=1, max_length=2000, elem_id="prompt-reason", scale=2
                )
            with gr.Row(elem_classes="rs-actions"):
                self._move = gr.Button("Move", size="sm", variant="primary", elem_id="prompt-move-it")
                self._remove = gr.Button("Remove label", size="sm", elem_id="prompt-remove-it")
                self._cancel = gr.Button("Cancel", size="sm", elem_id="prompt-move-cancel")

    def wire(
        self,
        openers: Sequence[tuple[Any, str]],
        state: list[Any],
        show: Callable[[PromptSelection], Updates],
        shown: list[Any],
    ) -> tuple[Any, Any]:
        """Connect the events.

        Args:
            openers: Buttons that open the form, each with the label that it suggests.
            state: The components that store the selection, the version first.
            show: Returns what the tab shows of a selection after a move.
            shown: The components that it updates.

        Returns:
            The events of a move and of a removal.
        """
        self._show = show
        at = state[0]
        form = [self.box, self._notice, self._label, self._reason, self._move, self._remove]
        for button, label in openers:
            button.click(partial(self.open, label), at, form, **QUIET)
        self._label.change(self.explain, [at, self._label], form, **QUIET)
        self._cancel.click(self.cancel, None, self.box, **QUIET)
        moving = [self._label, self._reason, *state]
        return (
            self._move.click(self.move, moving, shown, **QUIET),
            self._remove.click(self.remove, moving, shown, **QUIET),
        )

    @show_errors
    def open(self, label: str, at: str) -> Updates:
        """Open the form with a suggested label."""
        if not at:
            return {self.box: gr.Column(visible=False)}
        selection = PromptSelection(at)
        return {
            self.box: gr.Column(visible=True),
            self._label: gr.Dropdown(self._listing.choices(selection.name), value=label),
            self._reason: "",
            **self._explained(selection, label),
        }

    @show_errors
    def explain(self, at: str, label: str | None) -> Updates:
        """Describe what moving a label changes."""
        return self._explained(PromptSelection(at), (label or "").strip())

    @show_errors
    def cancel(self) -> Any:
        """Close the form."""
        return gr.Column(visible=False)

    @show_errors
    def move(self, label: str | None, reason: str | None, *state: Any) -> Updates:
        """Move a label to the version that is shown."""
        selection = PromptSelection.of(*state)
        return self._moved(selection, (label or "").strip(), selection.version, reason)

    @show_errors
    def remove(self, label: str | None, reason: str | None, *state: Any) -> Updates:
        """Remove a label."""
        return self._moved(PromptSelection.of(*state), (label or "").strip(), None, reason)

    def _moved(self, selection: PromptSelection, label: str, version: int | None, reason: str | None) -> Updates:
        self._labels.move(selection.name, label, version, by=login_name(), message=(reason or "").strip())
        show_info(f"{label} → {selection.at}" if version else f"{label} was removed from {selection.name}.")
        return self._show(selection)

    def _explained(self, selection: PromptSelection, label: str) -> Updates:
        now = self._listing.labels(selection.name).get(label)
        set_by_hand = any(move.label == label for move in self._labels.library.moves(selection.name))
        here = now == selection.version
        name, _, chat_label = self._labels.answer_prompt.partition("@")
        affects_chat = (
            label == PRODUCTION and name == selection.name and chat_label in ("", PRODUCTION) and not here
        )
        text = f"{label or 'A label'} {f'points to v{now}' if now else 'points nowhere yet'}"
        text += ": it is here already." if here else f"; it moves to v{selection.version}."
        if affects_chat:
            text += " The chat answers with it from its next question on."
        problem = self._problem(selection, label)
        return {
            self._notice: note(problem or text, "rs-warn" if affects_chat or problem else "rs-note"),
            self._move: gr.Button(
                f"Move {label} to v{selection.version}", interactive=bool(label) and not (here or problem)
            ),
            self._remove: gr.Button(interactive=bool(now) and set_by_hand),
        }

    def _problem(self, selection: PromptSelection, label: str) -> str:
        """Return why the label must not move to the version; empty if it may."""
        try:
            self._labels.check(selection.name, label, selection.version)
        except PromptError as error:
            return str(error)
        return ""
