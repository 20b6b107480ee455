"""Tables of every format: which rows name the columns, and how a row is written so that it stands on its own.

A row becomes ``name: value; name: value``, wherever it is from. So every passage of a long table, and every row
quoted from it, says what its values are, and an empty cell shifts nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise

from rag.documents.loaders._blocks import LONGEST_HEADING, Builder

SAMPLE_ROWS = 50
"""Rows that are looked at to find the names of the columns."""
LONGEST_NAME = 100
"""Maximum characters of a column name; a longer cell of the first row is content."""
_SHORT_ROW = 300
"""Maximum characters of a row on one line; a longer one is written in several parts."""
_MOST_SPANNED = 200
"""Maximum columns of a table with merged cells; a page may claim any number."""
_LONGEST_SPANNED = 300
"""Maximum characters of a merged cell that is repeated in every row and column it covers."""
_MOST_HEADER_ROWS = 4
_MOST_WORDS = 3
"""Words of a name that ends with a full stop; more are a sentence."""

_DATE = re.compile(r"\d{1,4}[-./]\d{1,2}[-./]\d{1,4}(?:[T ]\d.*)?|\d{1,2}:\d{2}(?::\d{2})?")
_MEASURE = re.compile(r"[<>~≈±+-]?\d[\d.,'\u00a0\u202f ]*[%°€$£A-Za-zµ²³/]{1,6}\.?")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table with merged cells: its text, and the columns and rows that it covers."""

    text: str
    across: int = 1
    down: int = 1


class _Repeated(str):
    """Text of a merged cell in a column or row that it covers, but where it does not begin."""

    __slots__ = ()


def grid(rows: Iterable[Sequence[Cell]]) -> Iterator[list[str]]:
    """Yield rows with a text for every column, where merged cells are repeated."""
    covered: dict[int, tuple[int, str]] = {}
    for cells in rows:
        row: list[str] = []
        below: dict[int, tuple[int, str]] = {}
        waiting = list(reversed(cells))
        while waiting or any(column >= len(row) for column in covered):
            column = len(row)
            if column in covered:
                left, text = covered.pop(column)
                row.append(_Repeated(text))
                if left > 1:
                    below[column] = (left - 1, text)
                continue
            if not waiting:
                row.append("")
                continue
            cell = waiting.pop()
            text = _SPACE.sub(" ", cell.text).strip()
            copy = text if len(text) <= _LONGEST_SPANNED else ""
            for offset in range(max(min(cell.across, _MOST_SPANNED - column), 1)):
                row.append(_Repeated(copy) if offset else text)
                if cell.down > 1:
                    below[column + offset] = (cell.down - 1, copy)
        covered = below
        yield row


@dataclass(frozen=True, slots=True)
class WrittenTable:
    """What was written: the names of the columns, empty without any, and the number of rows below them."""

    names: tuple[str, ...]
    rows: int


def write_table(
    builder: Builder,
    rows: Iterable[Sequence[str]],
    headings: tuple[str, ...] = (),
    page: int | None = None,
    header_rows: int | None = None,
    numbered: bool = False,
) -> WrittenTable:
    """Write a table, a block per row; lines above the names of the columns become a heading.

    Args:
        builder: Takes the blocks.
        rows: The rows from the top; blank ones are skipped. Only a sample is kept in memory.
        headings: Headings above the table.
        page: Its page, if there are pages.
        header_rows: Number of rows that name the columns, where the format tells; None to find out.
        numbered: Whether a first column without a name may hold row numbers, which are left out.
    """
    filled = (row for row in rows if any(cell.strip() for cell in row))
    sample = list(islice(filled, SAMPLE_ROWS))
    caption, sample, header_rows = _caption(sample, header_rows)
    for number, line in enumerate(caption):
        heads = not number and len(line) <= LONGEST_HEADING
        headings = (*headings, line) if heads else headings
        builder.add(line, "heading" if heads else "text", headings, page)
    header = _header_rows(sample) if header_rows is None else min(header_rows, len(sample))
    names = _names(sample[:header])
    if header == len(sample):  # Only column names: use them as content.
        header = 0
    body = sample[header:]
    writer = _Rows(
        names if header else [], sample[:header], _is_keyed(names, body), numbered and _is_numbered(names, body)
    )
    count = 0
    for row in chain(body, filled):
        count += 1
        for part in writer.parts(row):
            builder.add(part, "row", headings, page)
    return WrittenTable(tuple(names), count if header or not names else 0)


class _Rows:
    """Renders the rows below the header."""

    def __init__(self, names: list[str], header: list[Sequence[str]], keyed: bool, numbered: bool) -> None:
        self._names = names
        self._header = [list(row) for row in header]
        self._keyed = keyed
        self._numbered = numbered
        self._group = ""

    def parts(self, row: Sequence[str]) -> list[str]:
        """Return a row in one part, or in several that each begin with its first cell if it is long."""
        if list(row) in self._header:  # The header is repeated on every page of the source.
            return []
        own = [cell for cell in row if not isinstance(cell, _Repeated)]
        if len(row) > 1 and len(own) == 1 and all(cell == row[0] for cell in row):
            self._group = row[0].strip()  # A line across the table heads the rows below it.
            return [self._group]
        cells = self._named(row) if self._names else self._bare(row)
        if self._group:
            cells.insert(0, self._group)
        if not self._names and not self._keyed:
            while not cells[-1]:
                cells.pop()
            return [" | ".join(cells)]
        return _wrapped(cells)

    def _named(self, row: Sequence[str]) -> list[str]:
        found = []
        for index, cell in enumerate(row):
            name = self._names[index] if index < len(self._names) else ""
            value = cell.strip()
            if value and not (index == 0 and self._numbered):
                found.append(f"{name}: {value}" if name else value)
        return found

    def _bare(self, row: Sequence[str]) -> list[str]:
        """Return the cells of a row without names; the first one of two names the other."""
        cells = [cell.strip() for cell in row]
        if self._keyed:
            between = "\n" if _is_sentence(cells[0]) else ": "  # A question, and its answer on a line of its own.
            return [between.join((cells[0].rstrip(": "), cells[1])) if all(cells[:2]) else "".join(cells)]
        return [cell.strip() for cell in row if not isinstance(cell, _Repeated)]


def _wrapped(cells: list[str]) -> list[str]:
    if sum(map(len, cells)) <= _SHORT_ROW and not any("\n" in cell for cell in cells):
        return ["; ".join(cells)]
    if any(len(cell) > _SHORT_ROW or "\n" in cell for cell in cells):
        return ["\n".join(cells)]  # Articles, one column after the other.
    key, *others = cells
    parts = [[key]]
    for cell in others:
        if len(parts[-1]) > 1 and sum(map(len, parts[-1])) + len(cell) > _SHORT_ROW:
            parts.append([key] if len(key) <= LONGEST_NAME * 2 else [])
        parts[-1].append(cell)
    return ["; ".join(part) for part in parts]


def _caption(
    rows: list[Sequence[str]], header_rows: int | None
) -> tuple[list[str], list[Sequence[str]], int | None]:
    """Split off the lines above a table that have a text in their first cell only."""
    lines: list[str] = []
    wide = any(_width(row) > 1 for row in rows)
    while wide and len(rows) > 1 and _width(rows[0]) == 1 and rows[0][0].strip():
        lines.append(rows[0][0].strip())
        rows = rows[1:]
        header_rows = header_rows and max(header_rows - 1, 1)
    return lines, rows, header_rows


def _width(row: Sequence[str]) -> int:
    """Return the number of cells with a text of their own."""
    return sum(1 for cell in row if cell.strip() and not isinstance(cell, _Repeated))


def _header_rows(rows: list[Sequence[str]]) -> int:
    """Return the number of rows that name the columns; 0 if the first row is content."""
    if not rows or _is_form(rows) or not _is_header(rows[0], rows[1:]):
        return 0
    count = 1
    while count < min(_MOST_HEADER_ROWS, len(rows) - 1) and _continues(
        rows[count - 1], rows[count], rows[count + 1 :]
    ):
        count += 1
    return count


def _is_form(rows: list[Sequence[str]]) -> bool:
    """Whether two columns hold names and values of one thing, as a form does, and no column names above them."""
    if any(len(row) != 2 for row in rows) or not _is_keyed([], rows):
        return False
    if 2 * sum(1 for row in rows if row[0].rstrip().endswith(":")) >= len(rows):
        return True
    if len(rows) < 4 or any(c.isdecimal() for row in rows for c in row[0]):
        return False
    values = [row[1].strip() for row in rows if row[1].strip()]
    figures = sum(1 for value in values if any(c.isdecimal() for c in value))
    return len(set(values)) == len(values) and min(figures, len(values) - figures) * 3 >= len(values)


def _is_header(row: Sequence[str], body: list[Sequence[str]]) -> bool:
    """Whether a first row contains column names: short texts, years or a series, unlike what is below them."""
    named = [(index, cell.strip()) for index, cell in enumerate(row) if cell.strip()]
    if any(len(name) > LONGEST_NAME for _, name in named):
        return False
    # Questions are names in a survey, but not above other questions.
    if any(_is_sentence(name) and _mostly("sentence", index, body) for index, name in named):
        return False
    if len(row) == 1 and (row[0].rstrip().endswith((".", "!", "?", ":")) or len(row[0].split()) > 4):
        return False
    numbers = [(index, cell) for index, cell in named if _kind(cell) == "number"]
    if numbers and not _is_series(row, numbers, body):
        return False
    for index, cell in named:
        kind = _kind(cell)
        if kind in ("date", "measure") and (len(row) == 2 or _mostly(kind, index, body)):
            return False
    own = Counter(cell for index, cell in named if not isinstance(row[index], _Repeated))
    twice = {cell for cell, times in own.items() if times > 1}
    return not any(
        cell in twice and any(index < len(other) and other[index].strip() == cell for other in body)
        for index, cell in named
    )


def _is_sentence(cell: str) -> bool:
    """Whether a cell is prose, such as a question or an answer; names may end with an abbreviation."""
    return cell.endswith(("?", "？")) or (cell.endswith((".", "!", "。")) and len(cell.split()) > _MOST_WORDS)


def _is_series(row: Sequence[str], numbers: list[tuple[int, str]], body: list[Sequence[str]]) -> bool:
    """Whether the numbers of a first row name its columns: years, or steps such as hours, months or sizes."""
    if not all(cell.isdecimal() for _, cell in numbers):
        return False
    values = [int(cell) for _, cell in numbers]
    steps = {second - first for first, second in pairwise(values)}
    years = all(1900 <= value <= 2100 for value in values)
    rising = all(step > 0 for step in steps) or all(step < 0 for step in steps)
    if years and rising:
        at = [index for index, _ in numbers]
        found = [row[i].strip() for row in body for i in at if i < len(row) and row[i].strip()]
        return 2 * sum(1 for cell in found if _is_year(cell)) <= len(found)
    others = len(numbers) < len(row)
    if not (others and len(values) > 2 and len(steps) == 1 and 0 not in steps):
        return False
    alike = [
        other
        for other in body
        if len({second - first for first, second in pairwise(_integers(other, numbers))}) == 1
    ]
    return 2 * len(alike) <= len(body)


def _integers(row: Sequence[str], numbers: list[tuple[int, str]]) -> list[int]:
    return [int(row[index]) for index, _ in numbers if index < len(row) and row[index].strip().isdecimal()]


def _is_year(cell: str) -> bool:
    return len(cell) == 4 and cell.isdecimal() and 1900 <= int(cell) <= 2100


def _continues(above: Sequence[str], row: Sequence[str], body: list[Sequence[str]]) -> bool:
    """Whether a row under a header row divides its columns further."""
    under = [
        index
        for index, cell in enumerate(row)
        if cell.strip() and (index >= len(above) or not above[index].strip() or _spans(above, index))
    ]
    if not under or _width(row) < 2:
        return False
    if any(_kind(cell.strip()) != "text" and not _is_year(cell.strip()) for cell in row if cell.strip()):
        return False
    # Merged cells that reach down into this row, or an empty place on its left, say that it belongs to the header.
    if isinstance(row[0], _Repeated) and row[0].strip():
        return True
    return not row[0].strip() or any(not _mostly("text", index, body) for index in under)


def _spans(row: Sequence[str], index: int) -> bool:
    """Whether a cell is merged with the one before or after it."""
    after = index + 1 < len(row) and isinstance(row[index + 1], _Repeated) and row[index + 1] == row[index]
    return isinstance(row[index], _Repeated) or after


def _mostly(kind: str, index: int, body: list[Sequence[str]]) -> bool:
    cells = [row[index].strip() for row in body if index < len(row) and row[index].strip()]
    alike = sum(1 for cell in cells if (_is_sentence(cell) if kind == "sentence" else _kind(cell) == kind))
    return 2 * alike > len(cells)


def _kind(cell: str) -> str:
    """Return what a cell looks like: a number, a date, a measure (a number with its unit) or a text."""
    if not any(character.isdecimal() for character in cell):
        return "text"
    if _is_number(cell):
        return "number"
    if len(cell) > LONGEST_NAME:
        return "text"
    if _DATE.fullmatch(cell):
        return "date"
    return "measure" if _MEASURE.fullmatch(cell) else "text"


def _is_number(cell: str) -> bool:
    try:
        float(_SPACE.sub("", cell.replace(",", "").replace("'", "").strip("$€£% ")))
    except ValueError:
        return False
    return True


def _names(header: list[Sequence[str]]) -> list[str]:
    """Return a name per column from one or several header rows; one that occurs twice gets a number."""
    if not header:
        return []
    width = max(map(len, header))
    rows = [[cell.strip() for cell in row] + [""] * (width - len(row)) for row in header]
    for row, below in pairwise(rows):
        # A name above the first of several columns holds for those after it that have names of their own.
        for column in range(1, width):
            if not row[column] and below[column] and below[column - 1]:
                row[column] = row[column - 1]
    names: list[str] = []
    known: Counter[str] = Counter()
    for column in range(width):
        name = " / ".join(dict.fromkeys(row[column] for row in rows if row[column])).rstrip(": ")
        known[name] += 1
        names.append(f"{name} ({known[name]})" if name and known[name] > 1 else name)
    return names


def _is_keyed(names: list[str], body: list[Sequence[str]]) -> bool:
    """Whether the rows of a table without column names are pairs of a name and its value."""
    if names or not body or any(len(row) != 2 for row in body):
        return False
    keys = [row[0].strip() for row in body]
    texts = all(len(key) <= LONGEST_NAME and _kind(key) in ("text", "measure") for key in keys)
    return texts and len(set(keys)) == len(keys) and any(any(c.isalpha() for c in key) for key in keys)


def _is_numbered(names: list[str], body: list[Sequence[str]]) -> bool:
    """Whether the first column holds the row numbers that data frames are saved with."""
    if not names or names[0] or not body:
        return False
    first = [row[0].strip() for row in body]
    if not all(cell.isdecimal() for cell in first) or all(map(_is_year, first)):
        return False
    return all(int(second) - int(one) == 1 for one, second in pairwise(first))
