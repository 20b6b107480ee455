"""The embedded reader: an answer without a language model.

It ranks the sentences of the retrieved passages for the question and answers with the best one to three of them,
word for word and cited. It cannot combine, count or conclude. When even the best sentence is unlikely to answer,
it says that the documents do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.messages import BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk
from pydantic import ConfigDict

from rag.documents.citation_markers import without_markers
from rag.errors import ModelProtocolError
from rag.models.extractive.evidence import Evidence
from rag.models.extractive.sentence_ranking import Candidate
from rag.models.replies import ReplyChunk
from rag.models.streaming import EvidenceChatModel
from rag.settings import AnswerStyle

_SPACE = re.compile(r"\s+")


class EmbeddedReader(EvidenceChatModel):
    """The reader behind LangChain's seam for chat models.

    It reads the ``Evidence`` beside the prompt, and streams sentence by sentence.

    Attributes:
        ranking: Ranks the sentences, see ``rag.models.extractive.sentence_ranking.Ranking``.
        tokens: Counts what is read and written, see ``rag.encoders.encoder_tokens.TokenCounter``.
        min_confidence: Probability of the best sentence under which it refuses, 0 to 1.
        style: Up to three sentences, the best one, or only the words that answer, as far as they are known.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    ranking: Any
    tokens: Any
    min_confidence: float
    style: AnswerStyle = "full"

    @property
    def _llm_type(self) -> str:
        return "ragsmith-embedded-reader"

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
                "The embedded reader was given no passages.", fix="Use it as the model of the chain only."
            )
        ranked = self.ranking.rank(evidence)
        confidence = self.ranking.confidence(ranked)
        spans: tuple[tuple[int, int], ...] = ()
        if confidence < self.min_confidence:
            pieces = [evidence.refusal]
        else:
            chosen = self.ranking.choose(ranked)[: None if self.style == "full" else 1]
            pieces = [f"{_quoted(self._words(each))} [{each.passage.number}]" for each in chosen]
            if self.style == "full":
                spans = tuple(_spans(chosen, pieces))
        read = sum(self.tokens.count([evidence.question, *(each.text for each in evidence.passages)]))
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
                chunk_position="last" if number == len(pieces) - 1 else None,
            )
            chunk = ChatGenerationChunk(message=message)
            if run_manager:
                run_manager.on_llm_new_token(str(message.content), chunk=chunk)
            yield chunk

    def _words(self, chosen: Candidate) -> str:
        if self.style == "brief" and chosen.span is not None:
            start, end = chosen.span
            return str(chosen.passage.text[start:end])
        return str(chosen.sentence.text)


def _quoted(text: str) -> str:
    """The text on one line, without marks that would be taken for citations of this answer."""
    return _SPACE.sub(" ", without_markers(text)).strip()


def _spans(chosen: Sequence[Candidate], pieces: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Where in the joined pieces the answers themselves stand."""
    before = 0
    for each, piece in zip(chosen, pieces, strict=True):
        if each.span is not None:
            start, end = each.span
            answer = _quoted(each.passage.text[start:end])
            # The same words may stand in the sentence twice: it is the one that so much text goes before.
            lead = _quoted(each.passage.text[each.sentence.start : start])
            at = piece.find(answer, max(len(lead) - 1, 0))
            if answer and at >= 0:
                yield before + at, before + at + len(answer)
        before += len(piece) + 1
