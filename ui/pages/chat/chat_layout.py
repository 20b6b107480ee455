"""The components of the chat tab and their layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from rag.settings import Settings
from ui.pages.chat.answer_mode import build_mode
from ui.pages.chat.sources_panel import empty_html
from ui.pages.html_component import html_component
from ui.pages.safe_markup import fragment
from ui.pages.traces.rating_form import LONGEST

EXAMPLES = (
    "Does ragsmith need a GPU?",
    "How are the two searches combined?",
    "When does ragsmith refuse to answer?",
)
"""Questions about the sample corpus; of no other corpus is it known what it answers."""

_WELCOME = """### Ask your documents
Every answer names its sources: click a number to see the sentence in its place."""

LINKED = ("prompts", "lab", "evaluate", "retrieval", "datasets")
"""Views that an address names by ``tab``, and that are asked for when the page has loaded."""


@dataclass(frozen=True, slots=True)
class Bridge:
    """Hidden components: the script passes on what was clicked, and events leave values for later ones.

    Attributes:
        value: What was clicked; the script sets it and presses one of the buttons.
        current: Id of the conversation that is shown; empty for a new one. It lives in the browser, so that an
            open page continues after a restart of the server.
        editing: Position of the question that is being edited, sent with the question.
        rated: Trace and thumb that a comment belongs to.
        links: By ``tab``, the button that shows the view of the address: only that view asks the server.
    """

    value: Any
    current: Any
    editing: Any
    rated: Any
    open_conversation: Any
    rename: Any
    delete: Any
    forget: Any
    drop_filter: Any
    older: Any
    open_trace: Any
    case_of_trace: Any
    playground: Any
    links: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AddParts:
    """The components for adding documents.

    Attributes:
        clash: The question about uploads whose names are taken; the files are in ``waiting``.
    """

    corpus: Any
    upload: Any
    clash: Any
    clash_note: Any
    waiting: Any
    replace: Any
    keep_both: Any
    leave_out: Any
    address: Any
    add_page: Any
    folder: Any
    add_folder: Any
    progress: Any
    stop: Any


@dataclass(frozen=True, slots=True)
class DocumentParts:
    """The components that list the documents of the corpus."""

    fold: Any
    listing: Any


@dataclass(frozen=True, slots=True)
class FilterParts:
    """The components of the filters.

    Attributes:
        typed: The input line for one more.
        kept: The filters that hold, as they were typed.
        chips: What shows them.
    """

    typed: Any
    kept: Any
    chips: Any


@dataclass(frozen=True, slots=True)
class CommentParts:
    """The components that take a comment on an answer.

    Attributes:
        rated: What shows the rating that is commented on.
    """

    row: Any
    rated: Any
    text: Any
    correction: Any
    save: Any


@dataclass(frozen=True, slots=True)
class ChatParts:
    """The components that events of the chat tab read and write."""

    bridge: Bridge
    add: AddParts
    documents: DocumentParts
    filters: FilterParts
    new: Any
    listing: Any
    corpus: Any
    mode: Any
    release: Any
    chatbot: Any
    comment: CommentParts
    question: Any
    sources: Any


def build_bridge() -> Bridge:
    """Build the hidden components."""
    with gr.Column(elem_id="bridge"):
        return Bridge(
            value=gr.Textbox(),
            current=gr.Textbox(),
            editing=gr.Textbox(),
            rated=gr.Textbox(),
            open_conversation=gr.Button(elem_id="do-open-conversation"),
            rename=gr.Button(elem_id="do-rename"),
            delete=gr.Button(elem_id="do-delete"),
            forget=gr.Button(elem_id="do-forget"),
            drop_filter=gr.Button(elem_id="do-drop-filter"),
            older=gr.Button(elem_id="do-older"),
            open_trace=gr.Button(elem_id="do-open-trace"),
            # Outside the tabs, because the components of a tab do not exist until it is opened.
            case_of_trace=gr.Button(elem_id="do-case-of-trace"),
            playground=gr.Button(elem_id="do-playground"),
            links={name: gr.Button(elem_id=f"do-link-{name}") for name in LINKED},
        )


def build_chat(bridge: Bridge, settings: Settings, *, folders: bool) -> ChatParts:
    """Build the chat tab.

    Args:
        settings: Decide which modes of answering there are.
        folders: Whether a folder of this machine may be added.
    """
    with gr.Row(elem_id="chat", equal_height=True):
        with gr.Column(elem_id="left", min_width=0, scale=0):
            new = gr.Button("New conversation", elem_id="new", size="sm")
            listing = html_component("listing")
            corpus = gr.Dropdown(label="Corpus", elem_id="corpus", allow_custom_value=True, interactive=True)
            mode = build_mode(settings)
            add = _build_add(folders)
            documents, typed = _build_documents()
            release = html_component("release")
        with gr.Column(elem_id="centre", min_width=0, scale=1):
            chatbot = gr.Chatbot(
                elem_id="chatbot",
                show_label=False,
                container=False,
                height="100%",
                buttons=[],
                latex_delimiters=[],
                allow_tags=False,
                layout="bubble",
                placeholder=_WELCOME,
                examples=[],
            )
            comment = _build_comment()
            editing = fragment("chat_editing.html.jinja")
            html_component("editing-note", editing)
            chips = html_component("filters")
            kept = gr.State(())
            question = gr.Textbox(
                elem_id="question",
                label="Question",
                show_label=False,
                container=False,
                placeholder="Ask a question about your documents",
                max_lines=8,
                autofocus=True,
                submit_btn=True,
                stop_btn=False,
            )
        with gr.Column(elem_id="right", min_width=0, scale=0):
            html_component(html=fragment("chat_sources_head.html.jinja"))
            sources = html_component("sources", empty_html())
    return ChatParts(
        bridge,
        add,
        documents,
        FilterParts(typed, kept, chips),
        new,
        listing,
        corpus,
        mode,
        release,
        chatbot,
        comment,
        question,
        sources,
    )


def _build_comment() -> CommentParts:
    with gr.Row(elem_id="comment-row", visible=False) as row:
        rated = html_component("comment-for")
        text = gr.Textbox(
            label="Comment",
            show_label=False,
            container=False,
            max_lines=3,
            max_length=LONGEST,
            elem_id="comment",
            scale=1,
        )
        correction = gr.Textbox(
            label="The right answer",
            show_label=False,
            container=False,
            max_lines=6,
            max_length=LONGEST,
            placeholder="The right answer (optional), to test and train with",
            elem_id="correction",
            scale=1,
        )
        save = gr.Button("Save comment", size="sm", elem_id="save-comment", scale=0, min_width=110)
    return CommentParts(row, rated, text, correction, save)


def _build_add(folders: bool) -> AddParts:
    with gr.Accordion("Add documents", open=False, elem_id="add"):
        corpus = gr.Dropdown(
            label="Into corpus (choose, or type a new name)",
            elem_id="add-corpus",
            allow_custom_value=True,
            interactive=True,
        )
        upload = gr.UploadButton("Upload files", file_count="multiple", size="sm", elem_id="upload")
        with gr.Column(elem_id="clash", visible=False) as clash:
            clash_note = html_component()
            waiting = gr.State()
            with gr.Row(elem_id="clash-row"):
                replace, keep_both, leave_out = (
                    gr.Button(text, size="sm", min_width=0, elem_id=name)
                    for text, name in (
                        ("Replace", "replace-upload"),
                        ("Keep both", "keep-both"),
                        ("Cancel", "leave-out"),
                    )
                )
        address, add_page = _build_line("address", "Address of a web page", "https://…", visible=True)
        folder, add_folder = _build_line(
            "folder", "Folder of this machine", "/path/to/folder on this machine", visible=folders
        )
        progress = html_component("progress")
        stop = gr.Button("Stop adding", size="sm", visible=False, elem_id="stop-adding", variant="stop")
    return AddParts(
        corpus,
        upload,
        clash,
        clash_note,
        waiting,
        replace,
        keep_both,
        leave_out,
        address,
        add_page,
        folder,
        add_folder,
        progress,
        stop,
    )


def _build_line(name: str, label: str, placeholder: str, *, visible: bool) -> tuple[Any, Any]:
    """Build an input line with its button."""
    with gr.Row(elem_id=f"{name}-row", visible=visible):
        line = gr.Textbox(
            label=label,
            show_label=False,
            container=False,
            placeholder=placeholder,
            max_lines=1,
            elem_id=name,
            scale=1,
            min_width=0,
        )
        button = gr.Button("Add", size="sm", scale=0, min_width=48, elem_id=f"add-{name}")
    return line, button


def _build_documents() -> tuple[DocumentParts, Any]:
    """Build the list of documents, and the input line of the filters."""
    with gr.Accordion("Documents", open=False, elem_id="documents") as fold:
        typed = gr.Textbox(
            label="Only documents with …",
            placeholder="FIELD=VALUE, or a name",
            max_lines=1,
            max_length=500,
            elem_id="filter",
        )
        listing = html_component("document-list")
    return DocumentParts(fold, listing), typed
