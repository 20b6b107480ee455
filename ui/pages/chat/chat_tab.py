"""The chat tab: its components with their events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ui.pages.chat.adding import Adding
from ui.pages.chat.browsing import Browsing
from ui.pages.chat.chat_answering import Answering
from ui.pages.chat.chat_layout import Bridge, ChatParts, build_chat
from ui.pages.chat.corpus_documents import CorpusDocuments
from ui.pages.chat.feedback import FeedbackEvents
from ui.pages.chat.filtering import Filtering
from ui.pages.chat.running_answers import RunningAnswers, ShownConversations
from ui.pages.uploads import offers_folders

if TYPE_CHECKING:
    from rag.settings import Settings
    from ui.app.releases import Releases
    from ui.app.stores import Stores


def chat_tab(page: Any, bridge: Bridge, settings: Settings, stores: Stores, releases: Releases) -> ChatParts:
    """Build the tab inside the blocks that are open.

    Args:
        page: Those blocks.
        bridge: The hidden buttons, outside the tab.

    Returns:
        Its components, such as the input box that other tabs put a question into.
    """
    running, shown = RunningAnswers(), ShownConversations()
    parts = build_chat(bridge, settings, folders=offers_folders(settings))
    Answering(settings, stores, releases, running, shown, parts).wire()
    Browsing(settings, stores, releases, running, shown, parts).wire(page)
    FeedbackEvents(stores.conversations, stores.traces, parts).wire()
    added = Adding(settings, stores, parts).wire(page)
    Filtering(stores, parts).wire()
    CorpusDocuments(stores, parts).wire(added)
    return parts
