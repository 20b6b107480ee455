"""The sentences of the evidence that may answer, with what the form of the document says about them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rag.documents.sentences import Sentence, asks
from rag.documents.table_rows import asked_rows, is_looked_up, row_of, words
from rag.models.extractive.evidence import EvidencePassage
from rag.models.extractive.heading_lines import headings_among
from rag.models.extractive.named_keys import about_keys

# Longer sentences are lists or code without sentence ends.
LONGEST = 600
MOST_SENTENCES = 3
_SPACE = re.compile(r"\s+")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
# Nothing but links to other documents: "See [passages](passages.md)." An address on the web may be an answer.
_POINTER = re.compile(
    r"(?:see(?:\s+also)?[\s:]+)?(?:\[[^\]]*\]\((?![^)]*://)[^)]*\)(?:[\s,.;]|and\b|or\b)*)+", re.IGNORECASE
)

_ASKS_HOW = re.compile(r"\bhow (?:do|does|can|could|should|would|to)\b", re.IGNORECASE)
# "To roll back, move the label": a purpose of few words, and then what serves it.
_PURPOSE = re.compile(r"to ((?:[\w'-]+ ){0,5}[\w'-]+), ", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Readable:
    """A sentence that may answer.

    Attributes:
        asked: The question that stands before it in the document; empty without one.
        looked_up: Whether it is a row of a table that the question names, with one of its columns.
        says_how: Whether it begins with the purpose that the question asks the way to.
    """

    passage: EvidencePassage
    sentence: Sentence
    asked: str
    looked_up: bool = False
    says_how: bool = False


def readable(question: str, read: Sequence[tuple[EvidencePassage, Sequence[Sentence]]]) -> list[Readable]:
    """Return the sentences that may answer: no headings, questions or pointers.

    Where the question names a key or a row of a table, only what belongs to it is returned.
    """
    found = [
        (passage, sentence, asked.get(sentence.start, ""))
        for passage, sentences in read
        for asked in [questions_before(sentences, passage, question)]
        for headings in [headings_among(sentences, passage.text, (passage.title, *passage.headings))]
        for sentence in sentences
        if sentence.start not in headings and _may_answer(sentence, question)
    ]
    allowed = about_keys(question, [passage for passage, _ in read])
    if allowed is not None:
        found = [one for one in found if (one[0].number, one[1].start) in allowed] or found
    rows = [row_of(sentence.text) for _, sentence, _ in found]
    asked_about = asked_rows(question, rows)
    return [
        Readable(
            passage,
            sentence,
            asked,
            looked_up=row is not None and at in asked_about and is_looked_up(question, row),
            says_how=_says_how(sentence, question),
        )
        for at, ((passage, sentence, asked), row) in enumerate(zip(found, rows, strict=True))
        if row is None or not asked_about or at in asked_about
    ]


def questions_before(
    sentences: Sequence[Sentence], passage: EvidencePassage, question: str = ""
) -> dict[int, str]:
    """Return the question that stands before each sentence that answers one, by the sentence's start.

    So "Until six, and never alone." is known to be about the visitors that the line above asks about. A question
    holds for the sentences of the paragraph after it, ``MOST_SENTENCES`` at most; one in the title or heading
    holds for the first ones of the passage.
    """
    asked = next((text for text in (*reversed(passage.headings), passage.title) if text), "")
    asked = asked if asks(asked) else ""
    left = MOST_SENTENCES if asked else 0
    found: dict[int, str] = {}
    before: Sentence | None = None
    for sentence in sentences:
        if sentence.question or _repeats(sentence, question):
            # Two questions in a row are answered together.
            follows = before is not None and (before.question or _repeats(before, question))
            text = _SPACE.sub(" ", sentence.text)
            asked = f"{asked} {text}" if follows else text
            left = MOST_SENTENCES
        elif sentence.heading:
            left = 0
        elif left:
            answered = before is not None and before.start in found
            if answered and before is not None and _BLANK_LINE.search(passage.text, before.end, sentence.start):
                left = 0
            else:
                found[sentence.start] = asked
                left -= 1
        before = sentence
    return found


def _repeats(sentence: Sentence, question: str) -> bool:
    """Whether a sentence is the question itself, with or without its question mark."""
    return bool(question) and words(sentence.text) == words(question)


def _says_how(sentence: Sentence, question: str) -> bool:
    purpose = _PURPOSE.match(sentence.text)
    return (
        purpose is not None and bool(_ASKS_HOW.search(question)) and set(words(purpose[1])) <= set(words(question))
    )


def _may_answer(sentence: Sentence, question: str) -> bool:
    if len(sentence.text) > LONGEST or sentence.question:
        return False
    return not _POINTER.fullmatch(sentence.text) and not _repeats(sentence, question)
