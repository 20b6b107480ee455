"""Rows of tables among sentences: ``name: value; name: value``, as the loaders write them.

A question about a row mostly names it by its first cell, or else by a code in another one. Rows of one table
differ in little else, so that neither their meaning nor their other words tell which one is asked about.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_WORD = re.compile(r"\w+")
_CODE = re.compile(r"(?=\S*\d)(?=\S*[^\W\d_])[\w./-]{2,20}")
_LONGEST_KEY = 100
_SHORTEST_KEY = 3
_LONGEST_BARE = 5
"""Maximum words of a first cell without a name; more are prose."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row.

    Attributes:
        keys: Words of the cells that tell it from other rows: the first one, and the line above a group of rows.
        columns: Words of the names of the other columns that have a value.
        codes: Words of the other cells that hold one word of letters and digits, such as E1.
    """

    keys: tuple[tuple[str, ...], ...]
    columns: tuple[tuple[str, ...], ...]
    codes: tuple[tuple[str, ...], ...] = ()


def row_of(sentence: str) -> TableRow | None:
    """Return the row that a sentence is; None if it is prose."""
    first, *others = sentence.split("; ")
    named = [part.partition(": ") for part in others]
    if not named or len(first) > _LONGEST_KEY or not any(separator for _, separator, _ in named):
        return None
    name, separator, value = first.partition(": ")
    keys = [words(value if separator else name)]
    if not separator and len(keys[0]) > _LONGEST_BARE:
        return None
    if not separator:
        keys.append(words(named[0][2]))
    return TableRow(
        tuple(key for key in keys if _tells(key)),
        tuple(words(column) for column, separator, _ in named if separator),
        tuple(words(cell) for _, _, cell in named if _CODE.fullmatch(cell)),
    )


def _tells(key: tuple[str, ...]) -> bool:
    """Whether a cell is more than an article or a pronoun: a number, a code or a word of some length."""
    return len(key) > 1 or any(len(word) >= _SHORTEST_KEY or not word.isalpha() for word in key)


def words(text: str) -> tuple[str, ...]:
    """Return the words of a text in lower case."""
    return tuple(_WORD.findall(text.casefold()))


def asked_rows(question: str, rows: Sequence[TableRow | None]) -> set[int]:
    """Return the places of the rows whose key a question contains; a key inside a longer one does not count."""
    asked = words(question)
    places = [(at, row) for at, row in enumerate(rows) if row is not None]
    return _named_by(asked, {at: row.keys for at, row in places}) or _named_by(
        asked, {at: row.codes for at, row in places}
    )


def _named_by(asked: tuple[str, ...], names: Mapping[int, tuple[tuple[str, ...], ...]]) -> set[int]:
    found = {
        at: max((key for key in keys if _contains(asked, key)), key=len, default=()) for at, keys in names.items()
    }
    keys = {key for key in found.values() if key}
    inside = {key for key in keys for other in keys if key != other and _contains(other, key)}
    return {at for at, key in found.items() if key and key not in inside}


def is_looked_up(question: str, row: TableRow) -> bool:
    """Whether a question contains the name of one of a row's columns."""
    asked = words(question)
    return any(_contains(asked, column) for column in row.columns if column)


def _contains(all_words: Sequence[str], some: Sequence[str]) -> bool:
    size = len(some)
    return any(tuple(all_words[at : at + size]) == tuple(some) for at in range(len(all_words) - size + 1))
