"""Training rows."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from prompts import Message


@dataclass(frozen=True, slots=True)
class ReadingRow:
    """A question and a passage that may answer it.

    Attributes:
        place: Title and headings above the passage, outermost first.
        answers: Character spans (start, end) of the answers in the passage; empty if it does not answer.
        exact: Whether the spans are the answers; otherwise the answer lies somewhere inside.
    """

    question: str
    passage: str
    place: tuple[str, ...] = ()
    answers: tuple[tuple[int, int], ...] = ()
    exact: bool = True


@dataclass(frozen=True, slots=True)
class ChatRow:
    """A conversation and the reply to learn.

    Attributes:
        turns: The conversation, as a chat model receives it.
        completion: The reply to it.
        where: File and line, for messages.
        ends: Whether the end of the reply is learnt, too.
    """

    turns: tuple[Message, ...]
    completion: str
    where: str = ""
    ends: bool = True

    @property
    def key(self) -> str:
        """Hash of the conversation: rows with equal conversations belong to the same split."""
        turns = [(turn.role, turn.content) for turn in self.turns]
        return hashlib.sha256(json.dumps(turns).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class PreferenceRow:
    """Two replies to the same conversation, of which one is better."""

    chosen: ChatRow
    rejected: ChatRow

    @property
    def key(self) -> str:
        """See ``ChatRow.key``."""
        return self.chosen.key
