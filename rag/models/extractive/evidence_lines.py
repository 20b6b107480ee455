"""The sentences that a language model writes its answer from, with the words that answer marked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rag.documents.citation_markers import without_markers
from rag.documents.sentences import Sentence, split_sentences
from rag.models.extractive.evidence import EvidencePassage
from rag.models.extractive.heading_lines import headings_among
from rag.models.extractive.sentence_ranking import Candidate

MOST_LINES = 4
MARK = "**"
_SPACE = re.compile(r"\s+")
_MARKED = re.compile(r"\*\*(?P<words>.+?)\*\*")
# The beginning of a sentence that only the one before it explains.
DEPENDENT = re.compile(
    r"(?:he|she|it|they|this|these|those|his|her|its|their|such|both|there|then|here|also|but|and|or|so|however|"
    r"therefore|thus|instead|otherwise|moreover|furthermore|as a result|for example|for instance|in addition)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class EvidenceLine:
    """A sentence to write from.

    Attributes:
        number: Number of its passage in the prompt.
        text: The sentence on one line, with the words that answer between asterisks if they are known.
        start, end: Offsets of the sentence in the passage.
        best: Whether it is the sentence that most probably answers.
    """

    number: int
    text: str
    start: int
    end: int
    best: bool = False

    @property
    def marked(self) -> str:
        """The words that answer; empty if they are not known."""
        found = _MARKED.search(self.text)
        return found["words"] if found else ""


def evidence_lines(chosen: Sequence[Candidate]) -> tuple[EvidenceLine, ...]:
    """Return the chosen sentences, and those before them without which they cannot be understood.

    Args:
        chosen: The sentences that answer, best known spans included, in reading order.

    Returns:
        At most ``MOST_LINES`` sentences in reading order: neighbours are left out first.
    """
    best = max(chosen, key=lambda one: one.score, default=None)
    lines = {
        (one.passage.number, one.sentence.start): replace(
            _line(one.passage, one.sentence, one.span), best=one is best
        )
        for one in chosen
    }
    for one in chosen:
        if len(lines) < MOST_LINES and DEPENDENT.match(one.sentence.text):
            before = _sentence_before(one)
            if before is not None:
                lines.setdefault((one.passage.number, before.start), _line(one.passage, before, None))
    order = {one.passage.number: at for at, one in reversed(list(enumerate(chosen)))}
    return tuple(lines[key] for key in sorted(lines, key=lambda key: (order[key[0]], key[1]))[:MOST_LINES])


def _line(passage: EvidencePassage, sentence: Sentence, span: tuple[int, int] | None) -> EvidenceLine:
    text = passage.text
    start, end = span if span is not None else (sentence.end, sentence.end)
    start, end = max(start, sentence.start), min(end, sentence.end)
    before, marked, after = (
        without_markers(part).replace(MARK, "")
        for part in (text[sentence.start : start], text[start:end], text[end : sentence.end])
    )
    shown = f"{before}{MARK}{marked}{MARK}{after}" if marked.strip() else f"{before}{marked}{after}"
    return EvidenceLine(passage.number, _SPACE.sub(" ", shown).strip(), sentence.start, sentence.end)


def _sentence_before(one: Candidate) -> Sentence | None:
    passage = one.passage
    sentences = split_sentences(passage.text)
    before = [each for each in sentences if each.end <= one.sentence.start]
    headings = headings_among(sentences, passage.text, (passage.title, *passage.headings))
    return before[-1] if before and before[-1].start not in headings else None
