"""Sentences about the key that a question names: an error code, a version, the number of an invoice.

Records that only a key distinguishes are alike in everything else, and to an encoder the keys are alike, too.
Where the passages have the key that is asked about, only what belongs to it can answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from rag.documents.keys import keys_in, keys_of_place
from rag.documents.sentences import Sentence, split_sentences
from rag.models.extractive.evidence import EvidencePassage
from rag.models.extractive.heading_lines import is_line


@dataclass(frozen=True, slots=True)
class _Section:
    """A heading with its keys, or the beginning of a passage, and the sentences below it."""

    heading_keys: frozenset[str]
    heading: Sentence | None = None
    sentences: list[Sentence] = field(default_factory=list)


def about_keys(question: str, passages: Sequence[EvidencePassage]) -> set[tuple[int, int]] | None:
    """Return the sentences that belong to the keys of a question.

    Returns:
        Numbers of passages and offsets of sentences; None where no passage has a key of the question, so that all
        sentences may answer.
    """
    wanted = keys_in(question)
    if not wanted:
        return None
    shapes = {_shape(key) for key in wanted}
    counts: dict[tuple[int, int], int] = {}
    for passage in passages:
        for section in _sections(passage):
            inside = section.heading_keys.union(*(keys_in(one.text) for one in section.sentences))
            for sentence in section.sentences:
                own = keys_in(sentence.text)
                # A row or sentence with a key of its own is about that one.
                has_own = any(_shape(key) in shapes for key in own)
                keys = own | section.heading_keys if has_own else inside
                if sentence is section.heading and len(section.sentences) > 1:
                    # What it is the heading of answers, and not itself.
                    continue
                counts[passage.number, sentence.start] = len(wanted & keys)
    most = max(counts.values(), default=0)
    return {place for place, count in counts.items() if count == most} if most else None


def _sections(passage: EvidencePassage) -> list[_Section]:
    sections = [_Section(keys_of_place(passage.title, passage.headings))]
    for sentence in split_sentences(passage.text):
        keys = keys_in(sentence.text)
        if sentence.heading or (keys and is_line(sentence.text)):
            sections.append(_Section(keys, sentence))
        sections[-1].sentences.append(sentence)
    return sections


def _shape(key: str) -> str:
    """Return the form of a key: runs of digits and of letters count as one."""
    return re.sub(r"[a-z]+", "a", re.sub(r"\d+", "9", key))
