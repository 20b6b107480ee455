"""What a chat model replies, streamed to its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from langchain_core.messages import AIMessageChunk, BaseMessage

from rag.events import Usage

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.runnables import RunnableConfig


async def reply_of(
    model: BaseChatModel, messages: Sequence[BaseMessage], config: RunnableConfig
) -> AIMessageChunk:
    """The whole reply; its pieces go to the listeners of ``config`` as they come."""
    reply = AIMessageChunk(content="")
    async for chunk in model.astream(list(messages), config=config):
        reply = reply + chunk
    return reply


def usage_of(reply: AIMessageChunk) -> Usage:
    """The tokens of a reply, as far as its model said."""
    used = reply.usage_metadata
    return Usage(used["input_tokens"], used["output_tokens"]) if used else Usage()


def was_cut(reply: AIMessageChunk) -> bool:
    """Whether the token limit ended it."""
    return reply.response_metadata.get("finish_reason") == "length"


def unread_of(reply: AIMessageChunk) -> int:
    """How many passages the model's window had no room for."""
    return int(reply.response_metadata.get("unread", 0))
