"""Files of cases: JSON lines, JSON lists, CSV and TSV; SQuAD's format can be read, too.

A case has the keys of ``rag.evaluation.cases.Case``; only the question is required. Other names are accepted:
``input``, ``query`` … for the question, ``answer``, ``expected_output``, ``ground_truth``, ``answer_1`` … for
answers, ``source`` for sources, ``refuse`` and ``unanswerable`` for ``must_refuse``, and ``answerable`` for its
opposite (``rag.evaluation.case_rows``). Names may be spelt and nested as other programs do
(``rag.evaluation.foreign_rows``). Anything else is left out, with a note. For tables, see
``rag.evaluation.case_tables``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

from prompts.files import atomic_write
from rag.errors import DatasetError, EvaluationError
from rag.evaluation.case_rows import Row, is_known, read_case, strange_names
from rag.evaluation.case_tables import read_table, write_table
from rag.evaluation.cases import Case
from rag.evaluation.foreign_rows import flattened, rows_in
from rag.evaluation.squad import read_articles

KINDS = "JSON lines (.jsonl), a JSON list (.json), CSV (.csv) or TSV (.tsv)"
_SPACE = re.compile(r"[ \t\r\n]*")
# Valid inside JSON strings, but some readers of JSON lines end a line there.
_LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
_HEAD = 4096


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is not a valid case.

    Attributes:
        number: Its first line, from 1; in a JSON object the number of the question, from 1.
        reason: The problem as a clause.
    """

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Preview:
    """The contents of a file.

    Attributes:
        cases: The valid cases in order, with distinct ids.
        problems: The rows that are left out, in order.
        strange: The names of columns or fields that a case does not have, which are left out, in order.
    """

    cases: tuple[Case, ...]
    problems: tuple[BadRow, ...]
    strange: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """What is left out of every row, as a sentence; empty if nothing is."""
        return (
            f"Left out, because cases have no such field: {strange_names(self.strange)}." if self.strange else ""
        )


def read_cases(path: Path) -> Preview:
    """Read a file of cases; its suffix determines the format.

    Duplicates, and cases with an id that is already taken, are reported as problems.

    Raises:
        DatasetError: The file cannot be read, is not UTF-8, or is malformed as a whole, or its format is unknown.
    """
    readers = {
        ".jsonl": _jsonl,
        ".ndjson": _jsonl,
        ".json": _json,
        ".csv": read_table,
        ".tsv": read_table,
        ".tab": read_table,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        if not path.exists():
            raise DatasetError(f"{path} cannot be read: No such file or directory.")
        raise DatasetError(f"{path} cannot be read: its format is unknown.", fix=f"Use {KINDS}.")
    try:
        with path.open("rb") as head:
            if b"\x00" in head.read(_HEAD):
                raise _not_utf8(path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _gathered(reader(path, file))
    except UnicodeDecodeError as error:
        raise _not_utf8(path) from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}.") from error


def write_cases(path: Path, cases: Iterable[Case]) -> int:
    """Write JSON lines, CSV or TSV, depending on the suffix, atomically.

    Returns:
        The number of cases.

    Raises:
        DatasetError: The file cannot be written, the suffix is unknown, or a text is too long for CSV readers.
    """
    suffix = path.suffix.lower()
    if suffix not in (".jsonl", ".ndjson", ".csv", ".tsv"):
        raise DatasetError(f"{path} cannot be written: its format is unknown.", fix="Use .jsonl, .csv or .tsv.")
    try:
        with atomic_write(path) as binary:
            file = TextIOWrapper(binary, encoding="utf-8", newline="")
            if suffix in (".csv", ".tsv"):
                written = write_table(file, cases, "," if suffix == ".csv" else "\t")
            else:
                written = _write_lines(file, cases)
            file.detach()
    except OSError as error:
        raise DatasetError(f"{path} cannot be written: {error.strerror or error}.") from error
    return written


def _gathered(rows: Iterator[Row]) -> Preview:
    cases: list[Case] = []
    problems: list[BadRow] = []
    by_id: dict[str, tuple[int, str]] = {}
    by_content: dict[str, int] = {}
    strange: dict[str, None] = {}
    for row in rows:
        if row.reason:
            problems.append(BadRow(row.number, row.reason))
            continue
        try:
            case = read_case(_known(row.value, strange))
        except ValueError as error:
            problems.append(BadRow(row.number, str(error)))
            continue
        content = case.content_sha256
        where, other = by_id.get(case.id, (0, ""))
        if where:
            duplicate = "the same case" if other == content else f"another case with the id {case.id}"
            problems.append(BadRow(row.number, f"{duplicate} is in line {where}"))
        elif content in by_content:
            problems.append(BadRow(row.number, f"the same case is in line {by_content[content]} under another id"))
        else:
            by_id[case.id], by_content[content] = (row.number, content), row.number
            cases.append(case)
    return Preview(tuple(cases), tuple(problems), tuple(strange))


def _known(row: object, strange: dict[str, None]) -> object:
    """Return the part of a row that a case has, and add the names of the rest."""
    if not isinstance(row, dict):
        return row
    flat = flattened(row)
    known = {name: value for name, value in flat.items() if is_known(name, flat)}
    strange |= dict.fromkeys(name for name in flat if name not in known)
    return known


def _jsonl(_path: Path, file: IO[str]) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            yield Row(number, json.loads(line))
        except (ValueError, RecursionError):
            yield Row(number, reason="it is not JSON")


def _json(path: Path, file: IO[str]) -> Iterator[Row]:
    text = file.read()
    if text.startswith("{", _after(text, 0)):
        rows = _rows_around(text)
        yield from _squad(path) if rows is None else (Row(number, row) for number, row in enumerate(rows, 1))
        return
    try:
        yield from _items(text)
    except (ValueError, RecursionError) as error:
        where = f", line {error.lineno}," if isinstance(error, json.JSONDecodeError) else ""
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise DatasetError(f"{path}{where} must be a JSON list of cases: {reason}.") from error


def _rows_around(text: str) -> list[Any] | None:
    """Return the rows in a JSON object; None if it has none, or is malformed."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return rows_in(data) if isinstance(data, dict) else None


def _items(text: str) -> Iterator[Row]:
    """Yield the items of a JSON list with their lines."""
    decoder = json.JSONDecoder()
    at = _after(text, 0)
    if text[at : at + 1] != "[":
        raise json.JSONDecodeError("a list must begin with [", text, at)
    line, counted, at = 1, 0, _after(text, at + 1)
    more = text[at : at + 1] != "]"
    while more:
        item, end = decoder.raw_decode(text, at)
        line, counted = line + text.count("\n", counted, at), at
        yield Row(line, item)
        at = _after(text, end)
        more = text[at : at + 1] == ","
        if more:
            at = _after(text, at + 1)
    if text[at : at + 1] != "]":
        raise json.JSONDecodeError("expected , or ]", text, at)
    rest = _after(text, at + 1)
    if rest < len(text):
        raise json.JSONDecodeError("unexpected text after the list", text, rest)


def _after(text: str, at: int) -> int:
    """Return the first offset from ``at`` without white space."""
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _squad(path: Path) -> Iterator[Row]:
    try:
        articles = read_articles(path)
    except EvaluationError as error:
        raise DatasetError(
            f"{path} must be a JSON list of cases, or in SQuAD's format: {error.message}", fix=error.fix
        ) from error
    asked = (
        (article.title.replace("_", " "), question)
        for article in articles
        for paragraph in article.paragraphs
        for question in paragraph.questions
    )
    for number, (title, question) in enumerate(asked, 1):
        answers = list(dict.fromkeys(text for text, _ in question.answers if text.strip()))
        row = {
            "id": question.id,
            "question": question.text,
            "answers": answers,
            "must_refuse": not answers,
            "tags": [title] if title.strip() else [],
        }
        yield Row(number, row)


def _write_lines(file: IO[str], cases: Iterable[Case]) -> int:
    written = 0
    for case in cases:
        file.write(json.dumps(case.as_json(), ensure_ascii=False).translate(_LINE_ENDS) + "\n")
        written += 1
    return written


def _not_utf8(path: Path) -> DatasetError:
    return DatasetError(f"{path} must be UTF-8 text.", fix="Save it as UTF-8; spreadsheets call it CSV UTF-8.")
