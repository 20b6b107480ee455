"""Filters of the questions in the chat: typed, shown as chips, and taken away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rag.retrieval.filters import filters_of
from ui.pages.chat.chat_layout import ChatParts
from ui.pages.page_events import BRIDGED, QUIET, show_errors
from ui.pages.safe_markup import fragment

if TYPE_CHECKING:
    from ui.app.stores import Stores

Updates = dict[Any, Any]


class Filtering:
    """The events of the filters, which hold until another conversation or another corpus is chosen."""

    def __init__(self, stores: Stores, parts: ChatParts) -> None:
        self._stores = stores
        self._parts = parts

    def wire(self) -> None:
        """Connect the events."""
        parts, filters = self._parts, self._parts.filters
        shown = [filters.kept, filters.chips]
        filters.typed.submit(
            self.add, [filters.typed, filters.kept, parts.corpus], [*shown, filters.typed], **QUIET
        )
        parts.bridge.drop_filter.click(self.drop, [parts.bridge.value, filters.kept], shown, js=BRIDGED, **QUIET)
        for event in (parts.new.click, parts.bridge.open_conversation.click, parts.corpus.input):
            event(self.clear, None, shown, **QUIET)

    @show_errors
    def add(self, typed: str, kept: tuple[str, ...], corpus: str) -> Updates:
        """Add a filter, if a document matches it together with the others."""
        condition = typed.strip()
        conditions = tuple(dict.fromkeys((*kept, condition)))
        filters = filters_of(conditions) if condition else None
        if filters is None:
            return {self._parts.filters.typed: ""}
        self._stores.check_filters(corpus, filters)
        return {**self._show(conditions), self._parts.filters.typed: ""}

    @show_errors
    def drop(self, dropped: str, kept: tuple[str, ...]) -> Updates:
        """Take a filter away."""
        return self._show(tuple(condition for condition in kept if condition != dropped))

    def clear(self) -> Updates:
        """Take all filters away."""
        return self._show(())

    def _show(self, conditions: tuple[str, ...]) -> Updates:
        filters = self._parts.filters
        chips = fragment("chat_filters.html.jinja", conditions=conditions) if conditions else ""
        return {filters.kept: conditions, filters.chips: chips}
