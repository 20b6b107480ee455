"""What a chat model replies, streamed to its end."""

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
    """The whole reply; its pieces go to the listeners of ``config`` as they come."""
    pieces = [chunk async for chunk in model.astream(list(messages), config=config)]
    # Together: one by one, each would copy all that came before it.
    return add_ai_message_chunks(AIMessageChunk(content=""), *pieces)


def usage_of(reply: AIMessageChunk) -> Usage:
    """The tokens of a reply, as far as its model said."""
    return read_usage(reply.usage_metadata or {})


def was_cut(reply: AIMessageChunk) -> bool:
    """Whether the token limit ended it."""
    return reply.response_metadata.get("finish_reason") == "length"


def unread_of(reply: AIMessageChunk) -> int:
    """How many passages the model's window had no room for."""
    return int(reply.response_metadata.get("unread", 0))
