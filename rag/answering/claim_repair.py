"""Quotations in place of the sentences of an answer that fail the check of claims."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from rag.answering.claim_check import ClaimSources
from rag.answering.claim_text import Stemmer, folded
from rag.answering.grounding import MARKERS, QUOTED_LINE
from rag.documents.citation_markers import on_one_line
from rag.documents.sentences import Sentence, split_sentences
from rag.models.extractive.evidence_lines import EvidenceLine
from rag.models.extractive.heading_lines import headings_among
from rag.settings import AnswerStyle
from rag.types import Hit, Passage, Replaced

# Longer sentences are lists or code without sentence ends.
LONGEST_QUOTATION = 600
_FENCE = re.compile(r"^[ \t]*```.*?(?:^[ \t]*```[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_FENCE_MARK = re.compile(r"```[^\s`]*")
_BEFORE_STOP = re.compile(r" (?=[.,;:!?](?: |$))")
# The mark-up before a list item, which goes with the item.
_ITEM = re.compile(r"\n[ \t>]*(?:[-*+•|]|#{1,6}|\d{1,3}[.)])[ \t]*$")
_NUMBER = re.compile(r"\d+")
_CLOSING = re.compile(r"[ \t]*[.,;:!]+")
_EDGES = re.compile(r"^\W+|\W+$")


@dataclass(frozen=True, slots=True)
class Written:
    """An answer that a model wrote.

    Attributes:
        text: The answer, with markers of existing passages only.
        hits: The passages of the prompt, in order of their markers.
        question: The standalone question.
        lines: The sentences that it was written from; empty if the model read the passages.
        style: ``brief`` quotes only the words that answer, if they are known.
    """

    text: str
    hits: Sequence[Hit]
    question: str
    lines: Sequence[EvidenceLine] = ()
    style: AnswerStyle = "full"


@dataclass(frozen=True, slots=True)
class CitedSentence:
    """A sentence or a block of code, with its markers.

    Attributes:
        words: The sentence on one line, without markers.
        start, end: Offsets in the answer, including the markers.
    """

    words: str
    markers: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Quotation:
    """A sentence of the evidence, and the number of its passage."""

    number: int
    text: str


def faults_in(written: Written) -> tuple[Replaced, ...]:
    """Return the sentences of an answer that fail the check; nothing is replaced."""
    return tuple(fault for _, fault in _checked(written) if fault is not None)


def repaired(written: Written) -> tuple[str, tuple[Replaced, ...]]:
    """Return an answer in which quotations replace the sentences that fail the check, and these sentences.

    A quotation that the answer already contains is not repeated. A sentence without any evidence to quote is left.
    """
    checked = _checked(written)
    quotable = _Quotable(written)
    present = {_key(unit.words) for unit, fault in checked if fault is None}
    pieces: list[str] = []
    faults: list[Replaced] = []
    at = 0
    for unit, fault in checked:
        if fault is None:
            continue
        quotation = quotable.nearest(unit)
        if quotation is None:
            faults.append(fault)
            continue
        faults.append(replace(fault, quotation=quotation.text))
        before = written.text[at : unit.start]
        if _key(quotation.text) in present:
            pieces.append(_ITEM.sub("", before).rstrip())
        else:
            present.add(_key(quotation.text))
            pieces.append(f"{before}{quotation.text} [{quotation.number}]")
        at = unit.end
    return "".join((*pieces, written.text[at:])).strip(), tuple(faults)


def _checked(written: Written) -> list[tuple[CitedSentence, Replaced | None]]:
    """Return the sentences of an answer, each with its fault."""

    @cache
    def sources(markers: tuple[int, ...]) -> ClaimSources:
        cited = markers or tuple(range(1, len(written.hits) + 1))
        lines = [line for line in written.lines if line.number in cited] or written.lines
        passages = [written.hits[number - 1].passage for number in cited]
        texts = [line.text for line in lines] or [passage.text for passage in passages]
        places = [part for passage in passages for part in (passage.title, *passage.headings)]
        return ClaimSources([*texts, *dict.fromkeys(places)], written.question)

    checked: list[tuple[CitedSentence, Replaced | None]] = []
    for unit in cited_sentences(written.text, len(written.hits)):
        fault = sources(unit.markers).fault_of(unit.words)
        checked.append((unit, None if fault is None else Replaced(unit.words, fault.kind, fault.words)))
    return checked


def cited_sentences(text: str, passages: int) -> list[CitedSentence]:
    """Return the sentences of an answer; markers do not end them, and a block of code is one of them."""
    markers = [found for found in MARKERS.finditer(text) if found["markers"]]
    masked = MARKERS.sub(lambda found: " " * len(found[0]) if found["markers"] else found[0], text)
    masked = QUOTED_LINE.sub(lambda found: found[0].replace(">", " "), masked)
    places: list[tuple[int, int]] = []
    fences = [found.span() for found in _FENCE.finditer(text)]
    for sentence in split_sentences(masked):
        start, end = next(
            (fence for fence in fences if fence[0] <= sentence.start < fence[1]), (sentence.start, sentence.end)
        )
        if not places or start >= places[-1][1]:
            places.append((start, end))
    units: list[CitedSentence] = []
    starts = [found.start() for found in markers]
    for at, (start, end) in enumerate(places):
        following = places[at + 1][0] if at + 1 < len(places) else len(text)
        own = markers[bisect_left(starts, start) : bisect_left(starts, following)]
        numbers = [int(number) for found in own for number in _NUMBER.findall(found[0])]
        stop = end
        if own and own[-1].end() > end:
            stop = own[-1].end()
            closing = _CLOSING.match(text, stop, following)
            stop = closing.end() if closing else stop
        known = dict.fromkeys(number for number in numbers if 1 <= number <= passages)
        words = " ".join(_FENCE_MARK.sub(" ` ", masked[start:end]).split())
        units.append(CitedSentence(_BEFORE_STOP.sub("", words), tuple(known), start, stop))
    return units


def _sentences_of(passage: Passage) -> list[Sentence]:
    """Return the sentences of a passage without its headings."""
    sentences = split_sentences(passage.text)
    headings = headings_among(sentences, passage.text, (passage.title, *passage.headings))
    return [sentence for sentence in sentences if sentence.start not in headings]


class _Quotable:
    """The sentences of the evidence that an answer may quote."""

    def __init__(self, written: Written) -> None:
        self._stemmer = Stemmer()
        texts = [hit.passage.text for hit in written.hits]
        brief = written.style == "brief"
        if written.lines:
            found = [
                (line.number, texts[line.number - 1][line.start : line.end], line.marked if brief else "")
                for line in written.lines
            ]
        else:
            found = [
                (number, sentence.text, "")
                for number, hit in enumerate(written.hits, 1)
                for sentence in _sentences_of(hit.passage)
                if len(sentence.text) <= LONGEST_QUOTATION
            ]
        quotations = ((_Quotation(number, words or on_one_line(text)), text) for number, text, words in found)
        # Words are quoted for what their sentence has in common with the answer.
        self._quotations = [(each, self._stems(text)) for each, text in quotations if each.text]
        self._question = self._stems(written.question)
        self._given_lines = bool(written.lines)

    def nearest(self, unit: CitedSentence) -> _Quotation | None:
        """Return the sentence that shares most words with a written one, and then with the question.

        Without lines, only the cited passages count, and a sentence that shares nothing is not quoted.
        """
        words = self._stems(unit.words)

        def likeness(one: tuple[_Quotation, set[str]]) -> tuple[int, bool]:
            quotation, stems = one
            return 2 * len(stems & words) + len(stems & self._question), quotation.number in unit.markers

        cited = [one for one in self._quotations if one[0].number in unit.markers]
        among = self._quotations if self._given_lines else cited or self._quotations
        best = max(among, key=likeness, default=None)
        if best is None or not (self._given_lines or likeness(best)[0]):
            return None
        return best[0]

    def _stems(self, text: str) -> set[str]:
        return self._stemmer.stems(folded(text))


def _key(text: str) -> str:
    return _EDGES.sub("", folded(text).casefold())
