"""Grounding: checking the citations and the support of an answer by its passages, in code.

The support of a sentence is 1 if its evidence contains it verbatim or is named so. Otherwise it is the mean of
two values that fail in different ways: the share of its words that the evidence contains, and the cosine between
it and the most similar sentence of the evidence. A number that the evidence does not contain halves it, since a
wrong number hardly changes either value.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING

from rag.documents.citation_markers import CODE, RUNS, SPACED, left_of, without_markers
from rag.documents.sentences import Sentence, split_sentences
from rag.encoders.encoder import Encoder
from rag.models.extractive.heading_lines import headings_among
from rag.models.fencing import without_tokens
from rag.settings import CitationStyle
from rag.types import Citation, Claim, Hit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MARKER = re.compile(r"\[(\d{1,3})\]")
MARKERS = re.compile(rf"{CODE}|(?P<markers>\[\d{{1,3}}\](?:\s*\[\d{{1,3}}\])*)", re.DOTALL)
_LISTS = re.compile(rf"{CODE}|\[(?P<numbers>\d{{1,3}}(?:\s*[,;]\s*\d{{1,3}})+)\]", re.DOTALL)
_WORD = re.compile(r"[^\W_]+")
_SPACE = re.compile(r"\s+")
# The beginning of a continued line of a quotation.
QUOTED_LINE = re.compile(r"[\r\n][ \t]*>[> \t]*")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
# Shorter words are rarely content words.
SHORTEST_WORD = 3
LONGEST_EMBEDDED = 400
"""Maximum sentences of an answer that are embedded, at milliseconds each; further ones are compared by words."""


@dataclass(frozen=True, slots=True)
class Grounded:
    """The result of the check.

    Attributes:
        text: The answer without markers of missing passages.
        citations: Citations in order of first use.
        claims: Sentences in order, with their offsets in ``text``.
        support: Support of the least supported sentence, 0 to 1; None without claims.
        best: Support of the best supported sentence, 0 to 1.
    """

    text: str
    citations: tuple[Citation, ...]
    claims: tuple[Claim, ...]
    support: float | None
    best: float


def ground(text: str, hits: Sequence[Hit], encoder: Encoder, min_support: float = 0.0) -> Grounded:
    """Check every sentence of an answer against its cited passages, or against all passages if it cites none.

    Args:
        text: The answer with markers ``[n]``.
        hits: The passages of the prompt, in order of their markers.
        encoder: Encoder for the similarity of sentences.
        min_support: Minimum support of a supported sentence.
    """
    cleaned = _without_strays(_LISTS.sub(lambda found: _one_by_one(found, len(hits)), text), len(hits)).strip()
    evidence = [_Evidence(hit, encoder) for hit in hits]
    citations: dict[int, Citation] = {}
    ranks: dict[int, tuple[float, bool]] = {}
    checked: list[Claim] = []
    sentences = _claims(cleaned)
    claims = _checkable([each.words for each in sentences], encoder)

    @cache
    def support(words: str, number: int) -> tuple[float, Sentence | None]:
        return _support(claims[words], evidence[number - 1])

    for each in sentences:
        found = [(number, *support(each.words, number)) for number in each.markers or range(1, len(hits) + 1)]
        best = max((carried for _, carried, _ in found), default=0.0)
        checked.append(Claim(each.markers, best, each.start, each.end, best >= min_support))
        if each.markers:
            for number, carried, sentence in found:
                # Of equals, what answers: a heading is quoted only beside it.
                better = (carried, not evidence[number - 1].is_heading(sentence))
                if number not in ranks or better > ranks[number]:
                    ranks[number] = better
                    citations[number] = _citation(number, hits[number - 1], carried, sentence)
    supports = [claim.support for claim in checked]
    return Grounded(
        cleaned, tuple(citations.values()), tuple(checked), min(supports, default=None), max(supports, default=0.0)
    )


def with_citations(text: str, where: CitationStyle) -> str:
    """Return an answer with its markers in the text, after it in order of first use, or without markers."""
    if where == "inline":
        return text
    plain = without_markers(text).strip()
    numbers = dict.fromkeys(found["number"] for found in SPACED.finditer(text) if found["number"])
    return f"{plain} {''.join(f'[{number}]' for number in numbers)}".strip() if where == "end" else plain


def moved(claims: Sequence[Claim], text: str, where: CitationStyle) -> tuple[Claim, ...]:
    """Return the claims of an answer with their offsets in ``with_citations(text, where)``."""
    if where == "inline":
        return tuple(claims)
    plain = without_markers(text)
    # Start and end of every run of markers, and by how much the text is shorter after it.
    starts, ends, shorter = [0], [0], [len(plain) - len(plain.lstrip())]
    for run in RUNS.finditer(text):
        if not run["code"]:
            starts.append(run.start())
            ends.append(run.end())
            shorter.append(shorter[-1] + len(run[0]) - len(left_of(run)))
    last = len(plain.strip())

    def place(at: int | None) -> int | None:
        if at is None:
            return None
        past = bisect_right(ends, at)
        # A sentence may start with an underscore that is removed with the markers before it.
        at = min(at, starts[past]) if past < len(starts) else at
        return min(max(at - shorter[past - 1], 0), last)

    return tuple(replace(claim, start=place(claim.start), end=place(claim.end)) for claim in claims)


def _without_strays(text: str, count: int) -> str:
    """Remove markers of missing passages, and the space before them."""

    def kept(found: re.Match[str]) -> str:
        return found[0] if found["code"] or 1 <= int(found["number"]) <= count else ""

    return SPACED.sub(kept, text)


def _one_by_one(found: re.Match[str], count: int) -> str:
    """Return ``[1, 2]`` as ``[1][2]`` if both passages exist."""
    numbers = [int(number) for number in re.findall(r"\d+", found["numbers"] or "")]
    if not numbers or not all(1 <= number <= count for number in numbers):
        return found[0]
    return "".join(f"[{number}]" for number in numbers)


@dataclass(frozen=True, slots=True)
class _Sentence:
    """A sentence of an answer: its words on one line without markers, its markers, and its offsets."""

    words: str
    markers: tuple[int, ...]
    start: int
    end: int


class _Claim:
    """The content of a sentence; ``vector`` is None if it is compared only by words."""

    def __init__(self, text: str, vector: Callable[[], NDArray[np.float32]] | None) -> None:
        self.text = text
        self.words = _words(text)
        self.numbers = set(_NUMBER.findall(text))
        self.vector = vector


class _Evidence:
    """A passage as evidence for claims; expensive values are computed at first use."""

    def __init__(self, hit: Hit, encoder: Encoder) -> None:
        self.text = hit.passage.text
        self.sentences = split_sentences(self.text)
        self.plain = [_plain(each.text) for each in self.sentences]
        self.whole = _plain(self.text)
        self._encoder = encoder
        self._names = (hit.passage.title, *hit.passage.headings)

    def is_named(self, text: str) -> bool:
        """Whether a text is only the title or a heading of the passage, maybe in parentheses."""
        return text.rstrip(".").removeprefix("(").removesuffix(")") in self._names

    def is_heading(self, sentence: Sentence | None) -> bool:
        return sentence is not None and sentence.start in self._headings

    @cached_property
    def _headings(self) -> set[int]:
        return headings_among(self.sentences, self.text, self._names)

    @cached_property
    def words(self) -> set[str]:
        return _words(self.text)

    @cached_property
    def numbers(self) -> set[str]:
        return set(_NUMBER.findall(self.text))

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        return self._encoder.embed(self.plain)


def _checkable(texts: Sequence[str], encoder: Encoder) -> dict[str, _Claim]:
    """Return the distinct claims by their words."""
    distinct = list(dict.fromkeys(texts))
    # One batch, which is skipped if all claims are verbatim.
    vectors = cache(lambda: encoder.embed(distinct[:LONGEST_EMBEDDED]))
    return {
        words: _Claim(words, partial(lambda place: vectors()[place], at) if at < LONGEST_EMBEDDED else None)
        for at, words in enumerate(distinct)
    }


def _claims(text: str) -> list[_Sentence]:
    """Return the sentences of an answer without markers, and with the numbers of their markers."""
    claims: list[_Sentence] = []
    at = 0
    for match in (*(each for each in MARKERS.finditer(text) if each["markers"]), None):
        part = text[at : match.start() if match else len(text)]
        # Continued lines of a quotation start sentences like other lines; offsets stay the same.
        part = QUOTED_LINE.sub(lambda found: found[0].replace(">", " "), part)
        bare = part.lstrip(" .,;:")
        first = at + len(part) - len(bare)
        claims.extend(
            _Sentence(_plain(each.text), (), first + each.start, first + each.end)
            for each in split_sentences(bare)
        )
        if match and claims:
            numbers = (int(number) for number in _MARKER.findall(match[0]))
            claims[-1] = replace(claims[-1], markers=tuple(dict.fromkeys((*claims[-1].markers, *numbers))))
        at = match.end() if match else at
    return claims


def _support(claim: _Claim, evidence: _Evidence) -> tuple[float, Sentence | None]:
    if evidence.is_named(claim.text):
        return 1.0, None
    for sentence, plain in zip(evidence.sentences, evidence.plain, strict=True):
        if claim.text in plain:
            return 1.0, sentence
    if claim.text in evidence.whole:
        return 1.0, _span_of(claim.text, evidence.text)
    share = len(claim.words & evidence.words) / len(claim.words) if claim.words else 0.0
    if not evidence.sentences:
        return share / 2, None
    if claim.vector is None:
        support, nearest = share, None
    else:
        cosines = evidence.vectors @ claim.vector()
        at = int(cosines.argmax())
        support, nearest = (share + max(float(cosines[at]), 0.0)) / 2, evidence.sentences[at]
    if claim.numbers - evidence.numbers:
        support /= 2
    return min(support, 1.0), nearest


def _citation(number: int, hit: Hit, support: float, sentence: Sentence | None) -> Citation:
    if sentence is None:
        return Citation(number, hit, None, None, support)
    first = hit.passage.start
    return Citation(number, hit, first + sentence.start, first + sentence.end, support)


def _span_of(claim: str, text: str) -> Sentence | None:
    """Find a claim in a text whose white space may differ."""
    pattern = r"(?:\s*\[\d{1,3}\]_?)*\s+(?:>[> \t]*)?".join(re.escape(word) for word in claim.split(" "))
    match = re.search(pattern, text)
    return Sentence(match.group(), match.start(), match.end()) if match else None


def _plain(text: str) -> str:
    """Return a text on one line, without markers, quotation fences and chat template tokens."""
    return without_tokens(_SPACE.sub(" ", QUOTED_LINE.sub(" ", without_markers(text))).strip())


def _words(text: str) -> set[str]:
    return {word for word in _WORD.findall(text.casefold()) if len(word) >= SHORTEST_WORD or word.isdigit()}
