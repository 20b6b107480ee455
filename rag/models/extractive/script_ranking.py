"""Ranking of questions in scripts that the encoder does not know.

The shipped encoder, and the reader tuned from it, are trained on English. Of Chinese, Thai or Arabic they know a
few letters, so that their similarities and margins mean nothing. There the words decide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rag.documents.sentences import split_sentences
from rag.encoders.encoder_tokens import TokenCounter
from rag.indexing.lexical_index import LexicalIndex
from rag.models.extractive.evidence import Evidence, EvidencePassage
from rag.models.extractive.readable import readable
from rag.models.extractive.sentence_ranking import Candidate, Ranking, choose


class ScriptRanking:
    """Ranks questions in known scripts as another ranking does, and all others by words.

    Args:
        known: Ranks questions in scripts that the encoder knows.
        lexical: Provides the words of a text, and their frequency in the corpus.
        tokens: The tokenizer of the encoder.
    """

    def __init__(self, known: Ranking, lexical: LexicalIndex, tokens: TokenCounter) -> None:
        self._known = known
        self._words = WordRanking(lexical)
        self._tokens = tokens
        self.min_confidence = known.min_confidence

    def rank(self, evidence: Evidence) -> list[Candidate]:
        """See ``Ranking.rank``."""
        return (self._known if self._tokens.knows(evidence.question) else self._words).rank(evidence)

    def confidence(self, ranked: Sequence[Candidate]) -> float:
        """See ``Ranking.confidence``."""
        return self._of(ranked).confidence(ranked)

    def choose(self, ranked: Sequence[Candidate]) -> list[Candidate]:
        """See ``Ranking.choose``."""
        return self._of(ranked).choose(ranked)

    def _of(self, ranked: Sequence[Candidate]) -> Ranking | WordRanking:
        return self._words if ranked and not ranked[0].features else self._known


class WordRanking:
    """Ranks sentences by the question's words that they and their passages have.

    Rare words tell which passage is asked about: in "The pump is in room 4. It is checked on Mondays.", the second
    sentence is about the pump, too. Inside a passage, the sentence with the most words answers.

    Args:
        lexical: Provides the words of a text, and their frequency in the corpus.
    """

    # Selects sentences that have as much of what is asked.
    NEARLY = 0.0

    def __init__(self, lexical: LexicalIndex) -> None:
        self._lexical = lexical

    def rank(self, evidence: Evidence) -> list[Candidate]:
        """See ``Ranking.rank``; the candidates have no features."""
        rarity = self._rarity(evidence.question)
        shares = {passage.number: self._share(rarity, passage) for passage in evidence.passages}
        found = readable(
            evidence.question, [(passage, split_sentences(passage.text)) for passage in evidence.passages]
        )
        candidates = []
        for one in found:
            if own := len(rarity.keys() & set(self._lexical.words(f"{one.asked} {one.sentence.text}"))):
                share = shares[one.passage.number]
                candidates.append(Candidate(one.passage, one.sentence, (), share + own / len(rarity), sure=share))
        return sorted(candidates, key=lambda one: -one.score)

    def confidence(self, ranked: Sequence[Candidate]) -> float:
        """Return the share of the question's words that the best passage has, by rarity, 0 to 1."""
        return ranked[0].sure if ranked else 0.0

    def choose(self, ranked: Sequence[Candidate]) -> list[Candidate]:
        """See ``Ranking.choose``."""
        return choose(ranked, self.NEARLY)

    def _rarity(self, question: str) -> dict[str, float]:
        """Return the weights of the words that the corpus has; the others tell nothing about its sentences."""
        total = len(self._lexical)
        frequencies = {word: self._lexical.frequency(word) for word in self._lexical.words(question)}
        return {word: math.log(1 + total / each) for word, each in frequencies.items() if each}

    def _share(self, rarity: Mapping[str, float], passage: EvidencePassage) -> float:
        around = set(self._lexical.words(f"{passage.title} {' '.join(passage.headings)} {passage.text}"))
        total = sum(rarity.values())
        return sum(rarity[word] for word in around & rarity.keys()) / total if total else 0.0
