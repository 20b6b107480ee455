"""A filter for written sentences that a model is to learn: they answer the question, and add nothing.

What a sentence must not add is checked as in serving, by ``rag.answering.claim_check``. A model learns every habit
of its targets, so they must also be complete, plain sentences that stand without the question.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from rag.answering.claim_check import ClaimSources
from rag.answering.claim_text import CONNECTING, STOP_WORDS, Stemmer, folded
from rag.types import FaultKind

TargetFault = Literal["lines", "ending", "length", "repetition", "answer", "question", "names"] | FaultKind

FEWEST_WORDS, MOST_WORDS = 4, 40
REPEATED_WORDS = 4
QUESTION_SHARE = 0.4
"""Minimum share of the question's content words that a sentence keeps."""
NAMES_SHARE = 0.6
"""Minimum share of the question's names that a sentence keeps."""

# Words that say what kind of answer is wanted, and that a sentence with the answer does not need.
_ASKING = CONNECTING | {"name", "year", "long"}
_ENDING = re.compile(r"[.!][\"'”’)]*$")
_WORDS = re.compile(r"\w+")
_NAME = re.compile(r"(?<!^)\b[A-Z][\w'-]+")
_LOWER_CASE_WORD = re.compile(r"\b[a-z][\w'’-]*")
_CAPITALISED_INSIDE = re.compile(r"(?<=[\w,;)] )[A-Z][\w'’-]*")


class TargetFilter:
    """Judges the sentences that answer one question.

    Args:
        question: The question.
        answer: The words that a sentence must contain.
        sources: The evidence and its titles.
    """

    def __init__(self, question: str, answer: str, sources: Sequence[str]) -> None:
        self._stemmer = Stemmer()
        self._answer = answer
        self._sources = ClaimSources([*sources, answer], question)
        asked = folded(question)
        self._question = [
            stem for word, stem in self._stemmer.by_word(asked).items() if word not in _ASKING and len(word) > 2
        ]
        names = (name.group() for name in _NAME.finditer(asked))
        self._names = [self._stemmer.stems(name) for name in names if name.casefold() not in STOP_WORDS]

    def fault_of(self, sentence: str) -> TargetFault | None:
        """Return the first reason to drop a sentence, or None."""
        if not sentence.strip() or "\n" in sentence:
            return "lines"
        if not _ENDING.search(sentence):
            return "ending"
        if not FEWEST_WORDS <= len(sentence.split()) <= MOST_WORDS:
            return "length"
        if repeats(sentence):
            return "repetition"
        if not has_answer(sentence, self._answer):
            return "answer"
        fault = self._sources.fault_of(sentence)
        if fault is not None:
            return fault.kind
        stems = self._stemmer.stems(folded(sentence))
        if sum(stem in stems for stem in self._question) < QUESTION_SHARE * len(self._question):
            return "question"
        if sum(name <= stems for name in self._names) < NAMES_SHARE * len(self._names):
            return "names"
        return None


def has_answer(text: str, answer: str) -> bool:
    """Whether a text contains the words of an answer in a row, in any case and punctuation."""
    wanted = _words(answer)
    return bool(wanted) and f" {' '.join(wanted)} " in f" {' '.join(_words(text))} "


def repeats(sentence: str) -> bool:
    """Whether four words in a row occur twice."""
    words = _words(sentence)
    runs = [tuple(words[at : at + REPEATED_WORDS]) for at in range(len(words) - REPEATED_WORDS + 1)]
    return len(set(runs)) < len(runs)


def recase(sentence: str, sources: Sequence[str]) -> str:
    """Return a sentence with the capitals of its sources, and with one at its beginning.

    A word is capitalised if the sources capitalise it inside a sentence and never write it in lower case.
    """
    text = "\n".join(sources)
    lower = set(_LOWER_CASE_WORD.findall(text))
    capitalised = {name.casefold(): name for name in reversed(_CAPITALISED_INSIDE.findall(text))}

    def restored(word: re.Match[str]) -> str:
        found = word.group()
        return found if found in lower or found in STOP_WORDS else capitalised.get(found, found)

    sentence = _LOWER_CASE_WORD.sub(restored, sentence.strip())
    return sentence[:1].upper() + sentence[1:]


def _words(text: str) -> list[str]:
    return _WORDS.findall(folded(text).casefold())
