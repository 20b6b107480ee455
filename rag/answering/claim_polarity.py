"""Whether a sentence affirms what its sources deny, or denies what they affirm.

A sentence is split into clauses. An odd number of negations makes a clause negative, so that "cannot work without"
is as positive as "needs". Each clause is compared with the clauses of the sources that share most words with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rag.answering.claim_text import Stemmer

# Negations that do not deny the clause.
_NO_DENIAL = re.compile(
    r"\bnot (?:only|just|merely|simply|least|until|to mention)\b"
    r"|\b(?:no|not) (?:later|earlier|more|less|fewer|sooner) than\b"
    r"|\bno (?:doubt|matter)\b|\bno\.? ?(?=\d)|\bor not\b|\bif not\b|\bnothing but\b"
)
_DENIAL = re.compile(
    r"n't\b|\b(?:not|cannot|never|no|none|nobody|nothing|nowhere|neither|nor|without|unless|hardly|barely|scarcely|"
    r"rarely|seldom|unable|impossible|lacks?|lacked|lacking|fail(?:s|ed|ing)?|refus(?:e|es|ed|ing)|forbid(?:s|den)?|"
    r"prohibit(?:s|ed)?|prevent(?:s|ed|ing)?)\b"
)
_SUBJECT = (
    r"(?:the|an?|it|they|he|she|we|you|this|that|these|those|there|his|her|its|their|some|all|every|no|none)"
)
_VERB = (
    r"(?:is|are|was|were|has|have|had|can|cannot|could|does|do|did|must|may|might|will|would|should|never|not|then|"
    r"therefore|so)"
)
_BOUNDARY = re.compile(
    r"(?P<comma>,)|[;:()]| - |\b(?:but|although|though|whereas|while|because|however|yet|instead|so that)\b"
    rf"|\b(?:and|or)\b(?= (?:{_SUBJECT}|{_VERB})\b)"
)
_CONJUNCTION = re.compile(r"\b(?:or|and)\b")
# A shorter piece after a comma continues a list: "it does not sell bread, milk, or tea".
_SHORT_PIECE = 2
ENOUGH_WORDS = 2
ENOUGH_SHARE = 0.5
"""Clauses that share fewer words than both of these speak about different things."""


@dataclass(frozen=True, slots=True)
class _Clause:
    stems: frozenset[str]
    denials: tuple[str, ...]

    @property
    def negative(self) -> bool:
        return len(self.denials) % 2 == 1

    def likeness(self, other: _Clause) -> tuple[int, float]:
        """Return the number of shared stems and, to decide between equal numbers, their share of the other's."""
        shared = len(self.stems & other.stems)
        return shared, shared / len(other.stems)


class KnownPolarity:
    """The clauses of folded sentences."""

    def __init__(self, sentences: Iterable[str], stemmer: Stemmer) -> None:
        self._stemmer = stemmer
        self._clauses = [clause for sentence in sentences for clause in self._clauses_of(sentence)]

    def contradicted(self, sentence: str) -> list[str]:
        """Return the negations in which a clause of a sentence and the nearest ones of the sources differ, if any.

        Where several clauses of the sources are equally near, one with the same polarity is enough.
        """
        for clause in self._clauses_of(sentence):
            likeness = [clause.likeness(known) for known in self._clauses]
            most = max(likeness, default=(0, 0.0))
            if not most[0] or most[0] < min(ENOUGH_WORDS, ENOUGH_SHARE * len(clause.stems)):
                continue
            nearest = [known for known, like in zip(self._clauses, likeness, strict=True) if like == most]
            if all(known.negative != clause.negative for known in nearest):
                return list(clause.denials or nearest[0].denials)
        return []

    def _clauses_of(self, sentence: str) -> Iterator[_Clause]:
        for text in _with_one_denial(_clauses(_NO_DENIAL.sub(" ", sentence.casefold()))):
            denials = [found[0] for found in _DENIAL.finditer(text)]
            if "neither" in denials:
                denials = [denial for denial in denials if denial != "nor"]
            stems = frozenset(self._stemmer.stems(_DENIAL.sub(" ", text)))
            if stems:
                yield _Clause(stems, tuple(denials))


def _with_one_denial(clauses: Iterable[str]) -> Iterator[str]:
    """Split clauses at a conjunction between negations: "needs no account and works without a server"."""
    for clause in clauses:
        parts = _CONJUNCTION.split(clause)
        yield from parts if sum(bool(_DENIAL.search(part)) for part in parts) > 1 else (clause,)


def _clauses(text: str) -> list[str]:
    clauses: list[str] = []
    at = 0
    after_comma = False
    for found in (*_BOUNDARY.finditer(text), None):
        piece = text[at : found.start() if found else len(text)]
        if clauses and after_comma and len(_CONJUNCTION.sub("", piece).split()) <= _SHORT_PIECE:
            clauses[-1] += piece
        else:
            clauses.append(piece)
        after_comma = bool(found and found["comma"])
        at = found.end() if found else at
    return clauses
