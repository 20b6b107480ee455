"""The part Data of the tab Tune: look at a file, choose steps, see what they do, and store a version."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from pydantic import ValidationError

from finetune.prepared.data_versions import DataVersions
from finetune.prepared.exploration import Questions
from finetune.prepared.preparation_plan import CHAT_STEPS, PLAIN_STEPS, STEPS, Plan
from finetune.prepared.preparing_file import RawFile, explore_file, prepare_file, try_plan
from finetune.prepared.text_rendering import SEPARATOR
from prompts.validation import first_problem
from rag.errors import TuningError
from rag.settings import SMOLLM2
from rag.tracing.figures import counted
from ui.pages.html_component import html_component
from ui.pages.page_events import QUIET, show_errors, show_info
from ui.pages.safe_markup import note
from ui.pages.tune import data_view as view

if TYPE_CHECKING:
    from rag.workspace import Workspace

Updates = dict[Any, Any]

TYPES = [".csv", ".tsv", ".json", ".jsonl", ".parquet"]
FORMS = {"chat template": "chat", "plain text": "plain"}
HINT = "Choose a table of prompts and completions to see what is in it."


class DataPart:
    """Components and events of the part, made inside the blocks that are open."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._versions = DataVersions(workspace.data)
        with gr.Row(elem_classes="tune-part", equal_height=True):
            with gr.Column(elem_classes="tune-left", min_width=0, scale=0):
                self._upload = gr.UploadButton(
                    "Choose a file (CSV, TSV, JSON, JSONL, Parquet)",
                    size="sm",
                    file_types=TYPES,
                    elem_id="tune-file",
                )
                with gr.Accordion("Columns and base", open=False, elem_id="tune-columns"):
                    self._prompt = gr.Textbox(
                        label="Column of the prompts", placeholder="recognized", max_lines=1, value=""
                    )
                    self._completion = gr.Textbox(
                        label="Column of the completions", placeholder="recognized", max_lines=1, value=""
                    )
                    self._base = gr.Textbox(label="Base", value=SMOLLM2, max_lines=1, elem_id="tune-data-base")
                    self._max_tokens = gr.Number(
                        label="Maximum tokens of a row", value=1024, minimum=8, precision=0
                    )
                with gr.Accordion("Search", open=False, elem_id="tune-search"):
                    self._contains = gr.Textbox(label="Contains", max_lines=1, elem_id="tune-contains", value="")
                    self._regex = gr.Textbox(label="Regular expression", max_lines=1, value="")
                    self._group = gr.Textbox(label="Count by column", max_lines=1, value="")
                self._explore = gr.Button("Explore", size="sm", elem_id="tune-explore")
                html_component(html=note("Steps", "rs-head"))
                self._form = gr.Radio(
                    list(FORMS), value=next(iter(FORMS)), show_label=False, container=False, elem_id="tune-form"
                )
                self._steps = gr.CheckboxGroup(
                    view.step_choices("chat"), value=list(CHAT_STEPS), show_label=False, elem_id="tune-steps"
                )
                with gr.Column(visible=False, elem_id="tune-plain") as self._plain:
                    self._separator = gr.Textbox(
                        label="Separator", value=SEPARATOR.replace("\n", "\\n"), max_lines=1
                    )
                    self._end = gr.Textbox(label="End of a completion", max_lines=1, elem_id="tune-end", value="")
                self._system = gr.Textbox(label="System message", max_lines=3, value="")
                with gr.Row():
                    self._share = gr.Number(
                        label="Share for validation", value=0.1, minimum=0, maximum=0.9, step=0.05, min_width=80
                    )
                    self._seed = gr.Number(label="Seed", value=1, precision=0, min_width=80)
                self._preview = gr.Button("Preview the steps", size="sm", elem_id="tune-preview-steps")
                self._name = gr.Textbox(
                    label="Name", placeholder="synopses", max_lines=1, elem_id="tune-data-name", value=""
                )
                self._save = gr.Button("Save", size="sm", variant="primary", elem_id="tune-save")
            with gr.Column(elem_classes="tune-main", min_width=0, scale=1):
                self._prepared = html_component("tune-prepared")
                self._found = html_component("tune-found", note(HINT))
        self._file = gr.State("")

    @property
    def _read(self) -> list[Any]:
        return [self._file, self._prompt, self._completion]

    @property
    def _planned(self) -> list[Any]:
        return [
            *(self._form, self._steps, self._separator, self._end, self._system, self._share, self._seed),
            *(self._base, self._max_tokens),
        ]

    def wire(self, opened: Iterable[Any]) -> None:
        """Connect the events.

        Args:
            opened: Tabs that show the part when they are selected.
        """
        asked = [*self._read, self._contains, self._regex, self._group, self._base, self._max_tokens]
        shown = [self._prepared, self._found]
        for tab in opened:
            tab.select(self.versions, None, self._prepared, **QUIET)
        self._upload.upload(self.uploaded, self._upload, [self._file, self._name, self._prepared], **QUIET).then(
            self.explore, asked, shown, **QUIET
        )
        self._explore.click(self.explore, asked, shown, **QUIET)
        self._form.input(self.formed, self._form, [self._steps, self._plain], **QUIET)
        self._preview.click(self.preview, [*self._read, *self._planned], shown, **QUIET)
        self._save.click(self.save, [self._name, *self._read, *self._planned], shown, **QUIET)

    @show_errors
    def versions(self) -> str:
        """Show the prepared data."""
        return view.versions_html(self._versions.newest())

    @show_errors
    def uploaded(self, path: str) -> Updates:
        """Take the file, and propose its name for the data."""
        stem = "".join(sign if sign.isascii() and sign.isalnum() else "-" for sign in Path(path).stem.lower())
        return {self._file: path, self._name: stem.strip("-")[:40] or "data"}

    @show_errors
    def formed(self, form: str) -> Updates:
        """Offer the steps of a form."""
        kind = FORMS[form]
        steps = list(CHAT_STEPS if kind == "chat" else PLAIN_STEPS)
        return {
            self._steps: gr.CheckboxGroup(choices=view.step_choices(kind), value=steps),
            self._plain: gr.Column(visible=kind == "plain"),
        }

    @show_errors
    def explore(
        self, path: str, prompt: str, completion: str, contains: str, regex: str, group: str, *rest: Any
    ) -> Updates:
        """Show what is in the file."""
        base, max_tokens = rest
        questions = Questions(contains, regex, group.strip(), int(max_tokens or 1024))
        found = explore_file(_file(path, prompt, completion), questions, base.strip(), self._workspace.models)
        return {self._found: view.exploration_html(found, Path(path).name)}

    @show_errors
    def preview(self, path: str, prompt: str, completion: str, *planned: Any) -> Updates:
        """Show what the steps do, and store nothing."""
        file = _file(path, prompt, completion)
        found, prepared, split = try_plan(file, _plan(*planned), self._workspace.models)
        head = f"{counted(len(split.training), 'row')} + {len(split.validation):,} for validation, not saved yet"
        return {self._found: view.steps_html(head, len(found.examples), prepared.steps, found.table.unit)}

    @show_errors
    def save(self, name: str, path: str, prompt: str, completion: str, *planned: Any) -> Updates:
        """Store the version."""
        version = prepare_file(_file(path, prompt, completion), _plan(*planned), name.strip(), self._workspace)
        show_info(f"Saved as {version.label}. Train on it in the part Train.")
        return {
            self._prepared: view.versions_html(self._versions.newest(), version.name),
            self._found: view.version_html(version),
        }


def _file(path: str, prompt: str, completion: str) -> RawFile:
    if not path:
        raise TuningError("No file is chosen.", fix="Choose a file first.")
    return RawFile(Path(path), prompt.strip(), completion.strip())


def _plan(form: str, steps: list[str], separator: str, end: str, *rest: Any) -> Plan:
    system, share, seed, base, max_tokens = rest
    named = [step for step in STEPS if step in steps]
    if FORMS[form] == "plain" and end and "end" not in named:
        named.insert(named.index("space") if "space" in named else 0, "end")
    if not end and "end" in named:
        named.remove("end")
    values = {
        "steps": tuple(named),
        "separator": separator.replace("\\n", "\n"),
        "end": end.replace("\\n", "\n"),
        "system": system,
        "validation": share or 0,
        "seed": int(seed or 0),
        "base": base.strip(),
        "max_tokens": int(max_tokens or 1024),
    }
    try:
        return Plan.model_validate(values)
    except ValidationError as error:
        raise TuningError(f"The steps cannot be combined: {first_problem(error, Plan)}.") from error
