"""Browsing in the chat: conversations, corpora, and the sources of earlier answers."""

from __future__ import annotations

from typing import Any

import gradio as gr

from rag.answering.conversation_store import Conversation
from rag.errors import RagsmithError
from ui.app.stores import SAMPLE_CORPUS
from ui.pages.chat import conversation_view as view
from ui.pages.chat.answer_mode import variant_of
from ui.pages.chat.chat_events import ChatEvents
from ui.pages.chat.chat_layout import EXAMPLES
from ui.pages.chat.filtering import shown_filters
from ui.pages.page_events import BRIDGED, QUIET, error_message, show_errors, show_warning
from ui.pages.safe_markup import note

_ALL = 10_000

_RENAMED = "(_value, title, current) => [window.ragsmith.value, window.ragsmith.title, current]"
# A tab of the browser remembers its own conversation, so that two of them do not swap theirs on a reload.
_REMEMBERED = "(..._) => [window.ragsmith.remembered()]"
_REMEMBER = "(current) => window.ragsmith.remember(current)"

Updates = dict[Any, Any]


class Browsing(ChatEvents):
    """The events that change what is shown without asking anything."""

    def wire(self, page: Any) -> None:
        """Connect the events.

        Args:
            page: The blocks, to fill the tab when the page is loaded.
        """
        parts, bridge = self._parts, self._parts.bridge
        shown = [
            parts.bridge.current,
            parts.chatbot,
            parts.sources,
            parts.listing,
            parts.comment.row,
            parts.question,
            parts.filters.kept,
            parts.filters.chips,
        ]
        corpora = [parts.corpus, parts.add.corpus, parts.release]
        changed = [*corpora, parts.chatbot]
        whole = [*shown, *corpora]
        # The conversation first: the corpora need the encoder, which may take a while to load.
        loaded = page.load(self.load, bridge.value, [*shown, parts.corpus], js=_REMEMBERED, **QUIET)
        loaded.then(self.load_corpora, [parts.corpus, parts.mode], corpora, **QUIET)
        parts.bridge.current.change(None, parts.bridge.current, None, js=_REMEMBER, **QUIET)
        parts.new.click(self.new, [parts.corpus, parts.mode], whole, **QUIET)
        bridge.open_conversation.click(self.choose, [bridge.value, parts.mode], whole, js=BRIDGED, **QUIET)
        bridge.delete.click(
            self.delete, [bridge.value, parts.bridge.current, parts.corpus, parts.mode], whole, js=BRIDGED, **QUIET
        )
        bridge.rename.click(
            self.rename,
            [bridge.value, parts.comment.text, parts.bridge.current],
            parts.listing,
            js=_RENAMED,
            **QUIET,
        )
        bridge.older.click(self.older, parts.bridge.current, parts.listing, **QUIET)
        parts.corpus.input(self.change_corpus, [parts.corpus, parts.bridge.current, parts.mode], changed, **QUIET)
        parts.mode.input(self.load_corpora, [parts.corpus, parts.mode], corpora, **QUIET)
        parts.chatbot.select(self.show_sources, parts.bridge.current, parts.sources, **QUIET)

    @show_errors
    def load(self, remembered: str | None, request: gr.Request) -> Updates:
        """Show the conversation of the address or of this tab of the browser, else the most recent one."""
        newest = self._stores.conversations.list(limit=1).conversations
        chosen = remembered or (newest[0].id if newest else "")
        conversation = self._stores.conversations.load(chosen) if chosen else None
        if conversation is None and request.query_params.get("conversation"):
            # One that the browser remembers may have been deleted; one that a link names was asked for.
            show_warning("There is no such conversation: it was deleted, or the link is incomplete.")
        corpus = self._corpus_of(conversation)
        return {**self._show(conversation, corpus, request), self._parts.corpus: corpus}

    @show_errors
    def load_corpora(self, corpus: str, mode: str) -> Updates:
        """List the corpora, and the release that answers for the chosen one."""
        return self._corpora(corpus or self._settings.corpus, mode)

    @show_errors
    def new(self, corpus: str, mode: str, request: gr.Request) -> Updates:
        """Show an empty conversation, which is stored with its first question."""
        return {**self._show(None, corpus, request), **self._corpora(corpus, mode)}

    @show_errors
    def choose(self, conversation_id: str, mode: str, request: gr.Request) -> Updates:
        """Show a conversation of the list; an answer that is being written in another one goes on."""
        conversation = self._stores.conversations.load(conversation_id)
        corpus = self._corpus_of(conversation)
        return {**self._show(conversation, corpus, request), **self._corpora(corpus, mode)}

    @show_errors
    def delete(self, conversation_id: str, current: str, corpus: str, mode: str, request: gr.Request) -> Updates:
        """Delete a conversation; its traces stay."""
        self._running.stop(conversation_id)
        self._stores.conversations.delete(conversation_id)
        if conversation_id == current:
            return {**self._show(None, corpus, request), **self._corpora(corpus, mode)}
        return {self._parts.listing: self._listing(current)}

    @show_errors
    def rename(self, conversation_id: str, title: str, current: str) -> str:
        """Rename a conversation."""
        self._stores.conversations.rename(conversation_id, title)
        return self._listing(current)

    @show_errors
    def older(self, current: str) -> str:
        """List all conversations."""
        return self._listing(current, _ALL)

    @show_errors
    def change_corpus(self, corpus: str, current: str, mode: str) -> Updates:
        """Send the next questions to another corpus."""
        if current:
            self._stores.conversations.set_corpus(current, corpus)
        return {**self._corpora(corpus, mode), self._parts.chatbot: gr.Chatbot(examples=_examples(corpus))}

    @show_errors
    def show_sources(self, current: str, clicked: gr.SelectData) -> str:
        """Show the sources of the exchange that was clicked."""
        exchange = view.exchange_at(self._stores.conversations.load(current), _message_index(clicked))
        return view.sources(exchange, self._settings.grounding.min_support)

    def _corpus_of(self, conversation: Conversation | None) -> str:
        return conversation.corpus if conversation else self._settings.corpus

    def _show(self, conversation: Conversation | None, corpus: str, request: gr.Request) -> Updates:
        parts = self._parts
        current = conversation.id if conversation else ""
        # Before anything is read: from here on, an answer to another conversation must not be shown.
        self._shown.show(request.session_hash, current)
        writing = current in self._running
        return {
            parts.bridge.current: current,
            parts.chatbot: gr.Chatbot(
                value=view.messages(conversation, self._running.draft(current)),
                feedback_value=view.thumbs(conversation, self._stores.traces),
                examples=_examples(corpus),
            ),
            parts.sources: view.sources(view.last_exchange(conversation), self._settings.grounding.min_support),
            parts.listing: self._listing(current),
            parts.comment.row: gr.Row(visible=False),
            parts.question: gr.Textbox(submit_btn=not writing, stop_btn=writing),
            **shown_filters(parts.filters, conversation.filters if conversation else ()),
        }

    def _corpora(self, corpus: str, mode: str) -> Updates:
        names = self._stores.corpus_names()
        choices = names if corpus in names else [corpus, *names]
        try:
            release = view.release_html(self._releases.pipeline(corpus, variant_of(mode, self._settings)).release)
        except RagsmithError as error:
            release = note(error_message(error), "rs-warn")
        return {
            self._parts.corpus: gr.Dropdown(choices=choices, value=corpus),
            self._parts.add.corpus: gr.Dropdown(choices=choices, value=corpus),
            self._parts.release: release,
        }

    def _listing(self, current: str, limit: int = view.LISTED) -> str:
        return view.listing_html(self._stores.conversations.list(limit=limit), current)


def _examples(corpus: str) -> list[dict[str, str]]:
    return [{"text": text} for text in EXAMPLES] if corpus == SAMPLE_CORPUS else []


def _message_index(clicked: gr.SelectData) -> int:
    index = clicked.index
    return int(index[0] if isinstance(index, list | tuple) else index)
