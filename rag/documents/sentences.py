"""Sentence splitting with exact offsets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# Names of a question and of its answer, with a number or emphasis, in lists of questions, records and tables.
_ASKING = r"q|f|question|frage|fråga|spørgsmål|spørsmål|vraag|pregunta|pergunta|domanda"
_ANSWERING = r"a|answer|antwort|svar|antwoord|respuesta|resposta|risposta|réponse|reponse|response|reply"
_LABEL = r"(?:\*\*|__)?(?:{names})(?:[ \t]?\d{{1,3}})?(?:\*\*|__)?[ \t]?:(?:\*\*|__)?(?=[ \t\n])"
_ASKING_LABEL = _LABEL.format(names=_ASKING) + r"|q\d{0,3}[.)](?=[ \t])"
_ANSWERING_LABEL = _LABEL.format(names=_ANSWERING) + r"|(?<=\n)a\d{0,3}[.)](?=[ \t])"
# Lines that never join their neighbours: blank lines, headings, list items, table rows, fences, directives.
_BREAK = re.compile(
    r"\n[ \t]*\n"
    r"|\n(?=[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+)"
    r"|\n(?=[ \t]*(?:#{1,6}[ \t]|\||```|~~~|\.\. ))"
    r"|(?<=\|)[ \t]*\n"
    rf"|\n(?=[ \t]*(?i:{_ASKING_LABEL}|{_ANSWERING_LABEL}))"
    rf"|;[ \t]+(?=(?i:{_LABEL.format(names=_ANSWERING)}))"
    r"|(?:(?<=\n)|^)[ \t]*(?:[=\-~^\"'#*+.:_]{4,}|```.*|~~~.*)[ \t]*(?=\n|$)"
)
_END = re.compile(r"(?<=[.!?])[\"'”’)\]*_`]*[ \t\n]+(?=[\"'“‘(\[*_`]*\w)|(?<=[。！？])")
_LEAD = re.compile(r"[ \t\n]*(?:(?:[-*+•>]|\d{1,3}[.)]|#{1,6}|\|)[ \t]+)*")
_ASKING_LEAD = re.compile(rf"(?:{_ASKING_LABEL})[ \t\n]*", re.IGNORECASE)
_ANSWERING_LEAD = re.compile(rf"(?:{_ANSWERING_LABEL})[ \t\n]*", re.IGNORECASE)
# Emphasis, quotes and brackets after a question mark.
_CLOSING = "*_`\"'”’»)] \t\n"
_QUESTION_MARKS = ("?", "？", "؟", "⁇")
_LONGEST_QUESTION = 300
_HEADING = re.compile(r"[ \t]*#{1,6}[ \t]")
_ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof st jr sr vs etc e.g i.e cf fig figs eq no vol pp ca approx dept est inc ltd co corp "
    "gen col lt sgt rev hon u.s u.k a.m p.m jan feb mar apr jun jul aug sep sept oct nov dec".split()
)
# A sentence may start in lower case, with a name such as ragsmith; the word before it must then have this many
# letters, because a shorter one may be an abbreviation that is not listed above.
_LONG_WORD = 4
# Characters before a full stop that are inspected, which keeps splitting linear in long sentences.
_LONGEST_WORD = 64


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence with its offsets: ``text`` is exactly ``source[start:end]``.

    Attributes:
        question: Whether it asks: it ends with a question mark, or is labelled as a question.
    """

    text: str
    start: int
    end: int
    heading: bool = False
    question: bool = False


def split_sentences(text: str) -> list[Sentence]:
    """Split a text into sentences, list items and table rows, without the mark-up in front of them.

    ``Q:``, ``Answer:`` and the like in front of a question or answer are mark-up too.
    """
    return [sentence for start, end in _units(text) for sentence in _sentences(text, start, end)]


def asks(text: str) -> bool:
    """Whether a paragraph is nothing but a question, so that its answer is what follows."""
    if len(text) > _LONGEST_QUESTION:
        return False
    if not text.rstrip(_CLOSING).endswith(_QUESTION_MARKS) and ":" not in text[:20] and text[:1] not in "Qq":
        return False
    sentences = split_sentences(text)
    return bool(sentences) and all(sentence.question for sentence in sentences)


def _units(text: str) -> Iterator[tuple[int, int]]:
    at = 0
    for match in _BREAK.finditer(text):
        if match.start() > at:
            yield at, match.start()
        at = max(match.end(), at)
    if at < len(text):
        yield at, len(text)


def _sentences(text: str, start: int, end: int) -> Iterator[Sentence]:
    heading = bool(_HEADING.match(text, start))
    if heading:
        line = text.find("\n", start + 1, end)
        if line > 0:
            yield from _one(text, start, line, heading=True)
            yield from _sentences(text, line, end)
            return
    at = start
    for match in _END.finditer(text, start, end):
        if _is_abbreviation(text, at, match.start(), lower=text[match.end() : match.end() + 2].islower()):
            continue
        yield from _one(text, at, match.end(), heading=heading)
        at = match.end()
    yield from _one(text, at, end, heading=heading)


def _one(text: str, start: int, end: int, *, heading: bool) -> Iterator[Sentence]:
    lead = _LEAD.match(text, start, end)
    first = lead.end() if lead else start
    asking = _ASKING_LEAD.match(text, first, end)
    label = asking or _ANSWERING_LEAD.match(text, first, end)
    first = label.end() if label else first
    last = end
    while last > first and text[last - 1] in " \t\n|":
        last -= 1
    if last > first and any(character.isalnum() for character in text[first:last]):
        sentence = text[first:last]
        question = bool(asking) or sentence.rstrip(_CLOSING).endswith(_QUESTION_MARKS)
        yield Sentence(sentence, first, last, heading, question)


def _is_abbreviation(text: str, start: int, end: int, *, lower: bool) -> bool:
    if text[end - 1] != ".":
        return False
    words = text[max(start, end - _LONGEST_WORD) : end].split()
    word = words[-1].rstrip(".").lstrip("(\"'").casefold() if words else ""
    if lower and (len(word) < _LONG_WORD or not word.isalpha()):
        return not word.endswith(("`", ")"))
    return word in _ABBREVIATIONS or (len(word) == 1 and word.isalpha() and word != "i")
