"""Pairs of a sentence and a question about it, aligned by line (the NQG files).

The files have no answers and no paragraphs. Neighbouring sentences come from the same article, so a few in a row
form a passage, and the answer lies somewhere in the paired sentence.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from finetune.data.splits import HeldOut
from finetune.rows import ReadingRow
from rag.errors import TuningError

# Minimum and maximum sentences of a passage, the paired one included.
FEWEST, MOST = 2, 4
_BRACKETS = {"-lrb-": "(", "-rrb-": ")", "-lsb-": "[", "-rsb-": "]", "``": '"', "''": '"'}
_BEFORE = re.compile(r" ([.,;:!?%)\]]|'s\b|n't\b|'re\b|'ve\b|'ll\b)")
_AFTER = re.compile(r"([(\[$]) ")


@dataclass(frozen=True, slots=True)
class SentencePair:
    """A sentence and a question that the sentence answers."""

    sentence: str
    question: str


def read_pairs(source: Path, target: Path, held_out: HeldOut) -> list[SentencePair]:
    """Read the pairs of two aligned files, without those from held-out paragraphs.

    Raises:
        TuningError: A file is missing, or the files differ in length.
    """
    try:
        sentences = source.read_text(encoding="utf-8").splitlines()
        questions = target.read_text(encoding="utf-8").splitlines()
        pairs = [
            SentencePair(as_written(sentence), as_written(question))
            for sentence, question in zip(sentences, questions, strict=True)
        ]
    except (OSError, ValueError) as error:
        raise TuningError(f"{source} and {target} cannot be read as pairs: {error}.") from error
    kept = {pair.sentence: not held_out.holds(pair.sentence) for pair in pairs}
    return [pair for pair in pairs if kept[pair.sentence]]


def as_written(tokens: str) -> str:
    """Return detokenized text: no spaces around punctuation, brackets and quotes restored."""
    text = " ".join(_BRACKETS.get(token, token) for token in tokens.split())
    return _AFTER.sub(r"\1", _BEFORE.sub(r"\1", text))


def reading_rows(pairs: list[SentencePair], seed: int) -> Iterator[ReadingRow]:
    """Yield a row per pair, with neighbouring sentences as its passage."""
    rng = random.Random(f"{seed} sentence pairs")
    order = list(dict.fromkeys(pair.sentence for pair in pairs))
    place = {sentence: number for number, sentence in enumerate(order)}
    for pair in pairs:
        count = rng.randint(FEWEST, MOST)
        at = place[pair.sentence]
        first = max(0, min(at - rng.randrange(count), len(order) - count))
        around = order[first : first + count]
        before = sum(len(sentence) + 1 for sentence in around[: at - first])
        yield ReadingRow(
            pair.question,
            " ".join(around),
            answers=((before, before + len(pair.sentence)),),
            exact=False,
        )
