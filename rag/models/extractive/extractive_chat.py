"""The extractive reader as a chat model: answers without a language model.

It ranks the sentences of the retrieved passages and answers with the best one to three of them, quoted and cited.
It cannot combine, count or infer. If even the best sentence is unlikely to answer the question, it refuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.messages import BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk
from pydantic import ConfigDict

from rag.documents.citation_markers import on_one_line
from rag.errors import ModelProtocolError
from rag.models.extractive.evidence import Evidence
from rag.models.extractive.sentence_ranking import Candidate
from rag.models.extractive.yes_no import asks_yes_no
from rag.models.replies import ReplyChunk
from rag.models.streaming import EvidenceChatModel
from rag.settings import AnswerStyle


class ExtractiveReader(EvidenceChatModel):
    """The extractive reader as a LangChain chat model.

    It reads the ``Evidence`` beside the prompt and streams sentence by sentence.

    Attributes:
        ranking: Ranks the sentences, see ``rag.models.extractive.sentence_ranking.Ranking``.
        tokens: Counts tokens, see ``rag.encoders.encoder_tokens.TokenCounter``.
        min_confidence: Minimum probability of the best sentence, 0 to 1; below it, the reader refuses.
        style: Up to three sentences, the best one, or only the words that answer if they are known, which those
            of a question for yes or no never are.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    ranking: Any
    tokens: Any
    min_confidence: float
    style: AnswerStyle = "full"

    @property
    def _llm_type(self) -> str:
        return "ragsmith-extractive-reader"

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        evidence: Evidence | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        if evidence is None:
            raise ModelProtocolError(
                "The extractive reader needs passages.", fix="Use it only as the model of the chain."
            )
        ranked = self.ranking.rank(evidence)
        confidence = self.ranking.confidence(ranked)
        spans: tuple[tuple[int, int], ...] = ()
        whole = asks_yes_no(evidence.question)
        if not ranked or confidence < self.min_confidence:
            pieces = [evidence.refusal]
        else:
            chosen = self.ranking.choose(ranked) if self.style == "full" else ranked[:1]
            pieces = [f"{on_one_line(self._text_of(one, whole))} [{one.passage.number}]" for one in chosen]
            if self.style != "brief" and not whole:
                spans = tuple(_spans(chosen, pieces))
        read = sum(self.tokens.count([evidence.question, *(passage.text for passage in evidence.passages)]))
        written = self.tokens.count(pieces)
        for number, (piece, tokens) in enumerate(zip(pieces, written, strict=True)):
            usage = UsageMetadata(
                input_tokens=read if number == 0 else 0,
                output_tokens=tokens,
                total_tokens=(read if number == 0 else 0) + tokens,
            )
            message = ReplyChunk(
                content=piece if number == 0 else f" {piece}",
                usage_metadata=usage,
                confidence=confidence,
                spans=spans if number == 0 else (),
                quotes=True,
                chunk_position="last" if number == len(pieces) - 1 else None,
            )
            chunk = ChatGenerationChunk(message=message)
            if run_manager:
                run_manager.on_llm_new_token(str(message.content), chunk=chunk)
            yield chunk

    def _text_of(self, chosen: Candidate, whole: bool) -> str:
        if self.style == "brief" and chosen.span is not None and not whole:
            start, end = chosen.span
            return str(chosen.passage.text[start:end])
        return str(chosen.sentence.text)


def _spans(chosen: Sequence[Candidate], pieces: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the offsets of the answer spans in the joined pieces."""
    before = 0
    for one, piece in zip(chosen, pieces, strict=True):
        if one.span is not None:
            start, end = one.span
            answer = on_one_line(one.passage.text[start:end])
            # The words may occur twice in the sentence, so search from the length of the text before the span.
            lead = on_one_line(one.passage.text[one.sentence.start : start])
            at = piece.find(answer, max(len(lead) - 1, 0))
            if answer and at >= 0:
                yield before + at, before + at + len(answer)
        before += len(piece) + 1
