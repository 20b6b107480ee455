"""A quotation in place of an answer that lacks the words that the reader marked.

The reader finds the words that answer more reliably than a small model copies them. Where the model writes
something else, or refuses although the reader is rather sure, the sentence of the reader is quoted.
"""

from __future__ import annotations

from collections.abc import Sequence

from rag.answering.claim_numbers import KnownNumbers
from rag.answering.claim_text import Stemmer, folded
from rag.documents.citation_markers import on_one_line
from rag.models.extractive.evidence_lines import EvidenceLine
from rag.types import Hit

# Minimum share of the content words of a marked text that an answer must have.
SAID_SHARE = 0.5
# Minimum probability at which a sentence is quoted although the model refuses.
SURE = 0.6


def misses_answer(text: str, lines: Sequence[EvidenceLine]) -> bool:
    """Whether an answer has the marked words of none of the sentences that it was written from.

    Args:
        text: The answer.
        lines: The sentences; if none has marked words, nothing is missed.
    """
    marked = [line.marked for line in lines if line.marked]
    return bool(marked) and not any(_says(text, words) for words in marked)


def quotation_of(lines: Sequence[EvidenceLine], hits: Sequence[Hit]) -> str:
    """Return the sentences that answer, quoted on one line with their markers; empty without any.

    Sentences that only explain others are left out.
    """
    return " ".join(
        f"{on_one_line(hits[line.number - 1].passage.text[line.start : line.end])} [{line.number}]"
        for line in lines
        if line.best or line.marked
    )


def _says(text: str, marked: str) -> bool:
    said, wanted = folded(text), folded(marked)
    if wanted.casefold() in said.casefold():
        return True
    if KnownNumbers([said]).missing_from(wanted):
        return False
    stemmer = Stemmer()
    stems = stemmer.stems(wanted)
    return bool(stems) and len(stems & stemmer.stems(said)) >= SAID_SHARE * len(stems)
