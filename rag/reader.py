"""The embedded reader: an answer without a language model.

It ranks the sentences of the retrieved passages for the question and answers with the best one to three of them,
word for word and cited. It cannot combine, count or conclude. When even the best sentence is unlikely to answer,
it says that the documents do not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import ConfigDict

from rag.encoder.base import Encoder
from rag.errors import ModelProtocolError
from rag.grounding import without_markers
from rag.lexical import LexicalIndex
from rag.sentences import Sentence, split_sentences

# Sentences beyond this length are lists or code that no sentence end was found in.
LONGEST = 600
MOST_SENTENCES = 3
_SPACE = re.compile(r"\s+")
_DIGIT = re.compile(r"\d")
_ASKS_NUMBER = re.compile(
    r"\b(how (?:many|much|long|often|old|far|big|large|fast)|when|what (?:year|date|number|port|version))\b"
)


@dataclass(frozen=True, slots=True)
class EvidencePassage:
    """One numbered passage of the prompt."""

    number: int
    text: str
    title: str
    headings: tuple[str, ...]
    cosine: float | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the reader reads, beside the rendered prompt: the same, not yet turned into text."""

    question: str
    passages: tuple[EvidencePassage, ...]
    refusal: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence that may answer.

    Attributes:
        features: In the order of ``FEATURES``.
        score: Weighted sum of the features; only its order counts.
    """

    passage: EvidencePassage
    sentence: Sentence
    features: tuple[float, ...]
    score: float


# Logistic regressions on questions of the SQuAD 2.0 development set (eight articles; eight others to check), over
# the passages that our own retrieval gives. WEIGHTS tell sentences that hold the answer from the others: on the
# articles left out the first sentence held it for 70 % of the questions, one of the first three for 86 %.
FEATURES = ("cosine", "overlap", "passage_overlap", "passage_cosine", "place", "number", "short")
WEIGHTS = (4.79, 4.792, 0.483, -4.0, 3.814, 0.446, -1.137)
# CONFIDENCE tells questions whose article is in the corpus from questions whose article was taken out, by the
# first four features of the best sentence.
CONFIDENCE_WEIGHTS = (8.085, 3.547, 4.436, 6.857)
CONFIDENCE_INTERCEPT = -9.541
# How far below the best a sentence may score and still be told: 1.5 sentences on average, and four of five
# answers are among them.
NEARLY = 1.0


def rank(evidence: Evidence, encoder: Encoder, lexical: LexicalIndex) -> list[Candidate]:
    """All sentences of the evidence, best first.

    Args:
        evidence: Question and passages.
        encoder: For likeness of meaning.
        lexical: Knows how rare a word is in the corpus.
    """
    found = [
        (passage, sentence)
        for passage in evidence.passages
        for sentence in split_sentences(passage.text)
        if len(sentence.text) <= LONGEST and not sentence.heading
    ]
    if not found:
        return []
    weights = {word: _rarity(word, lexical) for word in lexical.words(evidence.question)}
    # One for all sentences of a passage, so that it is made once.
    around = {
        passage.number: _overlap(
            weights, lexical.words(f"{passage.title} {' '.join(passage.headings)} {passage.text}")
        )
        for passage in evidence.passages
    }
    plain = [_SPACE.sub(" ", sentence.text) for _, sentence in found]
    vectors = encoder.embed([evidence.question, *plain])
    cosines = vectors[1:] @ vectors[0]
    asks_number = bool(_ASKS_NUMBER.search(evidence.question.lower()))
    candidates = []
    for at, (passage, sentence) in enumerate(found):
        features = (
            float(cosines[at]),
            _overlap(weights, lexical.words(sentence.text)),
            around[passage.number],
            passage.cosine or 0.0,
            1.0 / passage.number,
            1.0 if asks_number and _DIGIT.search(sentence.text) else 0.0,
            1.0 if len(sentence.text.split()) < 5 else 0.0,
        )
        score = sum(weight * value for weight, value in zip(WEIGHTS, features, strict=True))
        candidates.append(Candidate(passage, sentence, features, score))
    return sorted(candidates, key=lambda each: -each.score)


def confidence(best: Candidate) -> float:
    """The probability that the best sentence answers the question, 0 to 1."""
    told = sum(weight * value for weight, value in zip(CONFIDENCE_WEIGHTS, best.features, strict=False))
    return 1 / (1 + math.exp(-(told + CONFIDENCE_INTERCEPT)))


def _rarity(word: str, lexical: LexicalIndex) -> float:
    total = max(len(lexical), 1)
    return math.log(1 + total / (1 + lexical.frequency(word)))


def _overlap(weights: Mapping[str, float], words: Sequence[str]) -> float:
    """The share of the question's words, weighted by how rare they are, that stand among ``words``."""
    total = sum(weights.values())
    return sum(weights[word] for word in set(words) & weights.keys()) / total if total else 0.0


def choose(ranked: Sequence[Candidate]) -> list[Candidate]:
    """The best sentence and up to two more that belong to the answer, in reading order.

    Others belong to it when they score nearly as well, or when they go on right behind the best one and share
    its passage.
    """
    best = ranked[0]
    chosen = [best]
    for other in ranked[1:]:
        if len(chosen) == MOST_SENTENCES:
            break
        known = {_SPACE.sub(" ", each.sentence.text).casefold() for each in chosen}
        if other.score >= best.score - NEARLY and _SPACE.sub(" ", other.sentence.text).casefold() not in known:
            chosen.append(other)
    order = {each.passage.number: at for at, each in reversed(list(enumerate(chosen)))}
    return sorted(chosen, key=lambda each: (order[each.passage.number], each.sentence.start))


def _quoted(sentence: Sentence) -> str:
    """The sentence on one line, without marks that would be taken for citations of this answer."""
    return _SPACE.sub(" ", without_markers(sentence.text)).strip()


class EmbeddedReader(BaseChatModel):
    """The reader behind LangChain's seam for chat models.

    It reads the ``Evidence`` that the prompt step hangs on the last message, and streams sentence by sentence.

    Attributes:
        min_confidence: Probability of the best sentence under which it refuses, 0 to 1.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    encoder: Any
    lexical: Any
    min_confidence: float

    @property
    def _llm_type(self) -> str:
        return "ragsmith-embedded-reader"

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        evidence = messages[-1].additional_kwargs.get("evidence")
        if not isinstance(evidence, Evidence):
            raise ModelProtocolError(
                "The embedded reader was given no passages.", fix="Use it as the model of the chain only."
            )
        ranked = rank(evidence, self.encoder, self.lexical)
        sure = confidence(ranked[0]) if ranked else 0.0
        if sure < self.min_confidence:
            pieces = [evidence.refusal]
        else:
            pieces = [f"{_quoted(each.sentence)} [{each.passage.number}]" for each in choose(ranked)]
        read = sum(self.encoder.tokens.count([evidence.question, *(each.text for each in evidence.passages)]))
        written = self.encoder.tokens.count(pieces)
        for number, (piece, tokens) in enumerate(zip(pieces, written, strict=True)):
            usage = UsageMetadata(
                input_tokens=read if number == 0 else 0,
                output_tokens=tokens,
                total_tokens=(read if number == 0 else 0) + tokens,
            )
            message = AIMessageChunk(
                content=piece if number == 0 else f" {piece}",
                usage_metadata=usage,
                response_metadata={"confidence": sure} if number == 0 else {},
                chunk_position="last" if number == len(pieces) - 1 else None,
            )
            chunk = ChatGenerationChunk(message=message)
            if run_manager:
                run_manager.on_llm_new_token(str(message.content), chunk=chunk)
            yield chunk

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return generate_from_stream(self._stream(messages, stop, run_manager, **kwargs))
