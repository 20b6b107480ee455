"""The chat tab: its components with their events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ui.app.asking import Running
from ui.pages.chat.adding import Adding
from ui.pages.chat.browsing import Browsing
from ui.pages.chat.chat_answering import Answering
from ui.pages.chat.chat_layout import Bridge, build_chat
from ui.pages.chat.feedback import FeedbackEvents
from ui.pages.uploads import offers_folders

if TYPE_CHECKING:
    from ui.wiring import Workbench


def chat_tab(bench: Workbench, page: Any, bridge: Bridge) -> Any:
    """Build the tab inside the blocks that are open.

    Args:
        page: Those blocks.
        bridge: The hidden buttons, outside the tab.

    Returns:
        The input line, for other tabs to put a question into.
    """
    running = Running()
    parts = build_chat(bridge, folders=offers_folders(bench.settings))
    Answering(bench, running, parts).wire()
    Browsing(bench, running, parts).wire(page)
    FeedbackEvents(bench, parts).wire()
    Adding(bench, parts).wire(page)
    return parts.question
