"""Unanswerable questions that a passage seems to answer, derived from answerable ones.

People who write such questions swap a name or a number, negate, use an antonym, or ask for something the passage
does not say (Rajpurkar, Jia and Liang, arXiv 1806.03822, table 2). Two transformations approximate that:

* *reworded*: a name, number or rare word that the question shares with its answering sentence is replaced by
  another from nearby or by its antonym, or the question is negated;
* *removed*: the question stays, and the sentence that answers it is removed from the passage.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from finetune.rows import ReadingRow
from rag.documents.sentences import split_sentences

# Share of the rows whose answering sentence is removed, where both transformations apply.
REMOVED = 0.4
# Share of the questions that are negated, where they can be.
NEGATED = 0.05
# Rows before and after that replacement words are drawn from: neighbours share a topic.
AROUND = 8
# Minimum characters of a passage after its sentence is removed.
SHORTEST = 60

_PAIRS = """first last, largest smallest, most least, more less, before after, north south, east west,
northern southern, eastern western, highest lowest, increase decrease, increased decreased, began ended, old new,
oldest newest, earliest latest, male female, won lost, minimum maximum, accepted rejected, supported opposed,
private public, rich poor, above below, longest shortest, best worst, majority minority, success failure,
inside outside, allowed forbidden, strong weak, internal external, arrived left, married divorced, bought sold,
born died"""
OPPOSITES = {
    one: other for pair in _PAIRS.split(",") for one, other in (tuple(pair.split()), tuple(reversed(pair.split())))
}
_AUXILIARY = re.compile(r"\b(is|are|was|were|did|does|do|can|could|will|would|has|have|had|should|must)\b")
_NAME = re.compile(r"\b[A-Z][\w'’-]*(?: (?:of |the |de )?[A-Z][\w'’-]*){0,3}(?<!['’-])")
_NUMBER = re.compile(r"\b\d(?:[\d,.]*\d)?\b")
_WORD = re.compile(r"\b[^\W\d_]{3,}\b")

Pieces = Callable[[str], int]
Span = tuple[int, int]


def altered_rows(answered: Sequence[ReadingRow], pieces: Pieces, seed: int) -> Iterator[ReadingRow]:
    """Yield at most one similar row without an answer for every answered row.

    Args:
        answered: Rows in file order, so that neighbours share a topic.
        pieces: Returns how many tokens a word is split into; rare words have several.
        seed: Seed of the random number generator.
    """
    rng = random.Random(f"{seed} altered")
    words = [_words_by_kind(row.passage, pieces) for row in answered]
    for at, row in enumerate(answered):
        altered = _reworded(row, words[max(at - AROUND, 0) : at + AROUND + 1], pieces, rng)
        if altered is None or rng.random() < REMOVED:
            altered = _without_answer(row) or altered
        if altered is not None:
            yield altered


def _without_answer(row: ReadingRow) -> ReadingRow | None:
    kept = row.passage
    for sentence in reversed(split_sentences(row.passage)):
        if any(start < sentence.end and end > sentence.start for start, end in row.answers):
            kept = f"{kept[: sentence.start].rstrip()} {kept[sentence.end :].lstrip()}".strip()
    answers = [row.passage[start:end].lower() for start, end in row.answers] if row.exact else []
    if len(kept) < SHORTEST or any(answer in kept.lower() for answer in answers):
        return None
    return replace(row, passage=kept, answers=())


def _reworded(
    row: ReadingRow, nearby: Sequence[dict[str, list[str]]], pieces: Pieces, rng: random.Random
) -> ReadingRow | None:
    question = row.question
    if rng.random() < NEGATED and (found := _AUXILIARY.search(question)):
        return replace(row, question=f"{question[: found.end()]} not{question[found.end() :]}", answers=())
    answering = _answering(row).lower()
    shared = [
        (kind, span)
        for kind, spans in _spans(question, pieces).items()
        for span in spans
        if question[slice(*span)].lower() in answering
    ]
    rng.shuffle(shared)
    for kind, (start, end) in shared:
        old = question[start:end]
        candidates = [word for words in nearby for word in words[kind]]
        if kind == "opposite":
            candidates = [OPPOSITES[old.lower()]]
        if kind == "number":
            candidates = [word for word in candidates if len(word) == len(old)]
        # A replacement must not occur in the answering sentence or in the question.
        taken = f"{answering} {question.lower()}"
        fresh = sorted({word for word in candidates if word.lower() not in taken})
        if fresh:
            return replace(row, question=f"{question[:start]}{rng.choice(fresh)}{question[end:]}", answers=())
    return None


def _spans(text: str, pieces: Pieces) -> dict[str, list[Span]]:
    """Find the words of every kind; one capitalised word at the start of a sentence is not taken for a name."""
    names = [
        match.span()
        for match in _NAME.finditer(text)
        if match.start() and (" " in match.group() or text[: match.start()].rstrip()[-1:] not in ".!?")
    ]
    words = [match for match in _WORD.finditer(text) if match.group()[0].islower()]
    return {
        "name": names,
        "number": [match.span() for match in _NUMBER.finditer(text)],
        "opposite": [match.span() for match in words if match.group() in OPPOSITES],
        "rare": [match.span() for match in words if pieces(match.group()) > 1],
    }


def _words_by_kind(text: str, pieces: Pieces) -> dict[str, list[str]]:
    return {kind: [text[slice(*span)] for span in spans] for kind, spans in _spans(text, pieces).items()}


def _answering(row: ReadingRow) -> str:
    """Return the sentences that contain an answer."""
    return " ".join(
        sentence.text
        for sentence in split_sentences(row.passage)
        if any(start < sentence.end and end > sentence.start for start, end in row.answers)
    )
