r"""Cases in CSV and TSV.

The columns are the parts of a case, of which only the question is required:

    id, question, answers, sources, must_refuse, tags, notes, history

``answers``, ``sources`` and ``tags`` hold several values separated by ``|``; a bar that belongs to a value is
written ``\|``, and a backslash ``\\``. ``answer_1``, ``answer_2`` … hold one answer each, as it is. ``history`` is
a JSON list of objects with question and answer.

In a table that is written, a cell that begins with ``=``, ``+``, ``-`` or ``@`` is left as it is: a mark before it
would come back as part of the value. Whoever opens the cases of a stranger in a spreadsheet imports them as text.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any

from rag.errors import DatasetError
from rag.evaluation.case_rows import ALIASES, COLUMNS, SEVERAL, Row, is_known
from rag.evaluation.cases import Case
from rag.types import Turn

_PIECE = re.compile(r"\\[\\|]|\||[^\\|]+|\\")
_YES_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_BLANK = " \t\r\n"

# Python's own reader takes no more, and other programs take less.
LONGEST_CELL = 131_072


def read_table(path: Path, file: IO[str]) -> Iterator[Row]:
    """The rows of a table.

    Args:
        path: Its name; ``.csv`` is separated by what its first line has most of: comma, semicolon or tab.
        file: Opened with ``newline=""``.

    Raises:
        DatasetError: It has no column question, one twice, or is broken as a whole.
    """
    first = file.readline()
    # Spreadsheets of some countries write semicolons and call it CSV.
    comma = "\t" if path.suffix.lower() != ".csv" else max(",;\t", key=first.count)
    lines = csv.reader(chain([first], file), delimiter=comma, strict=True)
    begun = 1
    try:
        names = [re.sub(r"[\s-]+", "_", cell.strip().lower()) for cell in next(lines, [])]
        yield from _header_problems(path, names)
        begun = lines.line_num + 1
        for cells in lines:
            if any(cell.strip(_BLANK) for cell in cells):
                yield _row(begun, names, cells)
            begun = lines.line_num + 1
    except csv.Error as error:
        raise DatasetError(
            f"{path}, the row from line {begun} is broken: {error}.",
            fix='A cell with a line end, a comma or a " stands in "…", and a " in it is written "".',
        ) from error


def _header_problems(path: Path, names: list[str]) -> Iterator[Row]:
    if "question" not in names:
        raise DatasetError(
            f"{path} has no column question in its first line.", fix=f"Name them: {', '.join(COLUMNS)}."
        )
    known = [name for name in names if name]
    twice = sorted({name for name in known if known.count(name) > 1})
    if twice:
        raise DatasetError(f"{path} has two columns {', '.join(twice)}.", fix="Rename or remove one of the two.")
    strange = [name for name in known if not is_known(name)]
    if strange:
        yield Row(1, reason=f"a case has nothing called {', '.join(strange)}: these columns are left out")


def _row(number: int, names: list[str], cells: list[str]) -> Row:
    if any(cell.strip(_BLANK) for cell in cells[len(names) :]):
        return Row(number, reason=f"it has {len(cells)} cells, and the first line names {len(names)}")
    told: dict[str, Any] = {}
    for name, cell in zip(names, cells, strict=False):
        if not is_known(name) or not cell.strip(_BLANK):
            continue
        try:
            told[name] = _value(name, cell)
        except (ValueError, RecursionError) as error:
            return Row(number, reason=f"{name}: {error}")
    return Row(number, told)


def _value(name: str, cell: str) -> Any:
    field = ALIASES.get(name, name)
    if field in SEVERAL:
        return _split(cell)
    if field == "must_refuse":
        told = _YES_NO.get(cell.strip().lower())
        if told is None:
            raise ValueError("it is neither true nor false")
        return told
    if field == "history":
        try:
            return json.loads(cell)
        except (ValueError, RecursionError) as error:
            raise ValueError("it is no JSON list of turns") from error
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
    """Write cases under the names of their columns.

    Returns:
        How many.

    Raises:
        DatasetError: A text is longer than readers of CSV take.
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
                f"The case {case.id} has a text of more than {LONGEST_CELL:,} characters: "
                "no reader of tables takes it.",
                fix="Write JSON lines: end the file in .jsonl.",
            )
        table.writerow(cells)
        written += 1
    return written


def _history(turns: Iterable[Turn]) -> str:
    told = [{"question": turn.question, "answer": turn.answer} for turn in turns]
    return json.dumps(told, ensure_ascii=False) if told else ""
