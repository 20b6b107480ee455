"""Local models as LangChain chat models."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Iterator
from dataclasses import fields
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.chat_models import agenerate_from_stream
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import Field

from rag.errors import ModelError
from rag.models.local.batching import Piece
from rag.models.local.local_engine import Decoding, LocalEngine
from rag.models.local.token_sampling import Sampling
from rag.models.streaming import StreamedChatModel
from rag.tracing.cost import HERE

_SAMPLED = fields(Sampling)


class LocalChatModel(StreamedChatModel):
    """Streams replies of a model in this process, and raises only ``ModelError``.

    Every piece carries the tokens that it adds to the count, so that a stopped answer has a count too. Closing the
    stream stops the work. A call may override ``max_tokens`` and the sampling.

    Attributes:
        engine: A ``LocalEngine``, shared with other chat models.
        adapter: Name of an adapter that the engine has loaded; None for the base model.
        temperature, top_p, top_k, repetition_penalty, seed: See ``token_sampling.Sampling``.
        max_tokens: Maximum tokens of a reply.
        stop: Texts that end every reply, in addition to those of a call.
    """

    metadata: dict[str, Any] | None = Field(default_factory=lambda: {HERE: True})
    engine: Any
    model: str
    adapter: str | None = None
    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    max_tokens: int = 512
    stop: tuple[str, ...] = ()

    @property
    def _llm_type(self) -> str:
        return "ragsmith-local"

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        pieces: queue.SimpleQueue[Piece | ModelError] = queue.SimpleQueue()
        engine: LocalEngine = self.engine
        row = engine.start(messages, self._decoding(stop, kwargs), pieces.put, self.adapter)
        try:
            while True:
                piece = _checked(pieces.get())
                chunk = self._chunk(piece)
                if run_manager:
                    run_manager.on_llm_new_token(piece.text, chunk=chunk)
                yield chunk
                if piece.ending:
                    return
        finally:
            row.cancel()

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        pieces: asyncio.Queue[Piece | ModelError] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def put(piece: Piece | ModelError) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        engine: LocalEngine = self.engine
        row = engine.start(messages, self._decoding(stop, kwargs), put, self.adapter)
        try:
            while True:
                piece = _checked(await pieces.get())
                chunk = self._chunk(piece)
                if run_manager:
                    await run_manager.on_llm_new_token(piece.text, chunk=chunk)
                yield chunk
                if piece.ending:
                    return
        finally:
            row.cancel()

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await agenerate_from_stream(self._astream(messages, stop, run_manager, **kwargs))

    def _decoding(self, stop: list[str] | None, given: dict[str, Any]) -> Decoding:
        return Decoding(
            max_tokens=int(given.get("max_tokens", self.max_tokens)),
            sampling=Sampling(
                **{option.name: given.get(option.name, getattr(self, option.name)) for option in _SAMPLED}
            ),
            stops=(*self.stop, *(stop or ())),
        )

    def _chunk(self, piece: Piece) -> ChatGenerationChunk:
        usage = UsageMetadata(
            input_tokens=piece.read, output_tokens=piece.written, total_tokens=piece.read + piece.written
        )
        metadata: dict[str, Any] = {}
        if piece.ending:
            metadata = {"finish_reason": piece.ending, "model_name": self.model}
            if self.adapter:
                metadata["adapter"] = self.adapter
        message = AIMessageChunk(
            content=piece.text,
            usage_metadata=usage,
            response_metadata=metadata,
            chunk_position="last" if piece.ending else None,
        )
        return ChatGenerationChunk(message=message)


def _checked(piece: Piece | ModelError) -> Piece:
    if isinstance(piece, ModelError):
        # The error is shared by all rows of a batch, but each needs its own traceback.
        raise type(piece)(piece.message, fix=piece.fix) from piece.__cause__
    return piece
