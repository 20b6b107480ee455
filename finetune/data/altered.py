"""Questions that a passage seems to answer, and does not: made of questions that it answers.

People who write such questions swap a name or a number, negate, take the opposite, or ask for what the passage
does not say (Rajpurkar, Jia and Liang, arXiv 1806.03822, table 2). Two ways of making them come near to that:

* *reworded*: a name, a number or a rare word that the question shares with the sentence that answers it is
  replaced by another from nearby, a word by its opposite, or the question is negated;
* *taken out*: the question stays, and the sentence that answers it is taken out of the passage.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from finetune.rows import ReadingRow
from rag.documents.sentences import split_sentences

# Of the rows that can be altered either way, those whose sentence is taken out.
TAKEN_OUT = 0.4
# Of the questions, those that are negated where they can be.
NEGATED = 0.05
# Rows before and after a row whose words may stand in for one of its own: they are about the same thing.
AROUND = 8
# A passage that is shorter without its sentence shows nothing.
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
    """For each answered row at most one that looks like it and has no answer.

    Args:
        answered: Neighbours are about the same thing, as in the files they come from.
        pieces: Into how many pieces a tokenizer cuts a word; rare words are cut into several.
        seed: Decides everything that is left to chance.
    """
    chance = random.Random(f"{seed} altered")
    said = [_kinds(row.passage, pieces) for row in answered]
    for at, row in enumerate(answered):
        made = _reworded(row, said[max(at - AROUND, 0) : at + AROUND + 1], pieces, chance)
        if made is None or chance.random() < TAKEN_OUT:
            made = _taken_out(row) or made
        if made is not None:
            yield made


def _taken_out(row: ReadingRow) -> ReadingRow | None:
    kept = row.passage
    for sentence in reversed(split_sentences(row.passage)):
        if any(start < sentence.end and end > sentence.start for start, end in row.answers):
            kept = f"{kept[: sentence.start].rstrip()} {kept[sentence.end :].lstrip()}".strip()
    told = [row.passage[start:end].lower() for start, end in row.answers] if row.exact else []
    if len(kept) < SHORTEST or any(answer in kept.lower() for answer in told):
        return None
    return replace(row, passage=kept, answers=())


def _reworded(
    row: ReadingRow, around: Sequence[dict[str, list[str]]], pieces: Pieces, chance: random.Random
) -> ReadingRow | None:
    asked = row.question
    if chance.random() < NEGATED and (found := _AUXILIARY.search(asked)):
        return replace(row, question=f"{asked[: found.end()]} not{asked[found.end() :]}", answers=())
    answering = _answering(row).lower()
    shared = [
        (kind, span)
        for kind, spans in _spans(asked, pieces).items()
        for span in spans
        if asked[slice(*span)].lower() in answering
    ]
    chance.shuffle(shared)
    for kind, (start, end) in shared:
        old = asked[start:end]
        others = [each for kinds in around for each in kinds[kind]]
        if kind == "opposite":
            others = [OPPOSITES[old.lower()]]
        if kind == "number":
            others = [each for each in others if len(each) == len(old)]
        # Neither said where the answer is, nor part of what it replaces.
        said = f"{answering} {asked.lower()}"
        fresh = sorted({each for each in others if each.lower() not in said})
        if fresh:
            return replace(row, question=f"{asked[:start]}{chance.choice(fresh)}{asked[end:]}", answers=())
    return None


def _spans(text: str, pieces: Pieces) -> dict[str, list[Span]]:
    """Where the words of each kind stand; one capital at the beginning of a sentence makes no name."""
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


def _kinds(text: str, pieces: Pieces) -> dict[str, list[str]]:
    return {kind: [text[slice(*span)] for span in spans] for kind, spans in _spans(text, pieces).items()}


def _answering(row: ReadingRow) -> str:
    """The sentences that hold an answer."""
    return " ".join(
        each.text
        for each in split_sentences(row.passage)
        if any(start < each.end and end > each.start for start, end in row.answers)
    )
