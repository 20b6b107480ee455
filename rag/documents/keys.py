"""Keys in a text: error codes, versions, names of settings, numbers of invoices."""

from __future__ import annotations

import re

# Letters, digits and signs in one word.
_WORD = re.compile(r"[A-Za-z0-9_]+(?:[./:#+-]+[A-Za-z0-9_]+)*(?:\+\+|#)?")
# A word with a digit or an underscore, a name with inner full stops, C++ or C#.
_KEY = re.compile(r".*[\d_].*|\w{2,}(?:\.\w{2,})+|\w+(?:\+\+|#)")
# A decimal number, a small number or a year is a value, and so is a year or quarter of accounts.
_VALUE = re.compile(r"\d{1,4}(?:\.\d+)?|[A-Za-z]{1,2}[1-4]?(?:19|20)\d\d|Q[1-4]", re.IGNORECASE)
_FILE_ENDING = re.compile(r"\.[A-Za-z]{1,5}$")


def keys_in(text: str) -> frozenset[str]:
    """Return the keys in a text, in lower case."""
    words = _WORD.findall(text)
    return frozenset(word.casefold() for word in words if _KEY.fullmatch(word) and not _VALUE.fullmatch(word))


def keys_of_place(title: str, headings: tuple[str, ...]) -> frozenset[str]:
    """Return the keys in a title, which may be the name of a file, and in headings."""
    return frozenset().union(*map(keys_in, (_FILE_ENDING.sub("", title), *headings)))
