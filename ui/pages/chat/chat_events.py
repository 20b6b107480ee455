"""What the events of the chat work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rag.settings import Settings
    from ui.app.releases import Releases
    from ui.app.stores import Stores
    from ui.pages.chat.chat_layout import ChatParts
    from ui.pages.chat.running_answers import RunningAnswers, ShownConversations


@dataclass(eq=False)
class ChatEvents:
    """Events that ask, or that change what is shown: the parts that they use."""

    _settings: Settings
    _stores: Stores
    _releases: Releases
    _running: RunningAnswers
    _shown: ShownConversations
    _parts: ChatParts
