"""Text as the lexical index splits it into words; offsets go on referring to the stored text.

Composed and decomposed letters are alike, ligatures and wide letters are plain ones, and invisible characters
inside words are left out. A year is found in FY2024 and Q12024, too. Scripts that put no space between words are
indexed as pairs of characters, as in Lucene's CJK analyzer: no dictionary is needed, and a word of the query is
found wherever its characters are.
"""

from __future__ import annotations

import itertools
import re
import unicodedata

from rag.documents.chunking import UNSPACED

# Soft hyphen, zero-width characters, marks of direction, byte order mark.
_INVISIBLE = dict.fromkeys((0xAD, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF))
# A fiscal year or quarter.
_PERIOD = re.compile(r"\b[A-Za-z]{1,2}[1-4]?((?:19|20)\d\d)\b")
# Korean words are separated by spaces, but particles are attached to them.
_RUN = re.compile(f"[{UNSPACED}\uac00-\ud7af]+")


def searchable(text: str) -> str:
    """Return the text to be split at spaces and punctuation."""
    if not text.isascii():
        text = _RUN.sub(_pairs, unicodedata.normalize("NFKC", text.translate(_INVISIBLE)))
    return _PERIOD.sub(r"\g<0> \1", text)


def same_name(name: str) -> str:
    """Return a file name that equals those that differ only in how letters are composed."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _pairs(run: re.Match[str]) -> str:
    # Vowel signs and tone marks would split a word.
    characters = [character for character in run.group() if character.isalnum()]
    pairs = itertools.pairwise(characters)
    return f" {' '.join(map(''.join, pairs)) or ''.join(characters)} "
