"""The unsaved prompt of a column of the lab: edited in place, run, and saved as a version."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from prompts.files import as_draft
from rag.errors import PromptError, prompt_errors
from ui.app.login_name import login_name
from ui.pages.html_component import html_component
from ui.pages.page_events import show_warning

if TYPE_CHECKING:
    from prompts import PromptLibrary, PromptTemplate
    from ui.pages.prompts.draft_review import DraftReview
    from ui.pages.prompts.lab_columns import Column

LONGEST = 200_000
"""Characters of a draft."""

# The session of the browser keeps the drafts, so that they survive a reload and a restart of the server; the
# address names the columns that have one.
KEEP = "(...texts) => sessionStorage.setItem('ragsmith.lab-drafts', JSON.stringify(texts))"
KEPT = "(..._) => [sessionStorage.getItem('ragsmith.lab-drafts') ?? '']"


@dataclass(frozen=True, slots=True)
class DraftParts:
    """The components of a draft.

    Attributes:
        begin: Begins a draft of the prompt of the column.
        writing: The draft while it is edited.
        reviewing: What it changes, and the reason, before it is saved.
    """

    begin: Any
    writing: Any
    text: Any
    review: Any
    discard: Any
    reviewing: Any
    changes: Any
    why: Any
    save: Any
    back: Any

    @property
    def outputs(self) -> tuple[Any, ...]:
        """The components that events update, but for the text."""
        return (self.begin, self.writing, self.reviewing, self.changes, self.why, self.save)

    def shown(self, column: Column) -> dict[Any, Any]:
        """Return the updates that show the draft of a column, or the button that begins one."""
        return {
            self.begin: gr.Button(visible=not column.draft),
            self.writing: gr.Column(visible=bool(column.draft)),
            self.reviewing: gr.Column(visible=False),
        }

    def reviewed(self, changes: str, label: str) -> dict[Any, Any]:
        """Return the updates that show what a draft changes, before it is saved as ``label``."""
        return {
            self.writing: gr.Column(visible=False),
            self.reviewing: gr.Column(visible=True),
            self.changes: changes,
            self.why: "",
            self.save: gr.Button(f"Save as {label}"),
        }


def build_draft(at: str) -> DraftParts:
    """Build the components inside the column that is open.

    Args:
        at: Letter of the column.
    """
    begin = gr.Button("Edit as a draft", size="sm", elem_id=f"lab-{at}-begin", elem_classes="rs-lab-begin")
    with gr.Column(visible=False, min_width=0, elem_classes="rs-lab-draft") as writing:
        text = gr.Textbox(
            label="Unsaved draft (YAML) · Ctrl+Enter runs it",
            lines=8,
            max_lines=16,
            max_length=LONGEST,
            elem_id=f"lab-{at}-draft",
            min_width=0,
        )
        with gr.Row(elem_classes="rs-lab-pair"):
            review = gr.Button("Save as version…", size="sm", elem_id=f"lab-{at}-review", min_width=0)
            discard = gr.Button("Discard draft", size="sm", elem_id=f"lab-{at}-discard", min_width=0)
    with gr.Column(visible=False, min_width=0, elem_classes="rs-lab-draft") as reviewing:
        changes = html_component(f"lab-{at}-changes")
        why = gr.Textbox(
            label="Reason (saved with the version)",
            max_lines=3,
            max_length=2000,
            elem_id=f"lab-{at}-why",
            min_width=0,
        )
        with gr.Row(elem_classes="rs-lab-pair"):
            save = gr.Button("Save", size="sm", variant="primary", elem_id=f"lab-{at}-save", min_width=0)
            back = gr.Button("Back to the draft", size="sm", elem_id=f"lab-{at}-back", min_width=0)
    return DraftParts(begin, writing, text, review, discard, reviewing, changes, why, save, back)


def begun(library: PromptLibrary, reference: str) -> tuple[str, str]:
    """Return the label of a version, and the text of a draft of it.

    Raises:
        PromptError: The prompt is missing or malformed.
    """
    with prompt_errors():
        prompt = library.load(reference)
    return prompt.label, as_draft(prompt)


def reviewed(review: DraftReview, column: Column) -> tuple[str, str]:
    """Return what a draft changes as HTML, and the label that it would be saved under; empty if nothing changed.

    Raises:
        PromptError: The draft cannot be saved.
    """
    draft = _parsed(review, column)
    try:
        changes = review.changes_html(draft, column.prompt, "")
    except PromptError:
        # The version that it was begun from was archived.
        changes = review.changes_html(draft, "", "")
    return changes, review.next_version(draft)


def saved(review: DraftReview, library: PromptLibrary, column: Column, why: str) -> PromptTemplate:
    """Save a draft as the next version.

    Raises:
        PromptError: It cannot be saved.
    """
    draft = _parsed(review, column)
    with prompt_errors():
        return library.save(draft, by=login_name(), message=why.strip())


def _parsed(review: DraftReview, column: Column) -> PromptTemplate:
    if not column.prompt.strip():
        raise PromptError("The draft must have a name.", fix="Write the name of a prompt above it.")
    return review.parse("", column.prompt.partition("@")[0].strip(), column.draft)


def restored(letters: str, kept: str | None, named: list[str]) -> dict[str, str]:
    """Return the drafts that the browser has kept, by the letters of their columns.

    Args:
        letters: Letters of all columns.
        kept: The drafts in order of the columns, as JSON.
        named: Letters of the columns that have a draft, as the address says.
    """
    try:
        texts = json.loads(kept or "[]")
    except ValueError:
        texts = []
    found = (
        dict(zip(letters, (str(text or "") for text in texts), strict=False)) if isinstance(texts, list) else {}
    )
    if missing := [letter for letter in named if letter in letters and not found.get(letter)]:
        show_warning(
            f"The draft of column {', '.join(missing)} is only in the browser tab in which it was written."
        )
    return {letter: found[letter] for letter in named if found.get(letter)}
