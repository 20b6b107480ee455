"""Text as the lexical index splits it into words; offsets go on referring to the stored text.

Composed and decomposed letters are alike, ligatures and wide letters are plain ones, and invisible characters
inside words are left out, as are signs that only help the reader, such as Arabic vowels. A year is found in FY2024
and Q12024, too, and a word that is divided at the end of a line. Scripts that put no space between words are
indexed as pairs of characters, as in Lucene's CJK analyzer: no dictionary is needed, and a word of the query is
found wherever its characters are.

A script with one language for which tantivy has a stemmer is stemmed for it, whatever the language of the text: to
other languages of the script, the Russian stemmer does little harm, since texts and queries lose the same endings.
Latin letters tell nothing, so the index stems them all for English.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from functools import cache
from typing import TYPE_CHECKING

from rag.documents.chunking import UNSPACED

if TYPE_CHECKING:
    from tantivy import TextAnalyzer

# Soft hyphen, zero-width characters, marks of direction, byte order mark.
_INVISIBLE = (0xAD, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF)
# Hebrew and Arabic points, and the Arabic stroke that widens a word.
_POINTS = (*range(0x591, 0x5BE), 0x5BF, 0x5C1, 0x5C2, 0x5C4, 0x5C5, 0x5C7, 0x640, *range(0x64B, 0x660), 0x670)
# Signs under the letters of the scripts of India that the tokenizer would take for the end of a word.
_JOINERS = tuple(
    map(ord, "\u093c\u094d\u09bc\u09cd\u0a3c\u0a4d\u0abc\u0acd\u0b3c\u0b4d\u0bcd\u0c4d\u0cbc\u0ccd\u0d4d")
)
_LEFT_OUT = dict.fromkeys((*_INVISIBLE, *_POINTS, *_JOINERS))
# A fiscal year or quarter.
_PERIOD = re.compile(r"\b[A-Za-z]{1,2}[1-4]?((?:19|20)\d\d)\b")
# A word that is divided at the end of a line, or has a hyphen there: it is indexed both ways.
_DIVIDED = re.compile(r"(\w+)-\n[ \t]*(\w+)")
# Korean words are separated by spaces, but particles are attached to them.
_RUN = re.compile(f"[{UNSPACED}\uac00-\ud7af]+")
# Greek, Cyrillic, Arabic.
_INFLECTED = re.compile("[\u0370-\u03ff\u0400-\u052f\u0600-\u06ff\u0750-\u077f\u1f00-\u1fff]+")


def searchable(text: str) -> str:
    """Return the text to be split at spaces and punctuation."""
    if "-\n" in text:
        text = _DIVIDED.sub(r"\g<0> \1\2", text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.translate(_LEFT_OUT))
        text = _INFLECTED.sub(_stems, _RUN.sub(_pairs, text))
    return _PERIOD.sub(r"\g<0> \1", text)


def same_name(name: str) -> str:
    """Return a file name that equals those that differ only in how letters are composed."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _pairs(run: re.Match[str]) -> str:
    # Vowel signs and tone marks would split a word.
    characters = [character for character in run.group() if character.isalnum()]
    pairs = itertools.pairwise(characters)
    return f" {' '.join(map(''.join, pairs)) or ''.join(characters)} "


def _stems(word: re.Match[str]) -> str:
    before, after = word.string[max(word.start() - 1, 0) : word.start()], word.string[word.end() : word.end() + 1]
    if before.isalnum() or after.isalnum():
        return word.group()  # A letter in a code or a unit, such as \u03bcm.
    # The two spellings of a Russian letter are used alike.
    return " ".join(_stemmer().analyze(word.group().lower().replace("\u0451", "\u0435")))


@cache
def _stemmer() -> TextAnalyzer:
    """Return an analyzer of the scripts of ``_INFLECTED``; every stemmer leaves the other scripts as they are."""
    import tantivy

    make = tantivy.Filter
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple()).filter(make.stopword("russian"))
    for language in ("russian", "greek", "arabic"):
        builder = builder.filter(make.stemmer(language))
    return builder.build()
