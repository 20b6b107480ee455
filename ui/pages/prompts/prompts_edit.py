"""The editor of the prompts tab: a draft as YAML, its settings as fields, what it changes, and its saving."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as field_of
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import gradio as gr

from prompts import PromptTemplate
from prompts.files import SKELETON, as_draft, parse_draft
from prompts.formats import Format, read_prompt
from rag.errors import PromptError, RagsmithError, prompt_errors
from ui.app.login_name import login_name
from ui.pages.page_events import QUIET, telling
from ui.pages.prompts.prompts_draft import FIELDS, Field, meant, settings_in, shown, with_settings
from ui.pages.prompts.prompts_list import Shelf
from ui.pages.prompts.prompts_view import changes_html, moment, template_html
from ui.pages.safe_markup import fragment, note

if TYPE_CHECKING:
    from prompts.library import PromptLibrary

Updates = dict[Any, Any]

GUESSED = "found out"
LONGEST = 200_000
"""Characters of a draft; the check after each key grows slow on more."""

# A draft outlives the server and a loaded page: the browser keeps it for its window.
_KEEP = (
    "(base, seen, name, text) => text"
    " ? sessionStorage.setItem('ragsmith.prompt-draft', JSON.stringify([base, seen, name, text]))"
    " : sessionStorage.removeItem('ragsmith.prompt-draft')"
)
KEPT = "(..._) => [sessionStorage.getItem('ragsmith.prompt-draft') ?? '']"
_LIVE: dict[str, Any] = QUIET | {"trigger_mode": "always_last"}


@dataclass(frozen=True, slots=True)
class _Synced:
    """What the handlers wrote last: the draft, and the text of each field."""

    text: str = ""
    fields: dict[str, str] = field_of(default_factory=dict)

    @classmethod
    def of(cls, stored: str | None) -> _Synced:
        return cls(*json.loads(stored)) if stored else cls()

    @property
    def stored(self) -> str:
        return json.dumps([self.text, self.fields])

    def late(self, values: Sequence[str | None]) -> list[tuple[Field, str]]:
        """The fields of which something else than was written is among ``values``, in the order of ``FIELDS``."""
        current = [(field, value or "") for field, value in zip(FIELDS, values, strict=True)]
        return [(field, value) for field, value in current if value != self.fields.get(field.name, "")]


class Editor:
    """Components and events of the editor. Made where it is to stand, hidden until a draft is begun.

    Gradio does not tell a person's change from a handler's, and its event of an input misses what is pasted:
    ``synced`` holds what the handlers wrote last, so that only what differs from it was written by a person.
    ``base`` is the version that the draft came from, empty for a new prompt; ``seen`` the newest version at that
    time. The text is the truth: the fields read its settings, and write into it.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        with gr.Column(elem_classes="rs-bridge"):
            self.base = gr.Textbox()
            self.seen = gr.Textbox()
            self.synced = gr.Textbox()
            self.go_on = gr.Button(elem_id="do-prompt-continue")
            self.drop = gr.Button(elem_id="do-prompt-discard")
        with gr.Column(elem_id="prompt-editor", visible=False, min_width=0) as self.column:
            with gr.Column(elem_id="prompt-writing", min_width=0) as self.writing:
                self.head = _html("prompt-editor-head")
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
                self.verdict = _html("prompt-verdict")
                with gr.Row(elem_id="prompt-writing-actions", elem_classes="rs-actions"):
                    self.review_button = gr.Button("Review", size="sm", variant="primary", elem_id="prompt-review")
                    self.close_button = gr.Button("Close, keep the draft", size="sm", elem_id="prompt-close")
                    self.discard_button = gr.Button("Discard", size="sm", elem_id="prompt-discard")
            with gr.Column(elem_id="prompt-reviewing", visible=False, min_width=0) as self.reviewing:
                self.changes = _html("prompt-changes")
                self.why = gr.Textbox(
                    label="Why (kept with the version)", max_lines=3, max_length=2000, elem_id="prompt-why"
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
        with gr.Accordion("Begin with a file of another program", open=False, elem_id="prompt-import"):
            self.foreign = gr.Textbox(
                label="LangChain's JSON, OpenAI's messages, or plain text",
                lines=4,
                max_lines=12,
                elem_id="prompt-foreign",
            )
            with gr.Row(elem_classes="rs-actions"):
                self.form = gr.Dropdown(
                    [GUESSED, *get_args(Format)],
                    value=GUESSED,
                    show_label=False,
                    container=False,
                    filterable=False,
                    min_width=130,
                    scale=0,
                    elem_id="prompt-form",
                )
                self.take = gr.Button("Take over", size="sm", elem_id="prompt-take")
                self.upload = gr.UploadButton(
                    "Upload a file",
                    size="sm",
                    file_types=["text", ".json", ".yaml", ".yml"],
                    elem_id="prompt-upload",
                )

    @property
    def draft(self) -> list[Any]:
        """The components that hold a draft: base, newest version then, name, text."""
        return [self.base, self.seen, self.name, self.text]

    @property
    def outputs(self) -> list[Any]:
        """What the events of the editor write."""
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
            kept: Takes what the browser kept, when the page is loaded.
            view: What the editor stands in place of while it is open.
            bar: Says that there is a draft while the editor is closed.
            saved: What the tab shows for a version that was just saved.
            shows: The components of that.
        """
        self.view, self.bar, self._saved = view, bar, saved
        outputs, draft = self.outputs, self.draft
        fields = list(self.fields.values())
        checked = [self.verdict, self.synced, *fields]
        # One event alone judges the draft, and one at a time: an earlier verdict never comes last.
        gr.on([self.text.change, self.name.change], self.check, [*draft, self.synced], checked, **_LIVE)
        self.text.change(None, draft, None, js=_KEEP, **QUIET)
        # One event for all fields, too: two at once would each write the draft without what the other changed.
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

    @telling
    def begin(self, at: str, base: str, seen: str, name: str, text: str) -> Updates:
        """Open a draft of a version; one that was begun and changed before comes first."""
        if self._is_changed(base, text):
            gr.Info(
                f"This is the draft that you began earlier, from {base or 'nothing'}: save or discard it first."
            )
            return self._open(base, seen, name, text)
        prompt = self._shelf.load(at)
        return self._open(prompt.label, str(self._shelf.versions(prompt.name)[0]), prompt.name, as_draft(prompt))

    @telling
    def begin_new(self, base: str, seen: str, name: str, text: str) -> Updates:
        """Open a draft of a new prompt."""
        if self._is_changed(base, text):
            gr.Info(
                f"This is the draft that you began earlier, from {base or 'nothing'}: save or discard it first."
            )
            return self._open(base, seen, name, text)
        return self._open("", "", "", SKELETON)

    @telling
    def kept(self, stored: str | None) -> Any:
        """The draft that the browser kept, after a restart of the server or a loaded page."""
        if not stored:
            return gr.skip()
        return self._open(*(str(part) for part in json.loads(stored)))

    @telling
    def restore(self, base: str, seen: str, name: str, text: str) -> Updates:
        """Open the draft that was closed."""
        return self._open(base, seen, name, text)

    @telling
    def check(self, base: str, _seen: str, name: str, text: str | None, synced: str | None) -> Any:
        """Say what is wrong with the draft, and let the fields follow it."""
        if not text:
            return gr.skip()
        verdict = {self.verdict: self._verdict(base, name, text)}
        # What a field just wrote is not written back into it: somebody is typing there.
        return verdict if text == _Synced.of(synced).text else {**verdict, **self._read(text)}

    @telling
    def put(self, text: str | None, synced: str | None, *values: str | None) -> Any:
        """Write into the draft what a person changed in fields."""
        known = _Synced.of(synced)
        changed, written, updates = text or "", {}, {}
        for field, value in known.late(values) if text else ():
            try:
                changed = with_settings(changed, {field.name: meant(field, value)})
                written[field.name] = value
            except PromptError as error:
                updates[self.verdict] = _bad(str(error))
        if written:
            updates |= {self.text: changed, self.synced: _Synced(changed, known.fields | written).stored}
        return updates or gr.skip()

    @telling
    def review(self, base: str, seen: str, name: str, text: str, synced: str, *values: str | None) -> Any:
        """Show what the draft changes, and ask why."""
        late = {field.name: meant(field, value) for field, value in _Synced.of(synced).late(values)}
        if late:
            # A key was pressed so shortly before that the draft does not have it yet.
            text = with_settings(text, late)
        draft = self._parsed(base, name, text)
        origin = self._origin(base, draft.name)
        if origin is None:
            shown_changes = note(f"The first version of {draft.name}", "rs-head") + template_html(draft, ())
        else:
            changes = self._shelf.changes(origin, draft)
            if not changes:
                gr.Info(f"Nothing was changed: this is {origin.label}.")
                return {self.text: text} if late else gr.skip()
            shown_changes = self._meanwhile(origin, seen) + changes_html(changes, origin.label, "the draft")
        return {
            **({self.text: text} if late else {}),
            self.changes: shown_changes,
            self.save_button: gr.Button(f"Save as {draft.name}@{self._next(draft.name)}"),
            self.writing: gr.Column(visible=False),
            self.reviewing: gr.Column(visible=True),
        }

    @telling
    def back(self) -> Updates:
        """Write on."""
        return {self.writing: gr.Column(visible=True), self.reviewing: gr.Column(visible=False)}

    @telling
    def save(self, base: str, _seen: str, name: str, text: str, why: str | None) -> Updates:
        """Keep the draft as the next version, whatever others saved meanwhile."""
        draft = self._parsed(base, name, text)
        with prompt_errors():
            saved = self._library.save(draft, by=login_name(), message=(why or "").strip())
        gr.Info(f"Saved {saved.label}.")
        return {**self._closed(""), **self._saved(saved.label)}

    @telling
    def close(self, base: str, _seen: str, _name: str, text: str) -> Updates:
        """Show the library again; a draft that was changed is kept."""
        if not self._is_changed(base, text):
            return self._closed("")
        return {
            self.column: gr.Column(visible=False),
            self.view: gr.Column(visible=True),
            self.bar: bar_html(base),
        }

    @telling
    def discard(self) -> Updates:
        """Forget the draft."""
        return self._closed("")

    @telling
    def take_over(
        self, foreign: str, form: str, base: str, seen: str, name: str, _text: str, named: str = ""
    ) -> Updates:
        """Begin with what another program wrote."""
        if not (foreign or "").strip():
            raise PromptError("There is nothing to take over.", fix="Paste the text, or upload a file.")
        known: Format | None = next((option for option in get_args(Format) if option == form), None)
        origin = f"imported from {named}" if named else "imported"
        with prompt_errors():
            draft = read_prompt(foreign, (name or "").strip() or "imported", description=origin, form=known)
        return self._open(base, seen, name, as_draft(draft))

    @telling
    def take_file(self, file: str, form: str, base: str, seen: str, name: str, text: str) -> Any:
        """The same from a file; one of ours is taken as it is."""
        path = Path(file)
        try:
            foreign = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise PromptError(f"The file {path.name} must be UTF-8.", fix="Save it as UTF-8.") from error
        if path.suffix in (".yaml", ".yml"):
            with prompt_errors():
                draft = parse_draft(foreign, (name or "").strip() or "imported", 1)
            return self._open(base, seen, name, as_draft(draft))
        return self.take_over(foreign, form, base, seen, name, text, path.name)

    @property
    def _library(self) -> PromptLibrary:
        return self._shelf.library

    def _open(self, base: str, seen: str, name: str, text: str) -> Updates:
        return {
            self.base: base,
            self.seen: seen,
            self.name: name,
            self.text: text,
            self.head: _head(base),
            self.new_row: gr.Row(visible=not base),
            self.verdict: self._verdict(base, name, text),
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
        values = {field.name: shown(field, given) for field in FIELDS}
        updates = {self.fields[name]: value for name, value in values.items()}
        return {**updates, self.synced: _Synced(text, values).stored}

    def _is_changed(self, base: str, text: str | None) -> bool:
        if not text or (not base and text == SKELETON):
            return False
        try:
            return not base or text != as_draft(self._shelf.load(base))
        except PromptError:
            # Its base is gone; what was written is not.
            return True

    def _parsed(self, base: str | None, name: str | None, text: str) -> PromptTemplate:
        called = (base or "").partition("@")[0] or (name or "").strip()
        if not called:
            raise PromptError("The prompt must have a name.")
        with prompt_errors():
            draft = parse_draft(text, called, 1)
            draft.resolved(self._library.load)
        return draft

    def _verdict(self, base: str | None, name: str | None, text: str) -> str:
        try:
            draft = self._parsed(base, name, text)
        except RagsmithError as error:
            return _bad(str(error))
        variables = ", ".join(draft.variables) or "none"
        there = not base and draft.name in self._library.names()
        exists = f" {draft.name} exists: this becomes its next version." if there else ""
        return _verdict(f"This can be saved. Variables: {variables}.{exists}", good=True)

    def _origin(self, base: str, name: str) -> PromptTemplate | None:
        if base:
            return self._shelf.load(base)
        if name in self._library.names():
            return self._shelf.load(f"{name}@{self._shelf.versions(name)[0]}")
        return None

    def _next(self, name: str) -> int:
        return max(self._shelf.versions(name)) + 1 if name in self._library.names() else 1

    def _meanwhile(self, origin: PromptTemplate, seen: str) -> str:
        """What others saved since the draft was begun."""
        if not seen.isdecimal():
            return ""
        later = [version for version in self._shelf.versions(origin.name) if version > int(seen)]
        names = []
        for version in later:
            saved = self._shelf.load(f"{origin.name}@{version}").saved
            names.append(f"v{version}{f' ({saved.by}, {moment(saved.at)})' if saved else ''}")
        if not names:
            return ""
        return note(
            f"Saved since you began: {', '.join(names)}. Both are kept; what is new there is not in your draft.",
            "rs-warn",
        )


def bar_html(base: str) -> str:
    """A bar that says that there is a draft, with the buttons that lead back to it."""
    return fragment("prompts_draft_bar.html.jinja", base=base or "nothing")


def _head(base: str) -> str:
    return fragment("prompts_draft_head.html.jinja", base=base)


def _bad(error: str) -> str:
    return _verdict(error, good=False)


def _verdict(text: str, *, good: bool) -> str:
    return fragment("prompts_verdict.html.jinja", text=text, good=good)


def _html(name: str) -> Any:
    return gr.HTML(elem_id=name, js_on_load=None, apply_default_css=False)


def _component(field: Field) -> Any:
    options: Mapping[str, Any] = {"label": field.label, "elem_id": f"prompt-{field.name}", "min_width": 0}
    if field.kind == "choice":
        choices = [("not set", ""), *((choice, choice) for choice in field.choices)]
        return gr.Dropdown(choices, value="", filterable=False, **options)
    if field.kind == "number":
        return gr.Textbox(max_lines=1, placeholder=field.hint, **options)
    return gr.Textbox(lines=2, max_lines=6, placeholder=field.hint, **options)
