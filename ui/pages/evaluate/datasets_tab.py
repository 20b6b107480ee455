"""The datasets of the Evaluate tab: list, import with a preview, edit cases, accept or reject candidates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import gradio as gr

from rag.errors import DatasetError, RagsmithError
from rag.tracing.figures import counted
from ui.app.login_name import login_name
from ui.pages.chat.chat_layout import Bridge
from ui.pages.evaluate import cases_view as view
from ui.pages.html_component import html_component
from ui.pages.page_events import BRIDGED, QUIET, addressed, in_thread, show_errors, show_info, warn
from ui.pages.safe_markup import note

if TYPE_CHECKING:
    from rag.evaluation.candidates import CandidateStore
    from rag.evaluation.case_files import Preview
    from rag.evaluation.cases import Case
    from rag.evaluation.dataset_store import DatasetStore
    from rag.settings import Settings
    from ui.app.models import Models
    from ui.app.stores import Stores

Updates = dict[Any, Any]

TAB = "datasets"
ROWS = 50
SAVED = "saved"
"""The dataset that a click on an answer adds it to."""
PICK = "Choose a dataset."


class CasesTab:
    """Components and events of the datasets, made inside the blocks that are open."""

    def __init__(self, settings: Settings, stores: Stores, models: Models, datasets: DatasetStore) -> None:
        self._settings = settings
        self._stores = stores
        self._models = models
        self._datasets = datasets
        with gr.Row(elem_id="datasets", equal_height=True):
            with gr.Column(elem_id="datasets-left", min_width=0, scale=0):
                with gr.Accordion("Import a file", open=False, elem_id="import-cases"):
                    self._name = gr.Textbox(label="Into dataset", max_lines=1, elem_id="import-name")
                    self._upload = gr.UploadButton(
                        "Choose a file (JSONL, JSON, CSV, TSV)",
                        size="sm",
                        elem_id="import-file",
                        file_types=[".jsonl", ".json", ".csv", ".tsv"],
                    )
                    self._preview = html_component("import-preview")
                    self._save = gr.Button(
                        "Import", size="sm", variant="primary", elem_id="import-save", visible=False
                    )
                with gr.Accordion("Propose cases", open=False, elem_id="propose"):
                    self._corpus = gr.Dropdown(label="About corpus", elem_id="propose-corpus", interactive=True)
                    self._count = gr.Number(label="Number of cases", value=10, minimum=1, maximum=200, precision=0)
                    self._propose = gr.Button("Generate questions", size="sm", elem_id="propose-start")
                self._list = html_component("dataset-list")
                self._archive = gr.Button("Archive this dataset", size="sm", elem_id="dataset-archive")
            with gr.Column(elem_id="datasets-main", min_width=0, scale=1):
                self._cases = html_component("case-list", note(PICK, "rs-pick"))
                with gr.Row(elem_id="case-pager", visible=False) as self._pager:
                    self._back = gr.Button("‹ Previous", size="sm", elem_id="case-back")
                    self._on = gr.Button("Next ›", size="sm", elem_id="case-on")
            with gr.Column(elem_id="datasets-case", min_width=0, scale=0):
                html_component(html=note("Case", "rs-head"))
                self._into = gr.Textbox(label="Dataset", max_lines=1, elem_id="case-dataset")
                self._question = gr.Textbox(label="Question", lines=2, elem_id="case-question")
                self._answers = gr.Textbox(label="Right answers, one per line", lines=2, elem_id="case-answers")
                self._sources = gr.Textbox(label="Expected sources, one per line", lines=2, elem_id="case-sources")
                self._refuse = gr.Checkbox(label="Must be refused", elem_id="case-refuse")
                self._tags = gr.Textbox(label="Tags, separated by commas", max_lines=1, elem_id="case-tags")
                self._notes = gr.Textbox(label="Notes", lines=1, elem_id="case-notes")
                with gr.Row(elem_id="case-actions"):
                    self._keep = gr.Button("Save case", size="sm", variant="primary", elem_id="case-save")
                    self._new = gr.Button("New", size="sm", elem_id="case-new")
                    self._remove = gr.Button("Remove", size="sm", variant="stop", elem_id="case-remove")
        with gr.Column(elem_classes="rs-bridge"):
            self._open_dataset = gr.Button(elem_id="do-open-dataset")
            self._open_case = gr.Button(elem_id="do-open-case")
            self._accept = gr.Button(elem_id="do-accept-case")
            self._reject = gr.Button(elem_id="do-reject-case")
            self._address = gr.Textbox()
        self._chosen = gr.State("")
        self._start = gr.State(0)
        # The id of the case in the form; an edit keeps it, and the turns before the question.
        self._case = gr.State("")
        self._file = gr.State("")

    @property
    def _form(self) -> list[Any]:
        return [
            self._into,
            self._question,
            self._answers,
            self._sources,
            self._refuse,
            self._tags,
            self._notes,
            self._case,
        ]

    def wire(self, page: Any, tabs: Any, inner: Any, tab: Any, bridge: Bridge) -> None:
        """Connect the events.

        Args:
            page: The blocks.
            tabs, inner: All tabs of the page, and those of Evaluate, to bring this one to the front.
            tab: This one.
            bridge: Names what was clicked.
        """
        self._tabs, self._inner = tabs, inner
        self._address.change(None, self._address, None, js=addressed(TAB), **QUIET)
        listed = [self._list, self._corpus]
        paged = [self._cases, self._pager, self._back, self._on, self._chosen, self._start, self._address]
        shown = [*listed, *paged]
        form = self._form
        tab.select(self.listing, self._chosen, listed, **QUIET)
        self._open_dataset.click(self.open, bridge.value, [*shown, *form], js=BRIDGED, **QUIET)
        self._archive.click(self.archive, self._chosen, [*shown, *form], **QUIET)
        self._back.click(self.back, [self._chosen, self._start], shown, **QUIET)
        self._on.click(self.on, [self._chosen, self._start], shown, **QUIET)
        self._open_case.click(self.edit, [bridge.value, self._chosen], form, js=BRIDGED, **QUIET)
        self._new.click(self.blank, self._chosen, form, **QUIET)
        self._keep.click(self.keep, form, [*shown, *form], **QUIET)
        self._remove.click(self.remove, [self._chosen, self._case], [*shown, *form], **QUIET)
        self._upload.upload(
            self.preview, self._upload, [self._preview, self._save, self._file, self._name], **QUIET
        )
        self._save.click(self.save, [self._name, self._file], [*shown, self._preview, self._save], **QUIET)
        self._propose.click(self.propose, [self._chosen, self._corpus, self._count], shown, **QUIET)
        self._accept.click(self.accept, [bridge.value, self._chosen, self._start], shown, js=BRIDGED, **QUIET)
        self._reject.click(self.reject, [bridge.value, self._chosen, self._start], shown, js=BRIDGED, **QUIET)
        bridge.links[TAB].click(self.linked, None, [tabs, inner, *shown, *form], **QUIET)
        bridge.case_of_trace.click(self.case_of_trace, bridge.value, None, js=BRIDGED, **QUIET)

    @property
    def _candidates(self) -> CandidateStore:
        from rag.evaluation.candidates import CandidateStore

        return CandidateStore(self._stores.engine)

    @show_errors
    def listing(self, chosen: str) -> Updates:
        """List the datasets."""
        return self._listed(chosen)

    def _listed(self, chosen: str) -> Updates:
        return {
            self._list: view.list_html(self._datasets.list(), chosen),
            self._corpus: gr.Dropdown(choices=self._stores.corpus_names(), value=self._settings.corpus),
        }

    @show_errors
    def open(self, name: str) -> Updates:
        """Show a dataset of the list."""
        return self._opened(name)

    @show_errors
    def linked(self, request: gr.Request) -> Any:
        """Show the dataset that the address of the page names."""
        if request.query_params.get("tab") != TAB:
            return gr.skip()
        front: Updates = {self._tabs: gr.Tabs(selected="evaluate"), self._inner: gr.Tabs(selected=TAB)}
        front |= self._listed("")
        name = request.query_params.get("dataset", "")
        try:
            return front | self._opened(self._datasets.resolve(name).name) if name else front
        except RagsmithError as error:
            warn(error)
            return front

    @show_errors
    def archive(self, chosen: str) -> Updates:
        """Archive the dataset that is open."""
        from rag.evaluation.run_store import RunStore
        from ui.app.archiving import archive_dataset

        if not chosen:
            raise DatasetError("No dataset is open.", fix="Choose one in the list.")
        archive_dataset(self._stores.dataset_archive, RunStore(self._stores.engine), chosen)
        show_info(f"Archived {chosen}; `ragsmith datasets restore {chosen}` brings it back.")
        return self._opened("")

    @show_errors
    def back(self, chosen: str, start: int) -> Updates:
        """Show the previous page."""
        return self._shown(chosen, max(start - ROWS, 0))

    @show_errors
    def on(self, chosen: str, start: int) -> Updates:
        """Show the next page."""
        return self._shown(chosen, start + ROWS)

    @show_errors
    def edit(self, case_id: str, chosen: str) -> Updates:
        """Fill the form with a case."""
        case = self._datasets.find(self._datasets.resolve(chosen), case_id)
        return {
            self._into: chosen,
            self._question: case.question,
            self._answers: "\n".join(case.answers),
            self._sources: "\n".join(case.sources),
            self._refuse: case.must_refuse,
            self._tags: ", ".join(case.tags),
            self._notes: case.notes,
            self._case: case.id,
        }

    @show_errors
    def blank(self, chosen: str) -> Updates:
        """Empty the form."""
        return self._blank(chosen)

    @show_errors
    def keep(
        self,
        into: str,
        question: str,
        answers: str,
        sources: str,
        refuse: bool,
        tags: str,
        notes: str,
        case_id: str,
    ) -> Updates:
        """Save the case in the form as a new version of its dataset."""
        name = into.strip()
        stored = self._stored(name, case_id)
        case = _case(
            {
                "id": case_id,
                "question": question,
                "history": stored.history if stored else (),
                "answers": _lines(answers),
                "sources": _lines(sources),
                "must_refuse": refuse,
                "tags": [tag.strip() for tag in tags.split(",") if tag.strip()],
                "notes": notes,
            }
        )
        added = self._datasets.add(name, [case], by=login_name(), message=f"case {case.id}")
        show_info(f"{added.version.label} has {counted(added.version.size, 'case')}.")
        return {**self._shown(name), **self._blank(name)}

    @show_errors
    def remove(self, chosen: str, case_id: str) -> Updates:
        """Remove the case in the form from its dataset; earlier versions keep it."""
        if not case_id:
            raise DatasetError("No case is open.", fix="Choose one in the list.")
        version = self._datasets.remove(chosen, [case_id], by=login_name(), message=f"without case {case_id}")
        show_info(f"{version.label} has {counted(version.size, 'case')}.")
        return {**self._shown(chosen), **self._blank(chosen)}

    @show_errors
    def preview(self, file: str | None) -> Updates:
        """Show what a file would add; nothing is saved."""
        if not file:
            raise DatasetError("The upload must have a file.", fix="Choose it again.")
        found = self._read(file)
        return {
            self._preview: view.preview_html(found),
            self._save: gr.Button(f"Import {counted(len(found.cases), 'case')}", visible=bool(found.cases)),
            self._file: file,
            self._name: gr.skip() if not found.cases else gr.Textbox(placeholder=Path(file).stem.lower()),
        }

    @show_errors
    def save(self, name: str, file: str) -> Updates:
        """Save the valid rows of the file as the next version."""
        wanted = name.strip()
        if not wanted:
            raise DatasetError("The dataset must have a name.", fix="Enter one above the file.")
        found = self._read(file)
        version = self._datasets.save(
            wanted, found.cases, by=login_name(), message=f"imported from {Path(file).name}"
        )
        show_info(f"{version.label} has {counted(version.size, 'case')}.")
        return {**self._shown(wanted), self._preview: "", self._save: gr.Button(visible=False)}

    async def propose(self, chosen: str, corpus: str, count: float) -> Any:
        """Generate questions as candidates, to be accepted or rejected."""
        try:
            name = chosen or "proposed"
            new = await in_thread(self._proposed, name, corpus, int(count))
            show_info(f"{counted(new, 'new candidate')} for {name}.")
            return await in_thread(self._shown, name)
        except Exception as error:  # noqa: BLE001 - shown as one sentence
            warn(error)
            return gr.skip()

    @show_errors
    def accept(self, case_id: str, chosen: str, start: int) -> Updates:
        """Add a candidate to the dataset."""
        self._candidates.accept(chosen, [case_id], by=login_name())
        return self._shown(chosen, start)

    @show_errors
    def reject(self, case_id: str, chosen: str, start: int) -> Updates:
        """Reject a candidate."""
        self._candidates.reject(chosen, [case_id])
        return self._shown(chosen, start)

    @show_errors
    def case_of_trace(self, trace_id: str) -> None:
        """Add an answered question as a case, with the sources that its answer cites."""
        from rag.evaluation.traced import case_of_trace

        trace = self._stores.traces.get(trace_id)
        case = case_of_trace(trace, must_refuse=trace.status == "abstained")
        added = self._datasets.add(SAVED, [case], by=login_name(), message=f"from trace {trace.id[:8]}")
        show_info(f"Added to {added.version.label}. Enter the right answer under Evaluate › Datasets › {SAVED}.")

    def _proposed(self, name: str, corpus: str, count: int) -> int:
        from ui.app.proposing import propose_cases, question_model

        return propose_cases(self._stores, question_model(self._models, self._settings), name, corpus, count)

    def _read(self, file: str) -> Preview:
        from rag.evaluation.case_files import read_cases

        return read_cases(Path(file))

    def _stored(self, name: str, case_id: str) -> Case | None:
        newest = self._datasets.newest(name)
        if not case_id or newest is None:
            return None
        try:
            return self._datasets.find(newest, case_id)
        except DatasetError:
            # Another person has removed it: saving the form adds it again.
            return None

    def _opened(self, name: str) -> Updates:
        return {**self._shown(name), **self._blank(name)}

    def _blank(self, name: str) -> Updates:
        empty = dict.fromkeys(self._form, "")
        return {**empty, self._into: name, self._refuse: False}

    def _shown(self, name: str, start: int = 0) -> Updates:
        newest = self._datasets.newest(name)
        waiting = self._candidates.waiting(name)
        cases = tuple(self._datasets.cases(newest, start, ROWS)) if newest else ()
        html = view.cases_html(newest, cases, start, waiting) if newest else view.candidates_html(waiting)
        size = newest.size if newest else 0
        return {
            **self._listed(name),
            self._cases: html or note(PICK, "rs-pick"),
            self._pager: gr.Row(visible=size > ROWS),
            self._back: gr.Button(interactive=start > 0),
            self._on: gr.Button(interactive=start + len(cases) < size),
            self._chosen: name,
            self._start: start,
            self._address: urlencode({"tab": TAB, "dataset": name}) if newest else "",
        }


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _case(values: dict[str, Any]) -> Case:
    """Return the case that a form describes.

    Raises:
        DatasetError: The values are not a valid case.
    """
    from pydantic import ValidationError

    from rag.evaluation.cases import Case, make_id, why

    values["id"] = values["id"] or make_id(values["question"], values["history"])
    try:
        return Case.model_validate(values)
    except ValidationError as error:
        raise DatasetError(f"The case is not complete: {why(error)}.", fix="Complete the form.") from error
