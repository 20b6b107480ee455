"""Complete replies of chat models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.messages.ai import add_ai_message_chunks

from rag.tracing.cost import read_usage
from rag.types import Usage

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.runnables import RunnableConfig


async def reply_of(
    model: BaseChatModel, messages: Sequence[BaseMessage], config: RunnableConfig
) -> AIMessageChunk:
    """Stream a reply to the callbacks of ``config`` and return it as a whole."""
    pieces = [chunk async for chunk in model.astream(list(messages), config=config)]
    # Adding chunks one by one would copy the text every time.
    return add_ai_message_chunks(AIMessageChunk(content=""), *pieces)


def usage_of(reply: AIMessageChunk) -> Usage:
    """Return the token usage that the model reported."""
    return read_usage(reply.usage_metadata or {})


def was_cut(reply: AIMessageChunk) -> bool:
    """Whether the token limit truncated the reply."""
    return reply.response_metadata.get("finish_reason") == "length"


def unread_of(reply: AIMessageChunk) -> int:
    """Return the number of passages that did not fit the model's window."""
    return int(reply.response_metadata.get("unread", 0))
