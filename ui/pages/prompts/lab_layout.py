"""The components of the lab and their layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import gradio as gr

from rag.settings import SearchMode
from ui.pages.html_component import html_component
from ui.pages.prompts.lab_columns import LETTERS, LONGEST_NAME, MORE_LABEL, PASSAGES_LABEL, Column
from ui.pages.prompts.lab_drafts import DraftParts, build_draft
from ui.pages.prompts.lab_playground import OriginalParts, build_original
from ui.pages.prompts.lab_view import ended_html, passages_html

FIELDS = 5
"""Variables that have fields of their own; where there are more, one box takes all of them as JSON."""
BEGUN = 2
"""Columns of a new lab."""
DEFAULT = ("Default", "")


@dataclass(frozen=True, slots=True)
class ColumnParts:
    """The components of one column; those from ``name`` to ``more`` and the draft's text are its fields."""

    box: Any
    copy: Any
    remove: Any
    name: Any
    prompt: Any
    model: Any
    passages: Any
    mode: Any
    more: Any
    draft: DraftParts
    settings: Any
    answer: Any
    sources: Any

    @property
    def fields(self) -> tuple[Any, ...]:
        """The components that a person fills in, in the order of ``ui.pages.prompts.lab_columns.Column``."""
        return (self.name, self.prompt, self.model, self.passages, self.mode, self.more, self.draft.text)

    def filled(self, column: Column) -> dict[Any, Any]:
        """Return the updates that fill in a column."""
        values = (
            column.name,
            column.prompt,
            column.model,
            column.passages,
            column.mode,
            column.more,
            column.draft,
        )
        return dict(zip(self.fields, values, strict=True)) | self.draft.shown(column)


@dataclass(frozen=True, slots=True)
class LabParts:
    """The components that the events of the lab read and write.

    Attributes:
        names: The variables of the value fields, in their order.
        kept: The values by variable, also of variables that are not shown now.
        answers: The finished answers of the columns.
        count: Number of columns that are shown.
        original: The answer of the trace that is open in the playground.
        address: The query string that brings the form back.
    """

    question: Any
    corpus: Any
    run: Any
    stop: Any
    fixed: Any
    add: Any
    dataset: Any
    evaluate: Any
    values_box: Any
    values: tuple[Any, ...]
    values_json: Any
    note: Any
    columns: tuple[ColumnParts, ...]
    original: OriginalParts
    names: Any
    kept: Any
    answers: Any
    count: Any
    address: Any


def build_lab() -> LabParts:
    """Build the lab inside the blocks that are open."""
    with gr.Column(elem_id="lab"):
        with gr.Row(elem_id="lab-ask"):
            question = gr.Textbox(
                label="Question for all columns", elem_id="lab-question", max_lines=4, scale=1, min_width=0
            )
            corpus = gr.Dropdown(
                label="Corpus",
                elem_id="lab-corpus",
                allow_custom_value=True,
                interactive=True,
                scale=0,
                min_width=150,
            )
            run = gr.Button("Run all", variant="primary", elem_id="lab-run", size="sm", scale=0, min_width=90)
            stop = gr.Button(
                "Stop", variant="stop", elem_id="lab-stop", size="sm", scale=0, min_width=90, visible=False
            )
        with gr.Row(elem_id="lab-options"):
            fixed = gr.Checkbox(
                label="Keep the retrieved passages fixed",
                elem_id="lab-fixed",
                container=False,
                scale=0,
                min_width=240,
            )
            add = gr.Button("Add column", elem_id="lab-add", size="sm", scale=0, min_width=100)
            dataset = gr.Dropdown(
                [("Choose a dataset", "")],
                value="",
                label="Dataset",
                show_label=False,
                container=False,
                elem_id="lab-dataset",
                interactive=True,
                scale=0,
                min_width=200,
            )
            evaluate = gr.Button("Run on this dataset", elem_id="lab-evaluate", size="sm", scale=0, min_width=150)
        note = html_component("lab-note")
        with gr.Row(elem_id="lab-values", visible=False) as values_box:
            values = tuple(
                gr.Textbox(lines=2, max_lines=8, visible=False, min_width=220, elem_id=f"lab-value-{number}")
                for number in range(1, FIELDS + 1)
            )
            values_json = gr.Textbox(
                label="Values of the variables, as a JSON object",
                lines=6,
                max_lines=16,
                visible=False,
                elem_id="lab-values-json",
            )
        with gr.Row(elem_id="lab-columns", equal_height=False):
            original = build_original()
            columns = tuple(_column(letter, shown=number < BEGUN) for number, letter in enumerate(LETTERS))
        with gr.Column(elem_classes="rs-bridge"):
            address = gr.Textbox(elem_id="lab-address")
    return LabParts(
        question,
        corpus,
        run,
        stop,
        fixed,
        add,
        dataset,
        evaluate,
        values_box,
        values,
        values_json,
        note,
        columns,
        original,
        names=gr.State(()),
        kept=gr.State({}),
        answers=gr.State((None,) * len(LETTERS)),
        count=gr.State(BEGUN),
        address=address,
    )


def _column(letter: str, *, shown: bool) -> ColumnParts:
    at = letter.lower()
    with gr.Column(elem_id=f"lab-{at}", elem_classes="rs-lab-column", visible=shown, min_width=0, scale=1) as box:
        with gr.Row(elem_classes="rs-lab-head"):
            name = gr.Textbox(
                label=f"Name of column {letter}",
                show_label=False,
                container=False,
                placeholder=f"Column {letter}",
                max_lines=1,
                max_length=LONGEST_NAME,
                elem_id=f"lab-{at}-name",
                scale=1,
                min_width=0,
            )
            copy = gr.Button("Copy to all", size="sm", scale=0, min_width=84, elem_id=f"lab-{at}-copy")
            remove = gr.Button("Remove", size="sm", scale=0, min_width=70, elem_id=f"lab-{at}-remove")
        with gr.Column(elem_classes="rs-lab-fields"):
            prompt = _choice("Prompt", f"lab-{at}-prompt", custom=True)
            draft = build_draft(at)
            model = _choice("Model", f"lab-{at}-model", custom=True)
            with gr.Row(elem_classes="rs-lab-pair"):
                passages = gr.Textbox(
                    label=PASSAGES_LABEL,
                    placeholder=DEFAULT[0],
                    max_lines=1,
                    elem_id=f"lab-{at}-passages",
                    min_width=0,
                )
                mode = _choice("Search", f"lab-{at}-mode", custom=False)
            more = gr.Textbox(
                label=MORE_LABEL,
                placeholder="decoding.temperature=0.7 answer.style=brief",
                lines=2,
                max_lines=6,
                elem_id=f"lab-{at}-more",
            )
        with gr.Accordion("Effective settings", open=False, elem_classes="rs-lab-fold"):
            settings = html_component(f"lab-{at}-settings")
        answer = html_component(f"lab-{at}-answer", ended_html(None))
        with gr.Accordion(
            "Retrieved passages", open=False, elem_classes="rs-lab-fold", elem_id=f"lab-{at}-passages-fold"
        ):
            sources = html_component(f"lab-{at}-sources", passages_html(None, 0.0, direct=False))
    return ColumnParts(
        box, copy, remove, name, prompt, model, passages, mode, more, draft, settings, answer, sources
    )


def _choice(label: str, elem_id: str, *, custom: bool) -> Any:
    return gr.Dropdown(
        [DEFAULT, *get_args(SearchMode)] if not custom else [DEFAULT],
        value="",
        label=label,
        elem_id=elem_id,
        allow_custom_value=custom,
        filterable=custom,
        interactive=True,
        min_width=0,
    )
