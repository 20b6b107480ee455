"""The answers that are being written, by conversation, and which conversation each open page shows."""

from __future__ import annotations

from rag.answering.answer_stream import AnswerStream

PAGES = 10_000
"""Open pages that are remembered; of a forgotten one any conversation may be shown."""


class ShownConversations:
    """The conversation that each open page shows: an answer to another one must not replace it."""

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}

    def show(self, page: str | None, conversation_id: str) -> None:
        """Note that a page shows a conversation; empty for a new one."""
        if page is None:
            return
        self._shown.pop(page, None)
        self._shown[page] = conversation_id
        while len(self._shown) > PAGES:
            del self._shown[next(iter(self._shown))]

    def shows(self, page: str | None, conversation_id: str) -> bool:
        """Whether a page may show what belongs to a conversation."""
        return self._shown.get(page or "", conversation_id) == conversation_id


class RunningAnswers:
    """At most one stream for a conversation."""

    def __init__(self) -> None:
        self._streams: dict[str, AnswerStream] = {}
        self._drafts: dict[str, str] = {}

    def __contains__(self, conversation_id: object) -> bool:
        return conversation_id in self._streams

    def add(self, conversation_id: str, stream: AnswerStream, html: str = "") -> None:
        """Add an answer that has begun, as it is shown at first."""
        self._drafts[conversation_id] = html
        self._streams[conversation_id] = stream

    def write(self, conversation_id: str, html: str) -> None:
        """Keep what has been written of an answer, for pages that turn to its conversation."""
        self._drafts[conversation_id] = html

    def draft(self, conversation_id: str) -> str:
        """Return what has been written of an answer; empty if nothing is being written."""
        return self._drafts.get(conversation_id, "")

    def stop(self, conversation_id: str) -> None:
        """Stop the answer of a conversation, if one is being written."""
        stream = self._streams.get(conversation_id)
        if stream is not None:
            stream.stop()

    async def end(self, conversation_id: str, stream: AnswerStream) -> None:
        """Close an answer and remove it, unless another one has taken its place."""
        if self._streams.get(conversation_id) is stream:
            del self._streams[conversation_id]
            self._drafts.pop(conversation_id, None)
        await stream.close()
