"""Sentences of the evidence that are answers as they are."""

from __future__ import annotations

from rag.models.extractive.evidence_lines import DEPENDENT

# Words of a sentence, at least and at most.
_SELF_CONTAINED = (5, 28)
_COPYABLE = (5, 32)


def is_self_contained(line: str) -> bool:
    """Whether a sentence can be understood alone, and is short enough for an answer."""
    return _is_plain_sentence(line, _SELF_CONTAINED) and not DEPENDENT.match(line)


def is_copyable(line: str) -> bool:
    """Whether a sentence is complete, and names no address."""
    return _is_plain_sentence(line, _COPYABLE) and "@" not in line


def _is_plain_sentence(line: str, words: tuple[int, int]) -> bool:
    fewest, most = words
    return line[:1].isupper() and line.endswith((".", "!")) and fewest <= len(line.split()) <= most
