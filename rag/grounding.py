"""Checking an answer against its passages, in code: what is cited, and how well is it supported?

The support of a sentence by its evidence is 1 when the evidence contains it word for word; otherwise the mean of
two things that fail in different ways: the share of its words that the evidence contains, and the cosine
between it and the evidence's nearest sentence. A number that the evidence does not contain halves it, since a
wrong figure changes neither of the two much.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rag.documents import Hit
from rag.encoder.base import Encoder
from rag.events import Citation
from rag.sentences import Sentence, split_sentences

_MARKER = re.compile(r"\[(\d{1,3})\]")
_MARKERS = re.compile(r"\[\d{1,3}\](?:\s*\[\d{1,3}\])*")
_WORD = re.compile(r"[^\W_]+")
_SPACE = re.compile(r"\s+")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
# Shorter words carry grammar more often than content.
SHORTEST_WORD = 3


@dataclass(frozen=True, slots=True)
class Grounded:
    """What the check found.

    Attributes:
        text: The answer without markers that point at nothing.
        citations: In order of first use.
        support: Of the least supported sentence, 0 to 1; None where nothing was claimed.
        best: Of the best supported sentence, 0 to 1.
    """

    text: str
    citations: tuple[Citation, ...]
    support: float | None
    best: float


def ground(text: str, hits: Sequence[Hit], encoder: Encoder) -> Grounded:
    """Check each sentence of an answer against the passages that it cites, or against all when it cites none.

    Args:
        text: The answer with markers ``[n]``.
        hits: The passages of the prompt, in order of their markers.
        encoder: For likeness beyond common words.
    """
    cleaned = _MARKER.sub(lambda match: match[0] if 1 <= int(match[1]) <= len(hits) else "", text)
    evidence = [_Evidence(hit, split_sentences(hit.passage.text)) for hit in hits]
    citations: dict[int, Citation] = {}
    supports: list[float] = []
    for claim, markers in _claims(cleaned):
        cited = [number for number in markers if number <= len(hits)]
        found = [
            (number, *_support(claim, evidence[number - 1], encoder))
            for number in cited or range(1, len(hits) + 1)
        ]
        supports.append(max((support for _, support, _ in found), default=0.0))
        if cited:
            for number, carried, sentence in found:
                known = citations.get(number)
                if known is None or carried > known.support:
                    citations[number] = _citation(number, hits[number - 1], carried, sentence)
    support = min(supports) if supports else None
    return Grounded(cleaned.strip(), tuple(citations.values()), support, max(supports, default=0.0))


@dataclass(frozen=True, slots=True)
class _Evidence:
    hit: Hit
    sentences: list[Sentence]


def _claims(text: str) -> list[tuple[str, tuple[int, ...]]]:
    """The sentences of an answer, each without markers and with the numbers of those that follow it."""
    claims: list[tuple[str, tuple[int, ...]]] = []
    at = 0
    for match in (*_MARKERS.finditer(text), None):
        part = text[at : match.start() if match else len(text)]
        sentences = [_plain(each.text) for each in split_sentences(part.lstrip(" .,;:"))]
        claims.extend((sentence, ()) for sentence in sentences)
        if match and claims:
            numbers = tuple(dict.fromkeys(int(number) for number in _MARKER.findall(match[0])))
            claims[-1] = (claims[-1][0], numbers)
        at = match.end() if match else at
    return claims


def _support(claim: str, evidence: _Evidence, encoder: Encoder) -> tuple[float, Sentence | None]:
    passage = evidence.hit.passage
    exact = [each for each in evidence.sentences if claim and claim in _plain(each.text)]
    if exact:
        return 1.0, exact[0]
    if claim in _plain(passage.text):
        return 1.0, _span_of(claim, passage.text)
    words = _words(claim)
    share = len(words & _words(passage.text)) / len(words) if words else 0.0
    if not evidence.sentences:
        return share / 2, None
    vectors = encoder.embed([claim, *(_plain(each.text) for each in evidence.sentences)])
    cosines = vectors[1:] @ vectors[0]
    nearest = int(cosines.argmax())
    support = (share + max(float(cosines[nearest]), 0.0)) / 2
    if set(_NUMBER.findall(claim)) - set(_NUMBER.findall(passage.text)):
        support /= 2
    return support, evidence.sentences[nearest]


def _citation(number: int, hit: Hit, support: float, sentence: Sentence | None) -> Citation:
    if sentence is None:
        return Citation(number, hit, None, None, support)
    first = hit.passage.start
    return Citation(number, hit, first + sentence.start, first + sentence.end, support)


def _span_of(claim: str, text: str) -> Sentence | None:
    """Where a claim stands in a text whose white space may differ."""
    pattern = r"\s+".join(re.escape(word) for word in claim.split(" "))
    match = re.search(pattern, text)
    return Sentence(match.group(), match.start(), match.end()) if match else None


def _plain(text: str) -> str:
    return _SPACE.sub(" ", text).strip()


def _words(text: str) -> set[str]:
    return {word for word in _WORD.findall(text.casefold()) if len(word) >= SHORTEST_WORD or word.isdigit()}
