"""Filters of the questions in the chat: typed, shown as chips, and taken away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rag.retrieval.filters import filters_of
from ui.pages.chat.chat_layout import ChatParts, FilterParts
from ui.pages.page_events import BRIDGED, QUIET, show_errors
from ui.pages.safe_markup import fragment

if TYPE_CHECKING:
    from ui.app.stores import Stores

Updates = dict[Any, Any]


class Filtering:
    """The events of the filters; a conversation keeps its own until another corpus is chosen."""

    def __init__(self, stores: Stores, parts: ChatParts) -> None:
        self._stores = stores
        self._parts = parts

    def wire(self) -> None:
        """Connect the events."""
        parts, filters = self._parts, self._parts.filters
        shown, current = [filters.kept, filters.chips], parts.bridge.current
        filters.typed.submit(
            self.add, [filters.typed, filters.kept, parts.corpus, current], [*shown, filters.typed], **QUIET
        )
        parts.bridge.drop_filter.click(
            self.drop, [parts.bridge.value, filters.kept, current], shown, js=BRIDGED, **QUIET
        )
        parts.corpus.input(self.clear, current, shown, **QUIET)

    @show_errors
    def add(self, typed: str, kept: tuple[str, ...], corpus: str, current: str) -> Updates:
        """Add a filter, if a document matches it together with the others."""
        condition = typed.strip()
        conditions = tuple(dict.fromkeys((*kept, condition)))
        filters = filters_of(conditions) if condition else None
        if filters is None:
            return {self._parts.filters.typed: ""}
        self._stores.check_filters(corpus, filters)
        return {**self._keep(current, conditions), self._parts.filters.typed: ""}

    @show_errors
    def drop(self, dropped: str, kept: tuple[str, ...], current: str) -> Updates:
        """Take a filter away."""
        return self._keep(current, tuple(condition for condition in kept if condition != dropped))

    @show_errors
    def clear(self, current: str) -> Updates:
        """Take all filters away."""
        return self._keep(current, ())

    def _keep(self, current: str, conditions: tuple[str, ...]) -> Updates:
        """Store and show filters; those of a new conversation are stored with its first question."""
        if current:
            self._stores.conversations.set_filters(current, conditions)
        return shown_filters(self._parts.filters, conditions)


def shown_filters(filters: FilterParts, conditions: tuple[str, ...]) -> Updates:
    """Return the updates that show these filters and no others."""
    chips = fragment("chat_filters.html.jinja", conditions=conditions) if conditions else ""
    return {filters.kept: conditions, filters.chips: chips}
