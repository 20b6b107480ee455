"""Questions for yes or no, which no words of a sentence answer: what it says about their subject does."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rag.indexing.lexical_index import LexicalIndex

# An "or" asks which of two.
_ASKS = re.compile(
    r"(?:do|does|did|is|are|was|were|can|could|may|must|should|will|would|has|have|had)\b(?!.*\bor\b)",
    re.IGNORECASE,
)
_SUBJECT = re.compile(
    r"\w+\s+(?:(?:the|a|an|all|any|every|each|my|your|our|these|those|\w+-[\w-]+)\s+)*([^\W\d_][\w']*)(?![\w-])"
)
# What a question whose subject is a pronoun is about: "Is it free for dogs?", "Can I take my cat?"
_CONCERNS = re.compile(
    r"\b(?:for|my|our)\s+(?:(?:the|a|an|all|any|my|our)\s+)*(?!free\b|example\b)([^\W\d_][\w']*)(?![\w-])",
    re.IGNORECASE,
)
_PRONOUNS = frozenset(
    "i you he she it we they this that there one someone anyone somebody anybody no not these those".split()
)


@dataclass(frozen=True, slots=True)
class Marked:
    """A sentence with the number of its passage, the reader's margin, and its share of the question's words."""

    text: str
    passage: int
    margin: float
    overlap: float


def asks_yes_no(question: str) -> bool:
    """Whether a question is for yes or no."""
    return _ASKS.match(question) is not None


def subject_of(question: str) -> str:
    """Return the word that a question for yes or no is about, as in "Do dogs pay?"; empty without one."""
    found = _SUBJECT.match(question) if asks_yes_no(question) else None
    if found and found[1].casefold() in _PRONOUNS:
        found = _CONCERNS.search(question)
    return found[1] if found and found[1].casefold() not in _PRONOUNS else ""


def margins_about_subject(question: str, found: Sequence[Marked], lexical: LexicalIndex) -> list[float]:
    """Return margins that prefer sentences about the subject of a question for yes or no.

    The reader looks for the words that fill a gap. Such a question has none, so that the best margin tells that a
    passage answers, and not which sentence does: "Do dogs travel free?", "Bicycles are free." A sentence that
    names the subject, and shares no fewer words with the question, exchanges its margin with a better one.

    Args:
        question: Any question; one without such a subject changes nothing.
        found: The sentences.
        lexical: Provides the words of a text.

    Returns:
        A margin for each sentence, in their order.
    """
    margins = [one.margin for one in found]
    subject = lexical.words(subject_of(question))[:1]
    if not subject:
        return margins
    about = [_points_back(one.text) or subject[0] in lexical.words(one.text) for one in found]
    for (at, one), (place, other) in itertools.permutations(enumerate(found), 2):
        same = one.passage == other.passage and about[at] and not about[place]
        if same and one.overlap >= other.overlap:
            margins[at] = max(margins[at], other.margin)
            margins[place] = min(margins[place], one.margin)
    return margins


def _points_back(sentence: str) -> bool:
    """Whether a sentence begins with a pronoun, so that its subject stands before it."""
    first = re.match(r"\W*([\w'-]+)", sentence)
    return first is not None and first[1].casefold() in _PRONOUNS
