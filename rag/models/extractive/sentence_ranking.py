"""Ranking of the sentences that may answer a question, and the probability that the best one does.

There are two rankings: by similarity of sentence and question alone, and with the tuned reader, which recognizes
answers. Both weight a few features of a sentence; the weights come from logistic regressions.
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
from rag.models.extractive.readable import MOST_SENTENCES, Readable, readable
from rag.models.extractive.span_reader import ReadPassage, SpanReader
from rag.models.extractive.spans import Span
from rag.models.extractive.yes_no import Marked, margins_about_subject

# A question in a document with this cosine or more is the question asked, in the same or other words.
SAME_QUESTION = 0.8
# Probability that a row answers if the question names it and one of its columns.
LOOKED_UP = 0.9
# What the score of a sentence gains that begins with the purpose that is asked about.
SAYS_HOW = 4.0
_SPACE = re.compile(r"\s+")
_DIGIT = re.compile(r"\d")
_ASKS_NUMBER = re.compile(
    r"\b(how (?:many|much|long|often|old|far|big|large|fast)|when|what (?:year|date|number|port|version))\b"
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence that may answer the question.

    Attributes:
        features: Features in the order of the ranking's ``FEATURES``.
        score: Weighted sum of the features; only the order of scores is meaningful.
        span: Offsets of the answer in the passage's text; None if only the sentence is known.
        sure: How surely it answers by the form of the document, 0 to 1: the document asks the same question before
            it, or the question names the row and the column of a table. 0 if there is no such sign.
    """

    passage: EvidencePassage
    sentence: Sentence
    features: tuple[float, ...]
    score: float
    span: tuple[int, int] | None = None
    sure: float = 0.0


class Ranking(Protocol):
    """Ranks sentences and estimates its confidence."""

    min_confidence: float
    """Default minimum probability of the best sentence for an answer."""

    def rank(self, evidence: Evidence) -> list[Candidate]:
        """Rank the sentences of the evidence, best first; irrelevant ones may be dropped."""
        ...

    def confidence(self, ranked: Sequence[Candidate]) -> float:
        """Return the probability that the best sentence answers the question, 0 to 1; 0 without sentences."""
        ...

    def choose(self, ranked: Sequence[Candidate]) -> list[Candidate]:
        """Choose the best sentence and those that complete the answer, in reading order; needs a candidate."""
        ...


class SentenceRanking:
    """Ranks by similarity of sentence and question, in meaning and in words.

    Fitted on questions of the SQuAD 2.0 development set (eight articles for training, eight for testing), over the
    passages that our own retrieval returns. WEIGHTS separate sentences with the answer from others: on the test
    articles, the first sentence contained the answer for 70 % of the questions, one of the first three for 86 %.
    CONFIDENCE separates questions whose article is in the corpus from those whose article was removed, by the
    first four features of the best sentence.

    Args:
        encoder: Measures the similarity of meaning.
        lexical: Provides the frequency of words in the corpus.
    """

    FEATURES = ("cosine", "overlap", "passage_overlap", "passage_cosine", "place", "number", "short")
    WEIGHTS = (4.79, 4.792, 0.483, -4.0, 3.814, 0.446, -1.137)
    CONFIDENCE_WEIGHTS = (8.085, 3.547, 4.436, 6.857)
    CONFIDENCE_INTERCEPT = -9.541
    # Selects 1.5 sentences on average, which contain four of five answers.
    NEARLY = 1.0
    min_confidence = 0.12

    def __init__(self, encoder: Encoder, lexical: LexicalIndex) -> None:
        self._encoder = encoder
        self._lexical = lexical

    def rank(self, evidence: Evidence) -> list[Candidate]:
        """See ``Ranking.rank``."""
        found = readable(
            evidence.question, [(passage, split_sentences(passage.text)) for passage in evidence.passages]
        )
        if not found:
            return []
        words = _Words(evidence, self._lexical)
        cosines, sure = _similar(self._encoder, evidence.question, found)
        candidates = []
        for one, cosine, certainty in zip(found, cosines, sure, strict=True):
            features = (cosine, *words.features(one))
            score = _weighted(self.WEIGHTS, features) + SAYS_HOW * one.says_how
            candidates.append(Candidate(one.passage, one.sentence, features, score, sure=certainty))
        return sorted(candidates, key=lambda candidate: -candidate.score)

    def confidence(self, ranked: Sequence[Candidate]) -> float:
        """See ``Ranking.confidence``."""
        return _confidence(ranked, self.CONFIDENCE_WEIGHTS, self.CONFIDENCE_INTERCEPT)

    def choose(self, ranked: Sequence[Candidate]) -> list[Candidate]:
        """See ``Ranking.choose``."""
        return choose(ranked, self.NEARLY)


class SpanRanking:
    """Ranks by the tuned reader's best span in every sentence, and by similarity in words and meaning.

    Fitted by ``python -m tests.benchmarks --only weights`` on an article that the reader was not trained on, with
    1,216 paragraphs to search, and on half of the handbook's questions. WEIGHTS separate sentences with the answer
    from others, CONFIDENCE separates questions that the corpus answers from those that it does not.

    Args:
        reader: The tuned reader.
        encoder: Measures the similarity of meaning.
        lexical: Provides the frequency of words in the corpus.
        looked_at: Number of sentences, best by all other features, whose similarity of meaning is computed.
    """

    FEATURES = ("margin", "cosine", "overlap", "passage_overlap", "passage_cosine", "place", "number", "short")
    WEIGHTS = (0.283, 1.701, 1.548, -0.25, -1.151, 2.703, -0.027, 0.273)
    CONFIDENCE_WEIGHTS = (0.238, 1.029, -2.456, 1.275, 2.776)
    CONFIDENCE_INTERCEPT = -0.755
    # Selects 1.7 sentences on average on the handbook's questions.
    NEARLY = 1.2
    # Maximum difference of margins at which a different answer from another passage is included too.
    RIVAL = 1.5
    # Without a word in common, a sentence less similar than this has nothing to do with the question, although the
    # reader, which is trained on questions about their passage, finds an answer to anything.
    FAR = 0.3
    min_confidence = 0.3

    def __init__(self, reader: SpanReader, encoder: Encoder, lexical: LexicalIndex, looked_at: int = 8) -> None:
        self._reader = reader
        self._encoder = encoder
        self._lexical = lexical
        self._looked_at = looked_at

    def rank(self, evidence: Evidence) -> list[Candidate]:
        """See ``Ranking.rank``."""
        words = _Words(evidence, self._lexical)
        if words.none:
            # The reader is trained on questions only: it finds an answer to anything.
            return []
        read = self._reader.read(
            evidence.question,
            [ReadPassage(passage.text, (passage.title, *passage.headings)) for passage in evidence.passages],
        )
        spans = {
            (passage.number, span.sentence.start): span
            for passage, found in zip(evidence.passages, read, strict=True)
            for span in found
        }
        sentences = [[span.sentence for span in found] for found in read]
        scored = []
        for one in readable(evidence.question, list(zip(evidence.passages, sentences, strict=True))):
            span = spans[one.passage.number, one.sentence.start]
            scored.append((self._candidate(one.passage, span, (span.margin, 0.0, *words.features(one))), one))
        scored = sorted(scored, key=lambda pair: -pair[0].score)[: self._looked_at]
        if not scored:
            return []
        cosines, sure = _similar(self._encoder, evidence.question, [one for _, one in scored])
        best = []
        for (candidate, one), cosine, certainty in zip(scored, cosines, sure, strict=True):
            features = (candidate.features[0], cosine, *candidate.features[2:])
            score = _weighted(self.WEIGHTS, features) + SAYS_HOW * one.says_how
            best.append(replace(candidate, features=features, score=score, sure=certainty))
        best = self._about_subject(evidence.question, best)
        return sorted(best, key=lambda candidate: -candidate.score)

    def confidence(self, ranked: Sequence[Candidate]) -> float:
        """See ``Ranking.confidence``."""
        if ranked:
            _, cosine, overlap, around, *_ = ranked[0].features
            if not overlap and not around and cosine < self.FAR:
                return ranked[0].sure
        return _confidence(ranked, self.CONFIDENCE_WEIGHTS, self.CONFIDENCE_INTERCEPT)

    def choose(self, ranked: Sequence[Candidate]) -> list[Candidate]:
        """See ``Ranking.choose``; includes a different answer from another passage that is about as certain."""
        best = ranked[0]
        rivals = [
            rival
            for rival in ranked[1:]
            if rival.passage is not best.passage
            and rival.features[0] >= max(best.features[0] - self.RIVAL, 0.0)
            and not _same_answer(rival, best)
        ]
        return choose(ranked, self.NEARLY, rivals[:1])

    def _about_subject(self, question: str, found: Sequence[Candidate]) -> list[Candidate]:
        marked = [Marked(one.sentence.text, one.passage.number, one.features[0], one.features[2]) for one in found]
        margins = margins_about_subject(question, marked, self._lexical)
        return [
            replace(
                one,
                features=(margin, *one.features[1:]),
                score=one.score + self.WEIGHTS[0] * (margin - one.features[0]),
            )
            for one, margin in zip(found, margins, strict=True)
        ]

    def _candidate(self, passage: EvidencePassage, span: Span, features: tuple[float, ...]) -> Candidate:
        score = _weighted(self.WEIGHTS, features)
        return Candidate(passage, span.sentence, features, score, (span.start, span.end))


def choose(ranked: Sequence[Candidate], nearly: float, rivals: Sequence[Candidate] = ()) -> list[Candidate]:
    """Choose the best sentence and up to two more that complete the answer, in reading order.

    Args:
        ranked: At least one candidate, best first.
        nearly: Maximum difference to the best score.
        rivals: Candidates to include before others, regardless of their score.
    """
    best = ranked[0]
    chosen = [best]
    near = (other for other in ranked[1:] if other.score >= best.score - nearly)
    for other in (*rivals, *near):
        if len(chosen) == MOST_SENTENCES:
            break
        known = {_plain(one.sentence).casefold() for one in chosen}
        if _plain(other.sentence).casefold() not in known:
            chosen.append(other)
    order = {one.passage.number: at for at, one in reversed(list(enumerate(chosen)))}
    return sorted(chosen, key=lambda one: (order[one.passage.number], one.sentence.start))


class _Words:
    """Lexical and positional features of sentences."""

    def __init__(self, evidence: Evidence, lexical: LexicalIndex) -> None:
        self._lexical = lexical
        self._rarity = {word: _rarity(word, lexical) for word in lexical.words(evidence.question)}
        self._asks_number = bool(_ASKS_NUMBER.search(evidence.question.lower()))
        # Shared by all sentences of a passage.
        self._around = {
            passage.number: _overlap(
                self._rarity, lexical.words(f"{passage.title} {' '.join(passage.headings)} {passage.text}")
            )
            for passage in evidence.passages
        }

    @property
    def none(self) -> bool:
        """Whether the question has no content words."""
        return not self._rarity

    def features(self, one: Readable) -> Iterator[float]:
        """Yield the features from ``overlap`` to ``short``; the question before a sentence is part of it."""
        text = one.sentence.text
        yield _overlap(self._rarity, self._lexical.words(f"{one.asked} {text}"))
        yield self._around[one.passage.number]
        yield one.passage.cosine or 0.0
        yield 1.0 / one.passage.number
        yield 1.0 if self._asks_number and _DIGIT.search(text) else 0.0
        yield 1.0 if len(text.split()) < 5 else 0.0


def _confidence(ranked: Sequence[Candidate], weights: Sequence[float], intercept: float) -> float:
    """Return the probability that the best sentence answers: by its features, or by the form of the document."""
    if not ranked:
        return 0.0
    return max(_logistic(_weighted(weights, ranked[0].features) + intercept), ranked[0].sure)


def _same_answer(one: Candidate, other: Candidate) -> bool:
    """Whether one answer contains the words of the other."""
    words = [set(c.passage.text[slice(*c.span)].casefold().split()) for c in (one, other) if c.span]
    return len(words) == 2 and (words[0] <= words[1] or words[1] <= words[0])


def _similar(encoder: Encoder, question: str, found: Sequence[Readable]) -> tuple[list[float], list[float]]:
    """Return the cosine of the question and every sentence, and how surely each answers by its form."""
    texts = [f"{one.asked} {_plain(one.sentence)}".strip() for one in found]
    others = list(dict.fromkeys(one.asked for one in found if one.asked))
    vectors = encoder.embed([question, *texts, *others])
    cosines: list[float] = (vectors[1:] @ vectors[0]).tolist()
    same = dict(zip(others, cosines[len(texts) :], strict=True))
    sure = (LOOKED_UP if one.looked_up else same.get(one.asked, 0.0) for one in found)
    return cosines[: len(texts)], [each if each >= SAME_QUESTION else 0.0 for each in sure]


def _plain(sentence: Sentence) -> str:
    return _SPACE.sub(" ", sentence.text)


def _rarity(word: str, lexical: LexicalIndex) -> float:
    total = max(len(lexical), 1)
    return math.log(1 + total / (1 + lexical.frequency(word)))


def _overlap(weights: Mapping[str, float], words: Sequence[str]) -> float:
    """Return the share of the question's words in ``words``, weighted by rarity."""
    total = sum(weights.values())
    return sum(weights[word] for word in set(words) & weights.keys()) / total if total else 0.0


def _weighted(weights: Sequence[float], features: Sequence[float]) -> float:
    return sum(weight * value for weight, value in zip(weights, features, strict=False))


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-max(min(value, 50.0), -50.0)))
