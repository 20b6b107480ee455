"""The editor of the prompts tab: a draft as YAML, its settings as fields, what it changes, and its saving."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as field_of
from pathlib import Path
from typing import Any, get_args

import gradio as gr

from prompts.files import SKELETON, as_draft, parse_draft
from prompts.formats import Format, read_prompt
from rag.errors import PromptError, prompt_errors
from ui.app.login_name import login_name
from ui.app.prompt_labels import PromptLabels
from ui.pages.html_component import html_component
from ui.pages.page_events import QUIET, show_errors, show_info
from ui.pages.prompts.draft_review import DraftReview, problem_html
from ui.pages.prompts.draft_settings import FIELDS, Field, field_text, field_value, settings_in, with_settings
from ui.pages.prompts.prompt_listing import PromptListing
from ui.pages.safe_markup import fragment

Updates = dict[Any, Any]

DETECTED = "detect format"
LONGEST = 200_000
"""Characters of a draft; the check after every key grows slow on more."""

# The session of the browser keeps a draft, so that it survives a reload and a restart of the server.
_KEEP = (
    "(base, newest, name, text) => text"
    " ? sessionStorage.setItem('ragsmith.prompt-draft', JSON.stringify([base, newest, name, text]))"
    " : sessionStorage.removeItem('ragsmith.prompt-draft')"
)
KEPT = "(..._) => [sessionStorage.getItem('ragsmith.prompt-draft') ?? '']"
_LIVE: dict[str, Any] = QUIET | {"trigger_mode": "always_last"}


@dataclass(frozen=True, slots=True)
class _Synced:
    """The draft and the texts of the fields as the handlers wrote them last."""

    text: str = ""
    fields: dict[str, str] = field_of(default_factory=dict)

    @classmethod
    def of(cls, stored: str | None) -> _Synced:
        return cls(*json.loads(stored)) if stored else cls()

    @property
    def stored(self) -> str:
        return json.dumps([self.text, self.fields])

    def edited(self, values: Sequence[str | None]) -> list[tuple[Field, str]]:
        """Return the fields whose values differ, with these values, which are in the order of ``FIELDS``."""
        current = [(field, value or "") for field, value in zip(FIELDS, values, strict=True)]
        return [(field, value) for field, value in current if value != self.fields.get(field.name, "")]


class PromptEditor:
    """Components and events of the editor, made inside the blocks that are open and hidden until a draft is begun.

    Gradio's change event does not say whether a person or a handler wrote, and its input event misses pasted text:
    ``synced`` stores what the handlers wrote last, so that a person wrote whatever differs from it. ``base`` is
    the version that the draft was begun from, empty for a new prompt; ``newest`` was the newest version then. The
    text of the draft is authoritative: the fields show its settings, and write into it.
    """

    def __init__(self, listing: PromptListing, labels: PromptLabels) -> None:
        self._listing = listing
        self._review = DraftReview(listing, labels)
        with gr.Column(elem_classes="rs-bridge"):
            self.base = gr.Textbox()
            self.newest = gr.Textbox()
            self.synced = gr.Textbox()
            self.go_on = gr.Button(elem_id="do-prompt-continue")
            self.drop = gr.Button(elem_id="do-prompt-discard")
        with gr.Column(elem_id="prompt-editor", visible=False, min_width=0) as self.column:
            with gr.Column(elem_id="prompt-writing", min_width=0) as self.writing:
                self.head = html_component("prompt-editor-head")
                with gr.Row(elem_id="prompt-new", visible=False) as self.new_row:
                    self._build_new()
                with gr.Row(elem_id="prompt-draft"):
                    self.text = gr.Textbox(
                        label="Draft (YAML)",
                        lines=20,
                        max_lines=60,
                        max_length=LONGEST,
                        elem_id="prompt-text",
                        scale=3,
                        min_width=0,
                    )
                    with gr.Column(elem_id="prompt-fields", scale=1, min_width=0):
                        self.fields = {field.name: _component(field) for field in FIELDS}
                self.verdict = html_component("prompt-verdict")
                with gr.Row(elem_id="prompt-writing-actions", elem_classes="rs-actions"):
                    self.review_button = gr.Button("Review", size="sm", variant="primary", elem_id="prompt-review")
                    self.close_button = gr.Button("Close and keep draft", size="sm", elem_id="prompt-close")
                    self.discard_button = gr.Button("Discard", size="sm", elem_id="prompt-discard")
            with gr.Column(elem_id="prompt-reviewing", visible=False, min_width=0) as self.reviewing:
                self.changes = html_component("prompt-changes")
                self.why = gr.Textbox(
                    label="Reason (saved with the version)", max_lines=3, max_length=2000, elem_id="prompt-why"
                )
                with gr.Row(elem_classes="rs-actions"):
                    self.save_button = gr.Button("Save", size="sm", variant="primary", elem_id="prompt-save")
                    self.back_button = gr.Button("Back to the draft", size="sm", elem_id="prompt-back")

    def _build_new(self) -> None:
        self.name = gr.Textbox(
            label="Name",
            placeholder="lower-case letters, digits, dashes",
            max_lines=1,
            elem_id="prompt-name",
            scale=1,
        )
        with gr.Accordion("Import from another tool", open=False, elem_id="prompt-import"):
            self.foreign = gr.Textbox(
                label="LangChain's JSON, OpenAI's messages, or plain text",
                lines=4,
                max_lines=12,
                elem_id="prompt-foreign",
            )
            with gr.Row(elem_classes="rs-actions"):
                self.form = gr.Dropdown(
                    [DETECTED, *get_args(Format)],
                    value=DETECTED,
                    label="Format",
                    show_label=False,
                    container=False,
                    filterable=False,
                    min_width=130,
                    scale=0,
                    elem_id="prompt-form",
                )
                self.take = gr.Button("Import", size="sm", elem_id="prompt-take")
                self.upload = gr.UploadButton(
                    "Upload a file",
                    size="sm",
                    file_types=["text", ".json", ".yaml", ".yml"],
                    elem_id="prompt-upload",
                )

    @property
    def draft(self) -> list[Any]:
        """The components that store a draft: base, newest version then, name, text."""
        return [self.base, self.newest, self.name, self.text]

    @property
    def outputs(self) -> list[Any]:
        """The components that the events of the editor update."""
        return [
            *self.draft,
            *self.fields.values(),
            self.synced,
            *(self.column, self.writing, self.reviewing, self.head, self.new_row, self.verdict, self.changes),
            *(self.why, self.save_button, self.view, self.bar),
        ]

    def wire(self, page: Any, kept: Any, view: Any, bar: Any, saved: Callable[[str], Updates], shows: Any) -> None:
        """Connect the events.

        Args:
            page: The blocks.
            kept: Receives the draft that the browser has kept when the page is loaded.
            view: Replaced by the editor while it is open.
            bar: Says that there is a draft while the editor is closed.
            saved: Returns what the tab shows of a version that was just saved.
            shows: The components that it updates.
        """
        self.view, self.bar, self._saved = view, bar, saved
        outputs, draft = self.outputs, self.draft
        fields = list(self.fields.values())
        checked = [self.verdict, self.synced, *fields]
        # One event checks the draft, one call at a time, so that an earlier verdict never comes last.
        gr.on([self.text.change, self.name.change], self.check, [*draft, self.synced], checked, **_LIVE)
        self.text.change(None, draft, None, js=_KEEP, **QUIET)
        # One event for all fields, too: of two at the same time, one would overwrite what the other changed.
        put = [self.text, self.verdict, self.synced]
        gr.on([field.change for field in fields], self.put, [self.text, self.synced, *fields], put, **_LIVE)
        self.review_button.click(self.review, [*draft, self.synced, *fields], outputs, **QUIET)
        self.back_button.click(self.back, None, [self.writing, self.reviewing], **QUIET)
        self.save_button.click(self.save, [*draft, self.why], [*outputs, *shows], **QUIET)
        self.close_button.click(self.close, draft, outputs, **QUIET)
        self.go_on.click(self.restore, draft, outputs, **QUIET)
        for button in (self.discard_button, self.drop):
            button.click(self.discard, None, outputs, **QUIET)
        self.take.click(self.take_over, [self.foreign, self.form, *draft], outputs, **QUIET)
        self.upload.upload(self.take_file, [self.upload, self.form, *draft], outputs, **QUIET)
        page.load(self.kept, kept, outputs, js=KEPT, **QUIET)

    @show_errors
    def begin(self, at: str, *draft: str) -> Updates:
        """Open a draft of a version, unless there is an unsaved one."""
        if self._is_unsaved(*draft):
            return self._open(*draft)
        prompt = self._listing.load(at)
        return self._open(prompt.label, str(self._listing.versions(prompt.name)[0]), prompt.name, as_draft(prompt))

    @show_errors
    def begin_new(self, *draft: str) -> Updates:
        """Open a draft of a new prompt, unless there is an unsaved one."""
        return self._open(*draft) if self._is_unsaved(*draft) else self._open("", "", "", SKELETON)

    def _is_unsaved(self, base: str, _newest: str, _name: str, text: str) -> bool:
        if not self._review.is_changed(base, text):
            return False
        show_info(f"This is the draft that you began earlier, from {base or 'nothing'}: save or discard it first.")
        return True

    @show_errors
    def kept(self, stored: str | None) -> Any:
        """Open the draft that the browser has kept, after a reload or a restart of the server."""
        if not stored:
            return gr.skip()
        return self._open(*(str(part) for part in json.loads(stored)))

    @show_errors
    def restore(self, *draft: str) -> Updates:
        """Open the draft that was closed."""
        return self._open(*draft)

    @show_errors
    def check(self, base: str, _newest: str, name: str, text: str | None, synced: str | None) -> Any:
        """Say whether the draft can be saved, and update the fields."""
        if not text:
            return gr.skip()
        verdict = {self.verdict: self._review.verdict_html(base, name, text)}
        # A text that a field has just changed is not written back into it, because a person is typing there.
        return verdict if text == _Synced.of(synced).text else {**verdict, **self._read(text)}

    @show_errors
    def put(self, text: str | None, synced: str | None, *values: str | None) -> Any:
        """Write into the draft what a person changed in the fields."""
        known = _Synced.of(synced)
        changed, written, updates = text or "", {}, {}
        for field, value in known.edited(values) if text else ():
            try:
                changed = with_settings(changed, {field.name: field_value(field, value)})
                written[field.name] = value
            except PromptError as error:
                updates[self.verdict] = problem_html(str(error))
        if written:
            updates |= {self.text: changed, self.synced: _Synced(changed, known.fields | written).stored}
        return updates or gr.skip()

    @show_errors
    def review(self, base: str, newest: str, name: str, text: str, synced: str, *values: str | None) -> Any:
        """Show what the draft changes, and ask for the reason."""
        late = {field.name: field_value(field, value) for field, value in _Synced.of(synced).edited(values)}
        if late:
            # Fields that were edited so recently that the draft does not have their values yet.
            text = with_settings(text, late)
        updates: Updates = {self.text: text} if late else {}
        draft = self._review.parse(base, name, text)
        changes = self._review.changes_html(draft, base, newest)
        if not changes:
            show_info(f"Nothing was changed: this is {base or draft.name}.")
            return updates or gr.skip()
        return {
            **updates,
            self.changes: changes,
            self.save_button: gr.Button(f"Save as {self._review.next_version(draft)}"),
            self.writing: gr.Column(visible=False),
            self.reviewing: gr.Column(visible=True),
        }

    @show_errors
    def back(self) -> Updates:
        """Go back from the review to the draft."""
        return {self.writing: gr.Column(visible=True), self.reviewing: gr.Column(visible=False)}

    @show_errors
    def save(self, base: str, _newest: str, name: str, text: str, why: str | None) -> Updates:
        """Save the draft as the next version, after those that others have saved in the meantime."""
        draft = self._review.parse(base, name, text)
        with prompt_errors():
            saved = self._listing.library.save(draft, by=login_name(), message=(why or "").strip())
        show_info(f"Saved {saved.label}.")
        return {**self._closed(""), **self._saved(saved.label)}

    @show_errors
    def close(self, base: str, _newest: str, _name: str, text: str) -> Updates:
        """Close the editor; a draft with changes is kept."""
        if not self._review.is_changed(base, text):
            return self._closed("")
        return {
            self.column: gr.Column(visible=False),
            self.view: gr.Column(visible=True),
            self.bar: bar_html(base),
        }

    @show_errors
    def discard(self) -> Updates:
        """Discard the draft."""
        return self._closed("")

    @show_errors
    def take_over(
        self, foreign: str, form: str, base: str, newest: str, name: str, _text: str, named: str = ""
    ) -> Updates:
        """Begin a draft with a prompt in the format of another tool."""
        if not (foreign or "").strip():
            raise PromptError("There must be a text to import.", fix="Paste it, or upload a file.")
        known: Format | None = next((option for option in get_args(Format) if option == form), None)
        origin = f"imported from {named}" if named else "imported"
        with prompt_errors():
            imported = read_prompt(
                foreign, (name or "").strip() or "imported", description=origin, form=known, file=named
            )
        if imported.note:
            show_info(imported.note)
        return self._open(base, newest, name, as_draft(imported.draft))

    @show_errors
    def take_file(self, file: str, form: str, base: str, newest: str, name: str, text: str) -> Any:
        """Begin a draft with a file, in the format of another tool or in YAML."""
        path = Path(file)
        try:
            foreign = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise PromptError(f"The file {path.name} must be UTF-8.", fix="Save it as UTF-8.") from error
        if path.suffix in (".yaml", ".yml"):
            with prompt_errors():
                draft = parse_draft(foreign, (name or "").strip() or "imported", 1)
            return self._open(base, newest, name, as_draft(draft))
        return self.take_over(foreign, form, base, newest, name, text, path.name)

    def _open(self, base: str, newest: str, name: str, text: str) -> Updates:
        return {
            self.base: base,
            self.newest: newest,
            self.name: name,
            self.text: text,
            self.head: fragment("prompts_draft_head.html.jinja", base=base),
            self.new_row: gr.Row(visible=not base),
            self.verdict: self._review.verdict_html(base, name, text),
            self.why: "",
            self.bar: "",
            self.view: gr.Column(visible=False),
            self.column: gr.Column(visible=True),
            **self.back(),
            **self._read(text),
        }

    def _closed(self, bar: str) -> Updates:
        return {
            **dict.fromkeys((*self.draft, self.why, self.synced), ""),
            self.bar: bar,
            self.column: gr.Column(visible=False),
            self.view: gr.Column(visible=True),
        }

    def _read(self, text: str) -> Updates:
        given = settings_in(text)
        if given is None:
            return {}
        values = {field.name: field_text(field, given) for field in FIELDS}
        updates = {self.fields[name]: value for name, value in values.items()}
        return {**updates, self.synced: _Synced(text, values).stored}


def bar_html(base: str) -> str:
    """Render the bar that says that there is a draft, with buttons to continue or discard it."""
    return fragment("prompts_draft_bar.html.jinja", base=base or "nothing")


def _component(field: Field) -> Any:
    options: Mapping[str, Any] = {"label": field.label, "elem_id": f"prompt-{field.name}", "min_width": 0}
    if field.kind == "choice":
        choices = [("not set", ""), *((choice, choice) for choice in field.choices)]
        return gr.Dropdown(choices, value="", filterable=False, **options)
    if field.kind in ("number", "text"):
        return gr.Textbox(max_lines=1, placeholder=field.hint, **options)
    return gr.Textbox(lines=2, max_lines=6, placeholder=field.hint, **options)
