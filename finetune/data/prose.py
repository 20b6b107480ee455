"""Unlabelled prose, and cloze questions generated from it.

Two kinds of cloze questions teach span selection from plain text (recurring spans: Ram and others,
arXiv 2101.00438; cloze questions: Lewis, Denoyer and Riedel, arXiv 1906.04980):

* *elsewhere*: a sentence is removed from its paragraph, and a span of it that also occurs in the rest is blanked;
* *here*: the paragraph stays whole, and the question is a reworded part of the sentence with the answer.
"""

from __future__ import annotations

import json
import lzma
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.rows import ReadingRow
from rag.documents.sentences import Sentence, split_sentences
from rag.errors import TuningError

# Characters of a generated passage.
SHORTEST, LONGEST = 250, 700
BLANK = "[MASK]"
MOST_ANSWER_WORDS = 5
# Share of the questions that are paired with another part of the same document, without the answer.
UNANSWERED = 0.15
# Share of the words that are dropped from a question of the *here* kind.
LEFT_OUT = 0.25

_NAME = re.compile(r"\b[A-Z][\w'’.-]*(?:(?: of| the| de| and| for)? [A-Z0-9][\w'’-]*){0,4}(?<![.'’-])")
_UNIT = "percent|million|billion|years?|days?|hours?|km|metres|miles|people|bytes|MB|GB"
_FIGURE = re.compile(rf"(?:[$€£]\s?)?\b\d(?:[\d,.]*\d)?(?:\s?%| (?:{_UNIT})\b)?")
_MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
_DATE = re.compile(rf"\b(?:(?:\d{{1,2}} )?(?:{_MONTH})(?: \d{{1,2}})?,? )?(?:1[0-9]|20)\d\d\b")
_PHRASE = re.compile(
    r"\b(?:the|a|an|its|their|his|her|by|of|to|for) ((?:[a-z][a-z-]+ ){0,3}[a-z-]{4,})(?=[.,;:)]|$)"
)
_WORD = re.compile(r"\w+")
_SMALL = frozenset(
    "a an and are as at be been but by can did do does for from had has have he her his in into is it its may "
    "more no not of on or she so such than that the their them then there these they this to was were when which "
    "who will with would you your also other some if any all we our".split()
)


@dataclass(frozen=True, slots=True)
class Prose:
    """One document."""

    title: str
    text: str


def read_prose(files: Sequence[Path], seed: int) -> Iterator[Prose]:
    """Yield the documents of several files in interleaved blocks, so that any prefix is mixed.

    Raises:
        TuningError: A file is missing or malformed.
    """
    rng = random.Random(f"{seed} prose")
    streams = [_documents(path) for path in files]
    while streams:
        stream = rng.choice(streams)
        block = [document for _, document in zip(range(20), stream, strict=False)]
        if not block:
            streams.remove(stream)
        yield from block


def _documents(path: Path) -> Iterator[Prose]:
    try:
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                record = json.loads(line)
                yield Prose(record["title"], record["text"])
    except (OSError, EOFError, lzma.LZMAError, ValueError, KeyError, TypeError) as error:
        raise TuningError(f"{path} cannot be read as prose: {error}.") from error


def cloze_rows(documents: Iterator[Prose], seed: int) -> Iterator[ReadingRow]:
    """Yield cloze questions about every document, roughly one per paragraph."""
    rng = random.Random(f"{seed} cloze")
    for document in documents:
        passages = list(_passages(document.text))
        for at, passage in enumerate(passages):
            row = _elsewhere(document, passage, rng) if rng.random() < 0.5 else None
            row = row or _here(document, passage, rng)
            if row is None:
                continue
            if len(passages) > 1 and rng.random() < UNANSWERED:
                other = passages[at - 1 if at else 1]
                answer = row.passage[slice(*row.answers[0])]
                if answer.lower() not in other.lower():
                    row = ReadingRow(row.question, other, row.place)
            yield row


def _passages(text: str) -> Iterator[str]:
    """Join short paragraphs and split long ones at sentences."""
    pending = ""
    for paragraph in text.split("\n\n"):
        pending = f"{pending}\n\n{paragraph}" if pending else paragraph
        while len(pending) > LONGEST:
            ends = [sentence.end for sentence in split_sentences(pending) if SHORTEST < sentence.end <= LONGEST]
            end = ends[-1] if ends else LONGEST
            yield pending[:end]
            pending = pending[end:].lstrip()
        if len(pending) >= SHORTEST:
            yield pending
            pending = ""


def _elsewhere(document: Prose, passage: str, rng: random.Random) -> ReadingRow | None:
    sentences = _whole_sentences(passage)
    rng.shuffle(sentences)
    for sentence in sentences[:6]:
        rest = f"{passage[: sentence.start].rstrip()} {passage[sentence.end :].lstrip()}".strip()
        spans = _spans(sentence.text)
        rng.shuffle(spans)
        for start, end in spans:
            answer = sentence.text[start:end]
            found = tuple(
                match.span() for match in re.finditer(rf"\b{re.escape(answer)}(?!\w)", rest, re.IGNORECASE)
            )
            if found:
                question = _blanked(sentence.text, start, end, rng)
                # The title is often the answer.
                place = () if answer.lower() in document.title.lower() else (document.title,)
                return ReadingRow(question, rest, place, found[:8])
    return None


def _here(document: Prose, passage: str, rng: random.Random) -> ReadingRow | None:
    sentences = _whole_sentences(passage)
    if len(sentences) < 2:
        return None
    sentence = rng.choice(sentences)
    spans = _spans(sentence.text)
    if not spans:
        return None
    start, end = rng.choice(spans)
    answer = sentence.text[start:end]
    asked = [word for word in _clause(sentence.text, start, end).split() if rng.random() > LEFT_OUT]
    if sum(word.lower() not in _SMALL for word in asked) < 2:
        return None
    question = f"{_question_word(sentence.text, start, answer)} {' '.join(asked)}?"
    place = () if answer.lower() in document.title.lower() else (document.title,)
    return ReadingRow(question, passage, place, ((sentence.start + start, sentence.start + end),))


def _whole_sentences(passage: str) -> list[Sentence]:
    return [s for s in split_sentences(passage) if 40 <= len(s.text) <= 350 and not s.heading]


def _spans(sentence: str) -> list[tuple[int, int]]:
    """Return the spans of names, numbers, dates and closing phrases that may be an answer."""
    found = {match.span() for match in _DATE.finditer(sentence)}
    found |= {match.span() for match in _FIGURE.finditer(sentence)}
    found |= {match.span(1) for match in _PHRASE.finditer(sentence)}
    for match in _NAME.finditer(sentence):
        # A single capitalised word at the start of a sentence is not taken for a name.
        if match.start() or " " in match.group():
            found.add(match.span())
    return [
        (start, end)
        for start, end in sorted(found)
        if 1 < end - start < 0.6 * len(sentence)
        and sentence[start:end].lower() not in _SMALL
        and len(sentence[start:end].split()) <= MOST_ANSWER_WORDS
    ]


def _blanked(sentence: str, start: int, end: int, rng: random.Random) -> str:
    blank = BLANK if rng.random() < 0.5 else _question_word(sentence, start, sentence[start:end]).lower()
    return f"{sentence[:start]}{blank}{sentence[end:]}"


def _clause(sentence: str, start: int, end: int) -> str:
    """Return the words around the answer, up to the nearest commas that leave enough of them."""
    before, after = sentence[:start], sentence[end:].rstrip(".!? ")
    if len(after.split()) > 6:
        after = re.split(r"[;:]|, (?:and|but|while|which)\b", after)[0]
    if len(before.split()) > 12:
        before = re.split(r"[;:]|, ", before)[-1] if len(before.split(", ")[-1].split()) > 3 else before
    return f"{before} {after}"


def _question_word(sentence: str, start: int, answer: str) -> str:
    """Guess the question word from the form of the answer and the word before it."""
    before = _WORD.findall(sentence[:start].lower())[-1:]
    if _DATE.fullmatch(answer):
        return "When"
    if answer[0].isdigit() or answer[0] in "$€£":
        return "How much" if "%" in answer or answer[0] in "$€£" else "How many"
    if answer[0].isupper():
        if before and before[0] in ("in", "at", "from", "near", "to"):
            return "Where"
        return "Who" if " " in answer and "the" not in answer.lower().split() else "What"
    return "What"
