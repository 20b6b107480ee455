"""The generator behind LangChain's seam for chat models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.messages import BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk
from pydantic import ConfigDict, Field

from rag.errors import ModelError
from rag.models.extractive.evidence import Evidence
from rag.models.generator.case_restoration import Restorer
from rag.models.generator.generator_decoding import Refusal, Sampling
from rag.models.generator.generator_input import Rendered
from rag.models.local.batching import Piece
from rag.models.local.token_text import StopFilter
from rag.models.replies import ReplyChunk
from rag.models.streaming import EvidenceChatModel
from rag.tracing.cost import HERE

# A refusal is written where it is more probable than not.
LEAST = 0.5


class GeneratorChatModel(EvidenceChatModel):
    """Streams a reply word by word. A call may override ``temperature``, ``max_tokens`` and ``seed``.

    Of a prompt that does not fit its window it drops passages, and says with the reply how many.

    Attributes:
        generator: See ``rag.models.generator.generator_decoding.Generator``.
        temperature: 0 always takes the most probable token.
        max_tokens: After so many tokens a reply ends.
        seed: Equal seeds give equal replies; None draws anew.
        stop: Texts before which every reply ends, beside those that a call names.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    metadata: dict[str, Any] | None = Field(default_factory=lambda: {HERE: True})
    generator: Any
    temperature: float = 0.0
    max_tokens: int = 512
    seed: int | None = None
    stop: tuple[str, ...] = ()

    @property
    def _llm_type(self) -> str:
        return "ragsmith-generator"

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        evidence: Evidence | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        texts = [str(message.text) for message in messages]
        if not any(text.strip() for text in texts):
            raise ModelError("There is nothing to answer: the prompt is empty.", fix="Ask a question.")
        passages = []
        if evidence is not None:
            passages = [each.text for each in evidence.passages]
            texts = list(evidence.messages) or texts
        renderer = self.generator.renderer
        prompt = renderer.prompt(texts, passages)
        refusal = Refusal(renderer.reply(evidence.refusal), LEAST) if evidence is not None else None
        sampling = Sampling(float(kwargs.get("temperature", self.temperature)), kwargs.get("seed", self.seed))
        most = int(kwargs.get("max_tokens", self.max_tokens))
        tokens = self.generator.write(prompt, most, sampling, refusal)
        for piece in self._pieces(prompt, most, tokens, (*self.stop, *(stop or ()))):
            chunk = self._chunk(piece, prompt.dropped)
            if run_manager:
                run_manager.on_llm_new_token(piece.text, chunk=chunk)
            yield chunk

    def _pieces(
        self, prompt: Rendered, most: int, tokens: Iterator[int], stop: tuple[str, ...]
    ) -> Iterator[Piece]:
        renderer = self.generator.renderer
        restorer = Restorer(prompt, [renderer.word(token) for token in prompt.ids])
        stops = StopFilter(stop)
        yield Piece(read=len(prompt.ids))
        uncounted = written = 0
        for token in tokens:
            uncounted, written = uncounted + 1, written + 1
            text, stopped = stops.add(restorer.add(renderer.word(token)))
            if stopped:
                yield Piece(text, written=uncounted, ending="stop")
                return
            if text:
                yield Piece(text, written=uncounted)
                uncounted = 0
        text, stopped = stops.add(restorer.rest())
        full = written == self.generator.room(prompt, most) and not stopped
        yield Piece(
            text if stopped else text + stops.rest(), written=uncounted, ending="length" if full else "stop"
        )

    def _chunk(self, piece: Piece, unread: int) -> ChatGenerationChunk:
        usage = UsageMetadata(
            input_tokens=piece.read, output_tokens=piece.written, total_tokens=piece.read + piece.written
        )
        message = ReplyChunk(
            content=piece.text,
            usage_metadata=usage,
            response_metadata={"finish_reason": piece.ending} if piece.ending else {},
            unread=unread,
            chunk_position="last" if piece.ending else None,
        )
        return ChatGenerationChunk(message=message)
