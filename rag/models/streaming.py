"""Chat models that only stream."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatResult


class StreamedChatModel(BaseChatModel):
    """A chat model whose complete reply is its collected stream.

    Subclasses implement ``_stream``.
    """

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return generate_from_stream(self._stream(messages, stop, run_manager, **kwargs))


class EvidenceChatModel(StreamedChatModel):
    """A chat model whose ``_stream`` takes ``evidence``: what a prompt says, before it became text."""
