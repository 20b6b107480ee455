r"""Cases in CSV and TSV.

The columns are the fields of a case, of which only the question is required:

    id, question, answers, sources, must_refuse, tags, notes, history

Other names of them are in ``case_rows.ALIASES``, and other columns are passed on as text. Other programs write
JSON into cells: objects around the question or the answer, and lists of answers.

``answers``, ``sources`` and ``tags`` contain values separated by ``|``; inside a value, a bar is escaped as ``\|``
and a backslash as ``\\``. ``answer_1``, ``answer_2`` … contain a single unescaped answer. ``history`` is a JSON
list of objects with question and answer.

Cells that begin with ``=``, ``+``, ``-`` or ``@`` are written unchanged, since an escape would become part of the
value. Import cases from untrusted sources into a spreadsheet as text.
"""

from __future__ import annotations

import ast
import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any

from rag.errors import DatasetError
from rag.evaluation.case_rows import ALIASES, COLUMNS, SEVERAL, Row
from rag.evaluation.cases import Case
from rag.evaluation.delimited_rows import delimited_rows
from rag.evaluation.foreign_rows import CHATS, NESTING, field_name
from rag.types import Turn

_PIECE = re.compile(r"\\[\\|]|\||[^\\|]+|\\")
_YES_NO = dict.fromkeys(("true", "t", "yes", "y", "1", "1.0"), True) | dict.fromkeys(
    ("false", "f", "no", "n", "0", "0.0"), False
)
_SEPARATOR = re.compile(r'"?sep=(.)"?[\r\n]*', re.IGNORECASE)
_BLANK = " \t\r\n"

# The limit of Python's csv reader unless it is raised; other programs accept less.
LONGEST_CELL = 131_072


def read_table(path: Path, file: IO[str]) -> Iterator[Row]:
    """Yield the rows of a table.

    Args:
        path: Its path; the delimiter of ``.csv`` is the most frequent in the first line, comma, semicolon, tab or
            bar, with which it names a question; or the one that spreadsheets name before it, as in ``sep=;``.
        file: Opened with ``newline=""``.

    Raises:
        DatasetError: The column question is missing, a column occurs twice, or the table is malformed.
    """
    first, above = _first_line(file)
    named = _SEPARATOR.fullmatch(first)
    if named:
        first, further = _first_line(file)
        above += 1 + further
    comma = "\t" if path.suffix.lower() != ".csv" else _delimiter(first)
    rows = delimited_rows(path, chain([first], file), named[1] if named else comma, above, DatasetError)
    _, header = next(rows, (0, []))
    names = [field_name(cell) for cell in header]
    _check_header(path, names)
    for number, cells in rows:
        if any(cell.strip(_BLANK) for cell in cells):
            yield _row(number, names, cells)


def _first_line(file: IO[str]) -> tuple[str, int]:
    """Return the next line that is not blank, and the number of blank ones before it."""
    above = 0
    while (line := file.readline()) and not line.strip(_BLANK):
        above += 1
    return line, above


def _delimiter(first: str) -> str:
    """Return the delimiter of a table; in some locales, spreadsheets write semicolons into CSV files."""
    by_count = sorted(",;\t|", key=first.count, reverse=True)
    named = (comma for comma in by_count if any(map(_asks, next(csv.reader([first], delimiter=comma), []))))
    return next(named, by_count[0])


def _asks(cell: str) -> bool:
    """Whether a column has the question, or an object with it."""
    name = field_name(cell)
    return ALIASES.get(name, name) == "question" or name in CHATS


def _check_header(path: Path, names: list[str]) -> None:
    if not any(map(_asks, names)):
        raise DatasetError(
            f"The first line of {path} must name a column question.", fix=f"The columns are {', '.join(COLUMNS)}."
        )
    known = [name for name in names if name]
    twice = sorted({name for name in known if known.count(name) > 1})
    if twice:
        raise DatasetError(f"{path} has several columns {', '.join(twice)}.", fix="Rename or remove one of them.")


def _row(number: int, names: list[str], cells: list[str]) -> Row:
    if any(cell.strip(_BLANK) for cell in cells[len(names) :]):
        return Row(number, reason=f"it has {len(cells)} cells, but the first line names {len(names)}")
    values: dict[str, Any] = {}
    for name, cell in zip(names, cells, strict=False):
        if not name or not cell.strip(_BLANK):
            continue
        try:
            found = None if tuple(names) == COLUMNS else _parsed(name, cell)
            values[name] = _value(name, cell) if found is None else found
        except (ValueError, RecursionError) as error:
            return Row(number, reason=f"{name}: {error}")
    return Row(number, values)


def _parsed(name: str, cell: str) -> Any:
    """Return an object, or a list of answers, that another program has written into a cell; None without one.

    Files that ragsmith has written have none: there, such a text is an answer.
    """
    begun = cell.lstrip()[:1]
    if begun == "{" or (begun == "[" and name in CHATS):
        found = _read(json.loads, cell) if name in NESTING or name in CHATS else None
    elif begun == "[" and ALIASES.get(name, name) == "answers":
        # pandas writes Python's form.
        found = _read(json.loads, cell) or _read(ast.literal_eval, cell)
    else:
        return None
    return found if isinstance(found, dict | list) and found else None


def _read(parse: Callable[[str], Any], cell: str) -> Any:
    try:
        return parse(cell)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _value(name: str, cell: str) -> Any:
    field = ALIASES.get(name, name)
    if field in SEVERAL:
        return _split(cell)
    if field == "must_refuse":
        try:
            return _YES_NO[cell.strip().lower()]
        except KeyError:
            raise ValueError("it must be true or false") from None
    if field == "history":
        try:
            return json.loads(cell)
        except (ValueError, RecursionError) as error:
            raise ValueError("it must be a JSON list of turns") from error
    return cell


def _split(cell: str) -> list[str]:
    values = [""]
    for piece in _PIECE.findall(cell):
        if piece == "|":
            values.append("")
        else:
            values[-1] += piece[1:] if piece in (r"\|", r"\\") else piece
    return [value for value in values if value.strip(_BLANK)]


def _joined(values: Iterable[str]) -> str:
    return "|".join(re.sub(r"[\\|]", r"\\\g<0>", value) for value in values)


def write_table(file: IO[str], cases: Iterable[Case], comma: str) -> int:
    """Write a header and cases.

    Returns:
        The number of cases.

    Raises:
        DatasetError: A text is too long for CSV readers.
    """
    table = csv.writer(file, delimiter=comma)
    table.writerow(COLUMNS)
    written = 0
    for case in cases:
        cells = (
            case.id,
            case.question,
            _joined(case.answers),
            _joined(case.sources),
            "true" if case.must_refuse else "false",
            _joined(case.tags),
            case.notes,
            _history(case.history),
        )
        if max(map(len, cells)) > LONGEST_CELL:
            raise DatasetError(
                f"The texts of the case {case.id} must have at most {LONGEST_CELL:,} characters in a table.",
                fix="Write JSON lines, with the suffix .jsonl.",
            )
        table.writerow(cells)
        written += 1
    return written


def _history(turns: Iterable[Turn]) -> str:
    rows = [{"question": turn.question, "answer": turn.answer} for turn in turns]
    return json.dumps(rows, ensure_ascii=False) if rows else ""
