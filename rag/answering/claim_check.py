"""A check of a written sentence against the texts that it was written from, without a model.

A small language model invents numbers and names, turns negations, and writes sentences that say nothing. Each of
these is a fault. A false alarm replaces a sentence by a quotation, which is still right, so the check is strict.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from rag.answering.claim_names import KnownNames
from rag.answering.claim_numbers import KnownNumbers, numbers_in, without_numbers
from rag.answering.claim_polarity import KnownPolarity
from rag.answering.claim_text import CONNECTING, FRAME, Stemmer, folded
from rag.documents.sentences import split_sentences
from rag.types import FaultKind

SUPPORTED_SHARE = 0.7
"""Minimum share of the content words that the sources, the question or the connecting words contain."""

_QUESTION = re.compile(r"\?[\"')\]*_]*$")


@dataclass(frozen=True, slots=True)
class ClaimFault:
    """What is wrong with a sentence.

    Attributes:
        kind: ``number`` and ``name`` are not in the sources, ``negation`` differs from them, too few of the
            ``words`` are in them, and ``echo`` only repeats the question or announces an answer.
        words: The words at fault, as they are compared: on one line, with plain letters.
    """

    kind: FaultKind
    words: tuple[str, ...]


class ClaimSources:
    """The texts that sentences are checked against.

    Args:
        sources: The texts that a sentence cites, or all evidence.
        question: The question, whose numbers, names and words a sentence may repeat.
    """

    def __init__(self, sources: Sequence[str], question: str) -> None:
        self._stemmer = Stemmer()
        sentences = [folded(sentence.text) for text in sources for sentence in split_sentences(text)]
        texts = [*(folded(text) for text in sources), folded(question)]
        self._sentences = {_key(sentence) for sentence in sentences}
        self._question = _key(question)
        self._question_stems = self._stemmer.stems(texts[-1])
        self._stems = {stem for text in texts for stem in self._stemmer.stems(text)}
        self._numbers = KnownNumbers(texts)
        self._names = KnownNames(texts)
        self._polarity = KnownPolarity(sentences, self._stemmer)

    def fault_of(self, sentence: str) -> ClaimFault | None:
        """Return the first fault of a sentence; a sentence of the sources has none."""
        text = folded(sentence)
        key = _key(text)
        if not key:
            return None
        if _QUESTION.search(text) or key == self._question:
            return ClaimFault("echo", tuple(text.split()))
        if key in self._sentences:
            return None
        stems = self._stemmer.by_word(without_numbers(text))
        if self._says_nothing(text, set(stems.values())):
            return ClaimFault("echo", tuple(text.split()))
        if numbers := self._numbers.missing_from(text):
            return ClaimFault("number", tuple(numbers))
        if names := self._names.missing_from(text, self._is_known_word):
            return ClaimFault("name", tuple(names))
        if denials := self._polarity.contradicted(text):
            return ClaimFault("negation", tuple(denials))
        missing = [word for word, stem in stems.items() if stem not in self._stems and stem not in _free_stems()]
        if len(missing) > (1 - SUPPORTED_SHARE) * len(stems):
            return ClaimFault("words", tuple(missing))
        return None

    def _is_known_word(self, word: str) -> bool:
        return self._stemmer.stems(without_numbers(word)) <= self._stems

    def _says_nothing(self, text: str, stems: set[str]) -> bool:
        """Whether the words of a sentence are only those of a frame, or of a frame and the question."""
        if numbers_in(text):
            return False
        content = stems - _free_stems()
        framed = bool(stems & _frame_stems())
        return not content or (framed and content <= self._question_stems)


@cache
def _frame_stems() -> frozenset[str]:
    return frozenset(Stemmer().stems(" ".join(FRAME)))


@cache
def _free_stems() -> frozenset[str]:
    """Return the stems of the words that need no support."""
    return _frame_stems() | Stemmer().stems(" ".join(CONNECTING))


def _key(text: str) -> str:
    """Return a text in the form in which two equal sentences are equal."""
    return re.sub(r"^\W+|(?<=\w)[\W]+$", "", folded(text).casefold())
