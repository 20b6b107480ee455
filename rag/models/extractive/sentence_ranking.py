"""Which sentences of the passages answer a question, and how probably the best one does.

Two rankings: by likeness of sentence and question alone, and with the tuned reader, which knows what an answer
looks like. Both weigh a few features of each sentence; the weights are logistic regressions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from rag.documents.sentences import Sentence, split_sentences
from rag.encoders.encoder import Encoder
from rag.indexing.lexical_index import LexicalIndex
from rag.models.extractive.evidence import Evidence, EvidencePassage
from rag.models.extractive.span_reader import ReadPassage, SpanReader
from rag.models.extractive.spans import Span

# Sentences beyond this length are lists or code that no sentence end was found in.
LONGEST = 600
MOST_SENTENCES = 3
_SPACE = re.compile(r"\s+")
_DIGIT = re.compile(r"\d")
_ASKS_NUMBER = re.compile(
    r"\b(how (?:many|much|long|often|old|far|big|large|fast)|when|what (?:year|date|number|port|version))\b"
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence that may answer.

    Attributes:
        features: In the order of the ranking's ``FEATURES``.
        score: Weighted sum of the features; only its order counts.
        span: The answer itself, offsets into the passage's text; None where only the sentence is known.
    """

    passage: EvidencePassage
    sentence: Sentence
    features: tuple[float, ...]
    score: float
    span: tuple[int, int] | None = None


class Ranking(Protocol):
    """Ranks sentences, and knows how far it can be believed."""

    min_confidence: float
    """Probability of the best sentence under which it is better not told."""

    def rank(self, evidence: Evidence) -> list[Candidate]:
        """Sentences of the evidence, best first; not all, where the rest cannot matter."""
        ...

    def confidence(self, ranked: Sequence[Candidate]) -> float:
        """The probability that the best sentence answers the question, 0 to 1; 0 without sentences."""
        ...

    def choose(self, ranked: Sequence[Candidate]) -> list[Candidate]:
        """The best sentence and what belongs to its answer, in reading order; ``ranked`` has at least one."""
        ...


class SentenceRanking:
    """By likeness of sentence and question, in meaning and in words.

    Fitted on questions of the SQuAD 2.0 development set (eight articles; eight others to check), over the passages
    that our own retrieval gives. WEIGHTS tell sentences that hold the answer from the others: on the articles
    left out the first sentence held it for 70 % of the questions, one of the first three for 86 %. CONFIDENCE
    tells questions whose article is in the corpus from questions whose article was taken out, by the first four
    features of the best sentence.

    Args:
        encoder: For likeness of meaning.
        lexical: Knows how rare a word is in the corpus.
    """

    FEATURES = ("cosine", "overlap", "passage_overlap", "passage_cosine", "place", "number", "short")
    WEIGHTS = (4.79, 4.792, 0.483, -4.0, 3.814, 0.446, -1.137)
    CONFIDENCE_WEIGHTS = (8.085, 3.547, 4.436, 6.857)
    CONFIDENCE_INTERCEPT = -9.541
    # 1.5 sentences on average, and four of five answers are among them.
    NEARLY = 1.0
    min_confidence = 0.12

    def __init__(self, encoder: Encoder, lexical: LexicalIndex) -> None:
        self._encoder = encoder
        self._lexical = lexical

    def rank(self, evidence: Evidence) -> list[Candidate]:
        """See ``Ranking.rank``."""
        found = [
            (passage, sentence)
            for passage in evidence.passages
            for sentence in split_sentences(passage.text)
            if _may_answer(sentence)
        ]
        if not found:
            return []
        words = _Words(evidence, self._lexical)
        vectors = self._encoder.embed([evidence.question, *(_plain(sentence) for _, sentence in found)])
        cosines = vectors[1:] @ vectors[0]
        candidates = []
        for (passage, sentence), cosine in zip(found, cosines.tolist(), strict=True):
            features = (cosine, *words.features(passage, sentence))
            candidates.append(Candidate(passage, sentence, features, _weighed(self.WEIGHTS, features)))
        return sorted(candidates, key=lambda each: -each.score)

    def confidence(self, ranked: Sequence[Candidate]) -> float:
        """See ``Ranking.confidence``."""
        if not ranked:
            return 0.0
        return _logistic(_weighed(self.CONFIDENCE_WEIGHTS, ranked[0].features) + self.CONFIDENCE_INTERCEPT)

    def choose(self, ranked: Sequence[Candidate]) -> list[Candidate]:
        """See ``Ranking.choose``."""
        return choose(ranked, self.NEARLY)


class SpanRanking:
    """By the tuned reader's span in each sentence, with likeness in words and in meaning beside it.

    Fitted by ``python -m tests.benchmarks --only weights`` on an article that the reader was not trained on, asked
    of 1,216 paragraphs, and on half of the handbook's questions. WEIGHTS tell sentences that hold the answer from
    the others, CONFIDENCE tells questions that the corpus answers from those that it does not.

    Args:
        reader: The tuned reader.
        encoder: For likeness of meaning.
        lexical: Knows how rare a word is in the corpus.
        looked_at: Of so many sentences, the best by all else, the likeness of meaning is computed.
    """

    FEATURES = ("margin", "cosine", "overlap", "passage_overlap", "passage_cosine", "place", "number", "short")
    WEIGHTS = (0.283, 1.701, 1.548, -0.25, -1.151, 2.703, -0.027, 0.273)
    CONFIDENCE_WEIGHTS = (0.238, 1.029, -2.456, 1.275, 2.776)
    CONFIDENCE_INTERCEPT = -0.755
    # 1.7 sentences on average on the handbook's questions.
    NEARLY = 1.2
    # How far below the margin of the best another passage's may lie for both to be told.
    RIVAL = 1.5
    min_confidence = 0.3

    def __init__(self, reader: SpanReader, encoder: Encoder, lexical: LexicalIndex, looked_at: int = 8) -> None:
        self._reader = reader
        self._encoder = encoder
        self._lexical = lexical
        self._looked_at = looked_at

    def rank(self, evidence: Evidence) -> list[Candidate]:
        """The best sentences of the evidence, best first; see ``Ranking.rank``."""
        words = _Words(evidence, self._lexical)
        if words.none:
            # Trained on questions only: to anything else it finds an answer.
            return []
        read = self._reader.read(
            evidence.question,
            [ReadPassage(each.text, (each.title, *each.headings)) for each in evidence.passages],
        )
        found = [
            self._candidate(passage, span, (span.margin, 0.0, *words.features(passage, span.sentence)))
            for passage, spans in zip(evidence.passages, read, strict=True)
            for span in spans
            if _may_answer(span.sentence)
        ]
        best = sorted(found, key=lambda each: -each.score)[: self._looked_at]
        if not best:
            return []
        vectors = self._encoder.embed([evidence.question, *(_plain(each.sentence) for each in best)])
        cosines = (vectors[1:] @ vectors[0]).tolist()
        for at, (each, cosine) in enumerate(zip(best, cosines, strict=True)):
            features = (each.features[0], cosine, *each.features[2:])
            best[at] = replace(each, features=features, score=_weighed(self.WEIGHTS, features))
        return sorted(best, key=lambda each: -each.score)

    def confidence(self, ranked: Sequence[Candidate]) -> float:
        """See ``Ranking.confidence``."""
        if not ranked:
            return 0.0
        return _logistic(_weighed(self.CONFIDENCE_WEIGHTS, ranked[0].features) + self.CONFIDENCE_INTERCEPT)

    def choose(self, ranked: Sequence[Candidate]) -> list[Candidate]:
        """See ``Ranking.choose``; where another passage answers differently, as surely, both are told."""
        best = ranked[0]
        rivals = [
            each
            for each in ranked[1:]
            if each.passage is not best.passage
            and each.features[0] >= max(best.features[0] - self.RIVAL, 0.0)
            and not _same_answer(each, best)
        ]
        return choose(ranked, self.NEARLY, rivals[:1])

    def _candidate(self, passage: EvidencePassage, span: Span, features: tuple[float, ...]) -> Candidate:
        score = _weighed(self.WEIGHTS, features)
        return Candidate(passage, span.sentence, features, score, (span.start, span.end))


def choose(ranked: Sequence[Candidate], nearly: float, rivals: Sequence[Candidate] = ()) -> list[Candidate]:
    """The best sentence and up to two more that belong to the answer, in reading order.

    Args:
        ranked: At least one, best first.
        nearly: How far below the best another may score.
        rivals: Told before the others, however they score.
    """
    best = ranked[0]
    chosen = [best]
    near = (other for other in ranked[1:] if other.score >= best.score - nearly)
    for other in (*rivals, *near):
        if len(chosen) == MOST_SENTENCES:
            break
        known = {_plain(each.sentence).casefold() for each in chosen}
        if _plain(other.sentence).casefold() not in known:
            chosen.append(other)
    order = {each.passage.number: at for at, each in reversed(list(enumerate(chosen)))}
    return sorted(chosen, key=lambda each: (order[each.passage.number], each.sentence.start))


class _Words:
    """What words say of a sentence: how much of the question it holds, and where it stands."""

    def __init__(self, evidence: Evidence, lexical: LexicalIndex) -> None:
        self._lexical = lexical
        self._rarity = {word: _rarity(word, lexical) for word in lexical.words(evidence.question)}
        self._asks_number = bool(_ASKS_NUMBER.search(evidence.question.lower()))
        # One for all sentences of a passage, so that it is made once.
        self._around = {
            passage.number: _overlap(
                self._rarity, lexical.words(f"{passage.title} {' '.join(passage.headings)} {passage.text}")
            )
            for passage in evidence.passages
        }

    @property
    def none(self) -> bool:
        """Whether the question has no word that means anything."""
        return not self._rarity

    def features(self, passage: EvidencePassage, sentence: Sentence) -> Iterator[float]:
        """``overlap`` to ``short``."""
        yield _overlap(self._rarity, self._lexical.words(sentence.text))
        yield self._around[passage.number]
        yield passage.cosine or 0.0
        yield 1.0 / passage.number
        yield 1.0 if self._asks_number and _DIGIT.search(sentence.text) else 0.0
        yield 1.0 if len(sentence.text.split()) < 5 else 0.0


def _same_answer(one: Candidate, other: Candidate) -> bool:
    """Whether the words of one answer are among those of the other."""
    told = [set(each.passage.text[slice(*each.span)].casefold().split()) for each in (one, other) if each.span]
    return len(told) == 2 and (told[0] <= told[1] or told[1] <= told[0])


def _may_answer(sentence: Sentence) -> bool:
    return len(sentence.text) <= LONGEST and not sentence.heading


def _plain(sentence: Sentence) -> str:
    return _SPACE.sub(" ", sentence.text)


def _rarity(word: str, lexical: LexicalIndex) -> float:
    total = max(len(lexical), 1)
    return math.log(1 + total / (1 + lexical.frequency(word)))


def _overlap(weights: Mapping[str, float], words: Sequence[str]) -> float:
    """The share of the question's words, weighted by how rare they are, that stand among ``words``."""
    total = sum(weights.values())
    return sum(weights[word] for word in set(words) & weights.keys()) / total if total else 0.0


def _weighed(weights: Sequence[float], features: Sequence[float]) -> float:
    return sum(weight * value for weight, value in zip(weights, features, strict=False))


def _logistic(told: float) -> float:
    return 1 / (1 + math.exp(-max(min(told, 50.0), -50.0)))
