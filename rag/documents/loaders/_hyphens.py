"""Words that are divided at the ends of lines, joined as the document itself writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable

MARK = "\ufffe"
"""What PDFium writes for a hyphen at the end of a line (or U+0002)."""
_DIVIDED = re.compile(rf"(-?)([^\W\d_]+){MARK}\s?([^\W\d_]+)")
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
# First parts of compounds that keep their hyphen; joined words that begin with them are mostly written in one.
_FIRST_PARTS = frozenset(
    "all best better close cross double early easy eight ever far fast fine first five four free full good half "
    "hard high ill ice labour large last late left light long low mid multi much nine non old one open part quasi "
    "ready real right second self seven shore short single six slow small soft state ten third "
    "three top twice two user vice well wide year".split()
)
_SHORTEST_SECOND = 4
# Words that are divided after a first part that is itself a word: with-out, under-stand.
_CLOSED = frozenset(
    "after along an any back be can counter down every for how in inter into never no not off on out over some "
    "super there through to under up what when where who with work".split()
)


class Hyphens:
    """Joins divided words.

    Args:
        pages: The texts of a document, with ``MARK`` where a word is divided.
    """

    def __init__(self, pages: Iterable[str]) -> None:
        self._words: set[str] = set()
        pages = list(pages)
        if any(MARK in page for page in pages):
            for page in pages:
                whole = _DIVIDED.sub(" ", page)
                self._words.update(word.casefold() for word in _WORD.findall(whole))

    def joined(self, text: str) -> str:
        """Return a text without the divisions that are not part of a word."""
        if MARK not in text:
            return text
        return _DIVIDED.sub(lambda match: match[1] + self._whole(*match.groups()), text).replace(MARK, "-")

    def _whole(self, before: str, first: str, second: str) -> str:
        word, compound = f"{first}{second}", f"{first}-{second}"
        if before:  # A longer compound, such as state-of-the-art.
            return compound
        known = self._words
        if compound.casefold() in known:
            return compound
        if word.casefold() in known:
            return word
        if second[0].isupper() and not first.isupper():
            return compound
        start, rest = first.casefold(), second.casefold()
        both = start in known and rest in known and start not in _CLOSED
        return compound if len(rest) >= _SHORTEST_SECOND and (both or start in _FIRST_PARTS) else word
