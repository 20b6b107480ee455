"""The documents of the corpus that the chat asks: listed with their problems, and removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rag.errors import CorpusError, RagsmithError
from ui.app.upload_folder import is_stored
from ui.pages.chat.chat_layout import ChatParts
from ui.pages.page_events import BRIDGED, QUIET, error_message, show_errors, show_info
from ui.pages.safe_markup import fragment, note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ui.app.stores import Stores

LISTED = 200


class CorpusDocuments:
    """The events that list and remove documents."""

    def __init__(self, stores: Stores, parts: ChatParts) -> None:
        self._stores = stores
        self._parts = parts

    def wire(self, added: Sequence[Any]) -> None:
        """Connect the events.

        Args:
            added: Events that end with more documents.
        """
        parts, listing = self._parts, self._parts.documents.listing
        for event in (parts.documents.fold.expand, parts.corpus.change, *(event.then for event in added)):
            event(self.show, parts.corpus, listing, **QUIET)
        # One after the other, for there is one writer; none of several quick clicks is lost.
        parts.bridge.forget.click(
            self.forget,
            [parts.bridge.value, parts.corpus],
            listing,
            js=BRIDGED,
            trigger_mode="multiple",
            concurrency_limit=1,
            **QUIET,
        )

    def show(self, corpus: str) -> str:
        """List the documents of a corpus."""
        try:
            page = self._stores.source_page(corpus, LISTED)
        except CorpusError as error:
            return note(error.message)
        except RagsmithError as error:
            return note(error_message(error), "rs-warn")
        documents = [(source, is_stored(self._stores.workspace, source.path)) for source in page.sources]
        return fragment("chat_documents.html.jinja", documents=documents, total=page.total, unread=page.unread)

    @show_errors
    def forget(self, key: str, corpus: str) -> str:
        """Remove a document of the list."""
        page = self._stores.source_page(corpus, LISTED)
        found = [source for source in page.sources if source.key == key]
        if found:
            self._stores.forget(corpus, found)
            show_info(f"{found[0].name} was removed from the corpus {corpus}.", 5)
        return self.show(corpus)
