"""The form of the lab: the columns, the settings that apply to them, and the values of variables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import urlencode

import gradio as gr

from rag.errors import RagsmithError, SettingsError
from rag.evaluation.variants import parse_variant
from rag.settings import SearchMode
from rag.tracing.figures import counted
from rag.types import Answer, Ask
from ui.pages.page_events import show_errors, show_info, show_warning, warn
from ui.pages.prompts.lab_answers import LabQuestion
from ui.pages.prompts.lab_columns import (
    LETTERS,
    Column,
    ResolvedColumn,
    column_of,
    prompt_choices,
    resolve,
    source_of_passages,
    variant_of,
    write_column,
)
from ui.pages.prompts.lab_drafts import begun, restored, reviewed, saved
from ui.pages.prompts.lab_layout import BEGUN, DEFAULT, FIELDS, LabParts
from ui.pages.prompts.lab_playground import Playground, column_of_trace, open_playground
from ui.pages.prompts.lab_view import ended_html, note_html, passages_html, problem_html, settings_html

if TYPE_CHECKING:
    from rag.settings import Settings
    from rag.tracing.trace_store import Trace
    from ui.app.releases import Releases
    from ui.app.stores import Stores
    from ui.pages.prompts.draft_review import DraftReview

Given = dict[Any, Any]
Updates = dict[Any, Any]
Answers = tuple[Answer | None, ...]

TAB = "lab"
LONGEST_VALUES = 4_000
"""Characters of the values that an address has: servers refuse addresses above eight thousand bytes or so."""
NO_ANSWERS: Answers = (None,) * len(LETTERS)


@dataclass(frozen=True, slots=True)
class Form:
    """The contents of the form.

    Attributes:
        names: The variables that have fields now.
        values: The values of variables, also of those that have no field now.
        origin: Id of the trace that is open in the playground; empty without one.
    """

    question: str
    corpus: str
    fixed: bool
    columns: tuple[Column, ...]
    answers: Answers
    names: tuple[str, ...]
    values: Mapping[str, str]
    origin: str = ""

    def asked(self, replayed: Ask | None = None) -> LabQuestion:
        """Return the question to all columns; ``replayed`` is that of the trace in the playground."""
        return LabQuestion(self.question.strip(), self.corpus, self.values, self.fixed, replayed)

    def with_column(self, number: int, column: Column) -> Form:
        """Return the form with another column."""
        columns = (*self.columns[:number], column, *self.columns[number + 1 :])
        return replace(self, columns=columns)

    @property
    def address(self) -> str:
        """The query string that brings the form back, without malformed settings, long values and drafts."""
        pairs = [("tab", TAB), ("q", self.question), ("corpus", self.corpus), ("fixed", "1" if self.fixed else "")]
        pairs.append(("origin", self.origin))
        for letter, column in zip(LETTERS, self.columns, strict=False):
            try:
                pairs.append(("v", write_column(column, letter)))
            except SettingsError:
                pairs.append(("v", write_column(replace(column, passages="", more=""), letter)))
            pairs.append(("draft", letter if column.draft else ""))
        if sum(map(len, self.values.values())) <= LONGEST_VALUES:
            pairs += [("set", f"{name}={self.values[name]}") for name in self.names if self.values.get(name)]
        return urlencode([(name, value) for name, value in pairs if value])


class Showing:
    """The events that change the form without asking anything."""

    def __init__(
        self, settings: Settings, stores: Stores, releases: Releases, review: DraftReview, parts: LabParts
    ) -> None:
        self._settings = settings
        self._stores = stores
        self._releases = releases
        self._review = review
        self._parts = parts

    @show_errors
    def look(self, given: Given) -> Updates:
        """Show the settings that apply to the columns as they are filled in now."""
        return self.resolved(self.form(given))[0]

    @show_errors
    def add(self, given: Given) -> Any:
        """Add a column like the last one."""
        form = self.form(given)
        if len(form.columns) == len(LETTERS):
            return gr.skip()
        last = replace(form.columns[-1], name="")
        return self._show(replace(form, columns=(*form.columns, last)))

    @show_errors
    def remove(self, number: int, given: Given) -> Any:
        """Remove a column."""
        form = self.form(given)
        if len(form.columns) == 1:
            return gr.skip()
        columns = (*form.columns[:number], *form.columns[number + 1 :])
        answers = (*form.answers[:number], *form.answers[number + 1 :], None)
        return self._show(replace(form, columns=columns, answers=answers))

    @show_errors
    def copy(self, number: int, given: Given) -> Updates:
        """Copy a column to all others, which keep their names."""
        form = self.form(given)
        columns = tuple(replace(form.columns[number], name=column.name) for column in form.columns)
        return self._show(replace(form, columns=columns))

    @show_errors
    def begin_draft(self, number: int, given: Given) -> Updates:
        """Begin a draft of the prompt of a column."""
        form = self.form(given)
        column = form.columns[number]
        label, text = begun(self._stores.prompts, self._releases.resolve(variant_of(column)).prompt.label)
        return self._show(form.with_column(number, replace(column, prompt=label, draft=text)))

    @show_errors
    def discard_draft(self, number: int, given: Given) -> Updates:
        """Discard the draft of a column."""
        form = self.form(given)
        return self._show(form.with_column(number, replace(form.columns[number], draft="")))

    @show_errors
    def review_draft(self, number: int, given: Given) -> Any:
        """Show what the draft of a column changes, and ask for the reason."""
        column = self.form(given).columns[number]
        changes, label = reviewed(self._review, column)
        if not changes:
            show_info(f"Nothing was changed: this is {column.prompt}.")
            return gr.skip()
        return self._parts.columns[number].draft.reviewed(changes, label)

    @show_errors
    def save_draft(self, number: int, given: Given) -> Updates:
        """Save the draft of a column as the next version, which answers from now on."""
        form = self.form(given)
        column = form.columns[number]
        why = given[self._parts.columns[number].draft.why] or ""
        label = saved(self._review, self._stores.prompts, column, why).label
        show_info(f"Saved {label}.")
        form = form.with_column(number, replace(column, prompt=label, draft=""))
        return self._show(form) | self._choices(form)

    @show_errors
    def back_to_draft(self, number: int, given: Given) -> Updates:
        """Go back from the review to the draft."""
        return self._parts.columns[number].draft.shown(self.form(given).columns[number])

    @show_errors
    def open_trace(self, trace_id: str) -> Updates:
        """Open a trace in the playground."""
        found = open_playground(self._stores, trace_id)
        column, notes = column_of_trace(self._stores, self._releases, found.trace)
        form = Form(
            question=found.ask.question,
            corpus=found.ask.corpus,
            fixed=found.ask.hits is not None,
            columns=(column,),
            answers=NO_ANSWERS,
            names=(),
            values={},
            origin=found.trace.id,
        )
        for sentence in notes:
            show_warning(sentence)
        return self._opened(form, found)

    @show_errors
    def close_trace(self, given: Given) -> Updates:
        """Close the trace in the playground; the columns stay."""
        form = replace(self.form(given), origin="")
        return self._show(form) | self._parts.original.shown(None)

    def _opened(self, form: Form, found: Playground | None) -> Updates:
        asked = {self._parts.question: form.question, self._parts.fixed: form.fixed}
        original = self._parts.original.shown(found.trace if found else None)
        return asked | self._show(form) | self._choices(form) | original

    @show_errors
    def opened(self, given: Given) -> Updates:
        """Fill the choices when the lab is opened; what a person chooses meanwhile stays."""
        form, offered = self.form(given), self._offered()
        updates: Updates = {part: gr.Dropdown(choices=choices) for part, choices in offered.items()}
        corpus = self._parts.corpus
        if not form.corpus:
            updates[corpus] = gr.Dropdown(choices=offered[corpus], value=self._settings.corpus)
        return updates | self.resolved(form)[0]

    def linked(self, query: Any, kept: str | None) -> Updates:
        """Show the columns that the query of an address names, with the drafts that the browser has kept."""
        drafts = restored(LETTERS, kept, query.getlist("draft"))
        columns = [
            replace(self._read(text), draft=drafts.get(letter, ""))
            for letter, text in zip(LETTERS, query.getlist("v"), strict=False)
        ]
        found = self._found(query.get("origin", ""))
        form = Form(
            question=query.get("q", ""),
            corpus=query.get("corpus", ""),
            fixed=query.get("fixed", "") == "1",
            columns=tuple(columns) or (Column(),) * BEGUN,
            answers=NO_ANSWERS,
            names=(),
            values=dict(text.partition("=")[::2] for text in query.getlist("set")),
            origin=found.trace.id if found else "",
        )
        return self._opened(form, found)

    def _found(self, trace_id: str) -> Playground | None:
        try:
            return open_playground(self._stores, trace_id) if trace_id else None
        except RagsmithError as error:
            warn(error)
            return None

    def trace(self, trace_id: str) -> Trace:
        """Return a trace with its spans."""
        return self._stores.traces.get(trace_id)

    def replayed(self, form: Form) -> Playground | None:
        """Return the trace that is open in the playground; None without one.

        Raises:
            RagsmithError: It can no longer be asked.
        """
        return open_playground(self._stores, form.origin) if form.origin else None

    def _read(self, text: str) -> Column:
        try:
            return column_of(parse_variant(text))
        except SettingsError as error:
            warn(error)
            return Column()

    def form(self, given: Given) -> Form:
        """Read the form.

        Raises:
            SettingsError: The values of variables are not a JSON object.
        """
        parts = self._parts
        count = given[parts.count]
        columns = tuple(
            Column(*(given[field] or "" for field in column.fields)) for column in parts.columns[:count]
        )
        names = given[parts.names]
        return Form(
            question=given[parts.question] or "",
            corpus=given[parts.corpus] or "",
            fixed=bool(given[parts.fixed]),
            columns=columns,
            answers=given[parts.answers],
            names=names,
            values=given[parts.kept] | self._values(given, names),
            origin=given[parts.original.trace_id] or "",
        )

    def _values(self, given: Given, names: Sequence[str]) -> dict[str, str]:
        parts = self._parts
        if len(names) <= FIELDS:
            return {name: given[field] or "" for name, field in zip(names, parts.values, strict=False)}
        try:
            values = json.loads(given[parts.values_json] or "{}")
        except ValueError as error:
            raise SettingsError(f"The values must be JSON: {error}.", fix="Correct them.") from error
        if not isinstance(values, dict):
            raise SettingsError("The values must be a JSON object.", fix='Write {"NAME": "VALUE"}.')
        return {
            str(name): value if isinstance(value, str) else json.dumps(value) for name, value in values.items()
        }

    def _show(self, form: Form) -> Updates:
        """Update all columns."""
        parts, count = self._parts, len(form.columns)
        updates: Updates = {parts.count: count, parts.answers: form.answers}
        updates[parts.add] = gr.Button(interactive=count < len(LETTERS))
        settings, resolved = self.resolved(form)
        for number, column in enumerate(parts.columns):
            updates[column.box] = gr.Column(visible=number < count)
            updates[column.remove] = gr.Button(interactive=count > 1)
            if number < count:
                updates |= column.filled(form.columns[number])
                updates |= self.ended(number, form.answers[number], resolved[number])
        return updates | settings

    def resolved(self, form: Form) -> tuple[Updates, list[ResolvedColumn | None]]:
        """Resolve the columns: updates that show their settings, and the settings; None for an unusable column."""
        parts = self._parts
        updates: Updates = {parts.address: form.address, parts.kept: dict(form.values)}
        resolved: list[ResolvedColumn | None] = []
        for shown, column in zip(parts.columns, form.columns, strict=False):
            try:
                found = resolve(self._releases, column)
            except RagsmithError as error:
                resolved.append(None)
                updates[shown.settings] = problem_html(str(error))
            else:
                resolved.append(found)
                updates[shown.settings] = settings_html(found.settings, found.prompt.label)
        notes = note_html(self._notes(form, resolved))
        return updates | self._fields(form, resolved) | {parts.note: notes}, resolved

    def _fields(self, form: Form, columns: Sequence[ResolvedColumn | None]) -> Updates:
        """Show a field for each variable that a person fills; no update where they are the same."""
        parts = self._parts
        # The question has a field of its own, above the columns.
        free = (name for column in columns if column for name in column.free if name != "question")
        names = tuple(dict.fromkeys(free))
        if names == form.names:
            return {}
        many = len(names) > FIELDS
        values = {name: form.values.get(name, "") for name in names}
        updates: Updates = {parts.names: names, parts.values_box: gr.Row(visible=bool(names))}
        updates[parts.values_json] = gr.Textbox(json.dumps(values, indent=1, ensure_ascii=False), visible=many)
        for number, field in enumerate(parts.values):
            used = number < len(names) and not many
            name = names[number] if used else ""
            updates[field] = gr.Textbox(values.get(name, ""), label=name, visible=used)
        return updates

    def _notes(self, form: Form, columns: Sequence[ResolvedColumn | None]) -> list[str]:
        notes = [
            f"{LETTERS[number]}: {column.prompt.label} is sent as it is filled in here, without a search."
            for number, column in enumerate(columns)
            if column and column.free
        ]
        if form.origin and (found := self._found(form.origin)):
            notes += found.notes
            if form.fixed and found.ask.hits is not None:
                passages = counted(len(found.ask.hits), "passage")
                return [*notes, f"All columns read the {passages} of the original answer, without a search."]
        if form.fixed:
            try:
                number, first = source_of_passages(self._releases, form.columns)
            except RagsmithError as error:
                return [*notes, str(error)]
            known = {setting.name: setting.value for setting in first.settings}
            passages = counted(int(known["retrieval.k"]), "passage")
            notes.append(
                f"All columns read the passages that {LETTERS[number]} finds: search {known['retrieval.mode']}, "
                f"{passages}. The search settings of the other columns are ignored."
            )
        return notes

    def _choices(self, form: Form) -> Updates:
        """Update the choices with what is chosen, since only the last update of a component counts."""
        parts, hidden = self._parts, (Column(),) * (len(LETTERS) - len(form.columns))
        chosen: dict[Any, str] = {parts.corpus: form.corpus or self._settings.corpus, parts.dataset: ""}
        for shown, column in zip(parts.columns, (*form.columns, *hidden), strict=True):
            chosen |= {shown.prompt: column.prompt, shown.model: column.model, shown.mode: column.mode}
        return {
            part: gr.Dropdown(choices=choices, value=chosen[part]) for part, choices in self._offered().items()
        }

    def _offered(self) -> dict[Any, list[Any]]:
        """Return the choices of every list."""
        settings, stores, parts = self._settings, self._stores, self._parts
        prompts = [
            (f"{DEFAULT[0]} ({self._default_prompt()})", ""),
            *((reference, reference) for reference in prompt_choices(stores.prompts)),
        ]
        known = dict.fromkeys(("extractive", "smollm2", settings.model))
        models = [(f"{DEFAULT[0]} ({settings.model})", ""), *((model, model) for model in known)]
        modes = [
            (f"{DEFAULT[0]} ({settings.retrieval.mode})", ""),
            *((mode, mode) for mode in get_args(SearchMode)),
        ]
        offered: dict[Any, list[Any]] = {parts.corpus: stores.corpus_names(), parts.dataset: _datasets(stores)}
        for shown in parts.columns:
            offered |= {shown.prompt: prompts, shown.model: models, shown.mode: modes}
        return offered

    def _default_prompt(self) -> str:
        try:
            return self._releases.resolve().prompt.label
        except RagsmithError:
            # A missing prompt is reported in the columns, where another one can be chosen.
            return self._settings.answer_prompt

    def ended(
        self, number: int, answer: Answer | None, column: ResolvedColumn | None, compared: str = ""
    ) -> Updates:
        """Show a finished answer in its column, with its passages.

        Args:
            compared: HTML about its differences from the original answer.
        """
        parts = self._parts.columns[number]
        direct, min_support = (bool(column.free), column.min_support) if column else (False, 0.0)
        return {
            parts.answer: ended_html(answer) + compared,
            parts.sources: passages_html(answer, min_support, direct=direct),
        }


def _datasets(stores: Stores) -> list[tuple[str, str]]:
    from rag.evaluation.dataset_store import DatasetStore

    listed = DatasetStore(stores.engine).list()
    first = ("Choose a dataset" if listed else "No datasets yet", "")
    return [first, *((f"{one.name}@{one.version} · {counted(one.size, 'case')}", one.name) for one in listed)]
