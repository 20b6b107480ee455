"""The answers that are being written, by conversation."""

from __future__ import annotations

from rag.answering.answer_stream import AnswerStream


class RunningAnswers:
    """At most one stream for a conversation."""

    def __init__(self) -> None:
        self._streams: dict[str, AnswerStream] = {}

    def __contains__(self, conversation_id: object) -> bool:
        return conversation_id in self._streams

    def add(self, conversation_id: str, stream: AnswerStream) -> None:
        """Add an answer that has begun."""
        self._streams[conversation_id] = stream

    def stop(self, conversation_id: str) -> None:
        """Stop the answer of a conversation, if one is being written."""
        stream = self._streams.get(conversation_id)
        if stream is not None:
            stream.stop()

    async def end(self, conversation_id: str, stream: AnswerStream) -> None:
        """Close an answer and remove it, unless another one has taken its place."""
        if self._streams.get(conversation_id) is stream:
            del self._streams[conversation_id]
        await stream.close()
