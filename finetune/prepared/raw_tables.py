"""Raw files of training data as rows: CSV, TSV, JSON, JSON lines and Parquet.

A row that cannot be used is reported with its place and the reason, and the others are read.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rag.errors import TuningError, first_line
from rag.evaluation.delimited_rows import delimited_rows

KINDS = "CSV (.csv), TSV (.tsv), JSON (.json), JSON lines (.jsonl) or Parquet (.parquet)"
# A longer cell is a mistake of the export, such as a file in place of its name.
LONGEST_CELL = 1_000_000
# An optional library.
_PARQUET = "pyarrow.parquet"
_DELIMITERS = ",;\t|"
# Names under which a JSON object has its rows.
_LISTS = ("data", "rows", "examples", "records", "items", "train", "conversations", "cases", "samples")
# Python reads integers of up to 4,300 digits.
_LONG_NUMBER = "an integer with too many digits"
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as the file has it.

    Attributes:
        number: Its first line, from 1; in JSON and Parquet its position, from 1.
        values: The cells by column.
    """

    number: int
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used, and why, as a clause."""

    number: int
    reason: str


@dataclass(frozen=True)
class RawTable:
    """The contents of a file.

    Attributes:
        columns: The names of all columns, in order of appearance.
        unit: What the numbers of the rows count: ``line`` or ``row``.
    """

    path: Path
    rows: tuple[RawRow, ...]
    problems: tuple[BadRow, ...]
    columns: tuple[str, ...] = ()
    unit: str = "line"


@dataclass
class _Gathered:
    rows: list[RawRow] = field(default_factory=list)
    problems: list[BadRow] = field(default_factory=list)
    columns: dict[str, None] = field(default_factory=dict)


def read_table_file(path: Path, encoding: str = "") -> RawTable:
    """Read a file; its suffix determines the format.

    Args:
        path: The file.
        encoding: The encoding of its text; empty for UTF-8, or UTF-16 with a byte order mark.

    Raises:
        TuningError: The file cannot be read, is malformed as a whole, or has no rows.
    """
    suffix = path.suffix.lower()
    if suffix in (".parquet", ".pq"):
        table = _gathered(path, _parquet(path), "row")
    elif suffix in (".csv", ".tsv", ".tab"):
        table = _gathered(path, _delimited(path, _text_of(path, encoding), suffix), "line")
    elif suffix in (".jsonl", ".ndjson"):
        table = _gathered(path, _json_lines(_text_of(path, encoding)), "line")
    elif suffix == ".json":
        table = _gathered(path, _json(path, _text_of(path, encoding)), "row")
    elif path.exists():
        raise TuningError(f"{path} cannot be read: its format is unknown.", fix=f"Use {KINDS}.")
    else:
        raise TuningError(f"{path} cannot be read: No such file or directory.")
    if not table.rows:
        first = next(iter(table.problems), None)
        reason = f" The first problem is in {table.unit} {first.number}: {first.reason}." if first else ""
        raise TuningError(f"{path} has no rows that can be used.{reason}")
    return table


def _gathered(path: Path, found: Iterable[RawRow | BadRow], unit: str) -> RawTable:
    all_rows = _Gathered()
    for row in found:
        checked = _checked(row)
        if isinstance(checked, BadRow):
            all_rows.problems.append(checked)
        else:
            all_rows.rows.append(checked)
            all_rows.columns |= dict.fromkeys(checked.values)
    return RawTable(path, tuple(all_rows.rows), tuple(all_rows.problems), tuple(all_rows.columns), unit)


def _checked(row: RawRow | BadRow) -> RawRow | BadRow:
    """Return a row, or what makes a cell of it unusable."""
    if isinstance(row, BadRow):
        return row
    for name, value in row.values.items():
        if not isinstance(value, str):
            continue
        if len(value) > LONGEST_CELL:
            return BadRow(
                row.number, f"the cell {name} has {len(value):,} characters, and {LONGEST_CELL:,} are allowed"
            )
        wrong = next((character for character in value if "\ud800" <= character <= "\udfff"), "")
        if wrong:
            what = f"byte 0x{ord(wrong) - 0xDC00:02x}" if "\udc80" <= wrong <= "\udcff" else "half of a character"
            return BadRow(row.number, f"the cell {name} contains {what}, which is not UTF-8")
    return row


def _text_of(path: Path, encoding: str) -> str:
    """Return the text of a file; bytes that are not UTF-8 become surrogates, which ``_checked`` reports."""
    if path.exists() and not path.is_file() and not path.is_dir():
        # Reading a pipe that nobody writes to never ends.
        raise TuningError(f"{path} cannot be read: it is not a regular file.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TuningError(f"{path} cannot be read: {error.strerror or error}.") from error
    name = encoding or _BYTE_ORDER_MARKS.get(content[:2], "utf-8-sig")
    if name == "utf-8-sig" and b"\x00" in content[:4096]:
        raise TuningError(f"{path} must be text, but has zero bytes.", fix=f"Use {KINDS}.")
    try:
        return content.decode(name, "surrogateescape" if name == "utf-8-sig" else "strict")
    except LookupError as error:
        raise TuningError(f"The encoding {name} is unknown.", fix="Use a name such as utf-8 or cp1252.") from error
    # Some codecs have errors without a place.
    except UnicodeError as error:
        where = f"byte {error.start + 1}" if isinstance(error, UnicodeDecodeError) else "it"
        raise TuningError(f"{path} is not {name}: {where} cannot be decoded.", fix="Name its encoding.") from error


def _delimited(path: Path, text: str, suffix: str) -> Iterator[RawRow | BadRow]:
    lines = io.StringIO(text, newline="")
    above = 0
    start = 0
    while (first := lines.readline()) and not first.strip():
        above += 1
        start = lines.tell()
    lines.seek(start)
    delimiter = "\t" if suffix != ".csv" else max(_DELIMITERS, key=first.count)
    rows = delimited_rows(path, lines, delimiter, above, TuningError)
    _, header = next(rows, (0, []))
    names = _column_names(path, header)
    for number, cells in rows:
        if any(cell.strip() for cell in cells):
            yield _row_of(number, names, cells)


def _column_names(path: Path, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise TuningError(f"{path} has several columns {', '.join(twice)}.", fix="Rename or remove one of them.")
    # pandas writes the index of its rows without a name.
    return [name or f"column {number}" for number, name in enumerate(names, 1)]


def _row_of(number: int, names: list[str], cells: list[str]) -> RawRow | BadRow:
    if any(cell.strip() for cell in cells[len(names) :]):
        return BadRow(number, f"it has {len(cells)} cells, but the first line names {len(names)}")
    return RawRow(number, dict(zip(names, cells, strict=False)))


def _json_lines(text: str) -> Iterator[RawRow | BadRow]:
    # Not `splitlines`: it also splits at separators that are valid inside JSON strings.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            yield BadRow(number, f"it is not valid JSON: {error.msg} at column {error.colno}")
        except RecursionError:
            yield BadRow(number, "it is nested too deeply")
        except ValueError:
            yield BadRow(number, f"it has {_LONG_NUMBER}")
        else:
            yield _object(number, value)


def _object(number: int, value: Any) -> RawRow | BadRow:
    if not isinstance(value, dict):
        return BadRow(number, "it is not a JSON object")
    return RawRow(number, {str(name): item for name, item in value.items()})


def _json(path: Path, text: str) -> Iterator[RawRow | BadRow]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise TuningError(
            f"{path} must be valid JSON: {error.msg} in line {error.lineno}, column {error.colno}.",
            fix="Use the suffix .jsonl for a file with one object a line.",
        ) from error
    except RecursionError as error:
        raise TuningError(f"{path} is nested too deeply.") from error
    except ValueError as error:
        raise TuningError(f"{path} has {_LONG_NUMBER}.", fix="Put it in quotes, or remove it.") from error
    if isinstance(value, dict):
        found = next((value[name] for name in _LISTS if _is_list_of_rows(value.get(name))), None)
        value = found if found is not None else _by_rows(value)
    if not isinstance(value, list):
        raise TuningError(f"{path} must be a JSON list of objects.", fix=f"Or use {KINDS}.")
    return (_object(number, item) for number, item in enumerate(value, 1))


def _is_list_of_rows(value: Any) -> bool:
    is_list = isinstance(value, list) and bool(value) and isinstance(value[0], dict)
    # A list of messages is one conversation.
    return is_list and not {"role", "from"} & value[0].keys()


def _by_rows(table: dict[str, Any]) -> list[Any]:
    """Return the rows of a table that is stored by columns, as pandas does, or the object as the only row."""
    columns = {name: [*part.values()] if isinstance(part, dict) else part for name, part in table.items()}
    if columns and all(isinstance(part, list) for part in columns.values()):
        lengths = {len(part) for part in columns.values()}
        scalars = all(isinstance(cell, str | int | float | None) for part in columns.values() for cell in part[:1])
        if len(lengths) == 1 and scalars:
            return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    return [table]


def _parquet(path: Path) -> Iterator[RawRow | BadRow]:
    if not path.exists():
        raise TuningError(f"{path} cannot be read: No such file or directory.")
    if importlib.util.find_spec("pyarrow") is None:
        raise TuningError(
            f"{path} cannot be read: Parquet needs the library pyarrow, which is not installed.",
            fix="Run `pip install pyarrow`, or save the table as CSV or JSON lines.",
        )
    try:
        rows = importlib.import_module(_PARQUET).read_table(path).to_pylist()
    # The errors of the library are ValueError, OSError or RuntimeError.
    except (OSError, ValueError, RuntimeError) as error:
        raise TuningError(f"{path} cannot be read: {first_line(error)}.") from error
    return (_object(number, row) for number, row in enumerate(rows, 1))
