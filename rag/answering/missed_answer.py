"""A quotation in place of an answer that leaves out what the reader found.

The reader finds the sentence that answers more reliably than a small model chooses one of several. Where the model
writes about something else, or refuses although the reader is rather sure, the sentences of the reader are quoted.
"""

from __future__ import annotations

from collections.abc import Sequence

from rag.answering.claim_numbers import KnownNumbers
from rag.answering.claim_text import Stemmer, folded
from rag.documents.citation_markers import on_one_line, without_markers
from rag.models.extractive.evidence_lines import MARK, EvidenceLine
from rag.settings import AnswerStyle
from rag.types import Hit

# Minimum share of the content words of a marked text that an answer must have.
SAID_SHARE = 0.5
# Minimum share of those of the sentence that most probably answers, for an answer in whole sentences. On the
# handbook's questions, 75 % of the answers then have the expected text, against 56 % of what the model writes.
TOLD_SHARE = 0.6
# Answers with fewer words are no sentences: the marked words are all that they can have.
SENTENCE_WORDS = 8
# Minimum probability at which a sentence is quoted although the model refuses.
SURE = 0.6


def misses_answer(text: str, lines: Sequence[EvidenceLine]) -> bool:
    """Whether an answer leaves out what the sentence says that most probably answers.

    Args:
        text: The answer.
        lines: The sentences that it was written from; if none of them is the best, nothing is missed.
    """
    best = next((line for line in lines if line.best), None)
    if best is None:
        return False
    whole = best.text.replace(MARK, "")
    if best.marked and not _says(text, best.marked, SAID_SHARE):
        return True
    is_short = len(without_markers(text).split()) < SENTENCE_WORDS
    if is_short and best.marked:
        return False
    return not _says(text, whole, SAID_SHARE if is_short else TOLD_SHARE)


def quotation_of(lines: Sequence[EvidenceLine], hits: Sequence[Hit], style: AnswerStyle = "full") -> str:
    """Return what answers, quoted on one line with its markers; empty without any.

    Args:
        lines: The sentences that the answer was written from; those that only explain others are not quoted.
        hits: The passages of the prompt, in order of their markers.
        style: All sentences that answer, the best one, or only its words that answer if they are known.
    """
    quoted = [line for line in lines if line.best or line.marked]
    if style != "full":
        quoted = [line for line in quoted if line.best] or quoted[:1]
    return " ".join(
        f"{line.marked if style == 'brief' and line.marked else _sentence(line, hits)} [{line.number}]"
        for line in quoted
    )


def page_named_in(text: str, lines: Sequence[EvidenceLine], hits: Sequence[Hit]) -> str:
    """Return the title in parentheses with which an answer ends, with a space before it, or nothing.

    A model may have been taught to name the page, which the quotation in place of its answer would undo.

    Args:
        text: The answer.
        lines: The sentences that are quoted: only the titles of their passages are kept.
        hits: The passages of the prompt, in order of their markers.
    """
    said = without_markers(text).strip().rstrip(".").rstrip()
    titles = (hits[line.number - 1].passage.title for line in lines if line.best or line.marked)
    return next((f" ({title})" for title in titles if title and said.endswith(f"({title})")), "")


def _sentence(line: EvidenceLine, hits: Sequence[Hit]) -> str:
    return on_one_line(hits[line.number - 1].passage.text[line.start : line.end])


def _says(text: str, words: str, share: float) -> bool:
    """Whether a text has the numbers and a share of the content words of another."""
    said, wanted = folded(text), folded(words)
    if wanted.casefold() in said.casefold():
        return True
    if KnownNumbers([said]).missing_from(wanted):
        return False
    stemmer = Stemmer()
    stems = stemmer.stems(wanted)
    return bool(stems) and len(stems & stemmer.stems(said)) >= share * len(stems)
