"""Headings among the sentences of a passage, also those without mark-up, such as the name of a sheet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from rag.documents.sentences import Sentence
from rag.documents.table_rows import row_of, words

# Words of a line that is the heading of the lines below it.
_HEADING_WORDS = 8
# Signs of a sentence, a row or a setting.
_NO_HEADING = re.compile(r"[.!?,]$|[|;:=] |[|;=]")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")


def is_line(text: str) -> bool:
    """Whether a text that stands above others is a heading and no sentence."""
    return len(text.split()) <= _HEADING_WORDS and not _NO_HEADING.search(text)


def headings_among(sentences: Sequence[Sentence], text: str, names: Sequence[str]) -> set[int]:
    """Return the starts of the sentences that are headings.

    A heading is marked as one, repeats a heading of the passage, or is a line of its own above rows of a table, or
    above such a line.
    A passage that is nothing but its heading has none without mark-up.

    Args:
        sentences: Those of a passage, in order.
        text: Text of the passage.
        names: Title and headings of the passage.
    """
    named = {words(name) for name in names if name}
    found = {one.start for one in sentences if one.heading}
    if len(sentences) > 1:
        found |= {one.start for one in sentences if words(one.text) in named}
    lines = [
        (one, following)
        for one, following in pairwise(sentences)
        if is_line(one.text) and _BLANK_LINE.search(text, one.end, following.start)
    ]
    above_rows = {one.start for one, following in lines if row_of(following.text)}
    # The name of a sheet stands above the caption of its table.
    above_captions = {one.start for one, following in lines if following.start in above_rows}
    return found | above_rows | above_captions
