"""Files of cases: JSON lines, a JSON list, CSV and TSV; SQuAD's format is read as well.

A case has the keys of ``rag.evaluation.cases.Case``; only the question is required. Other names are known too:
``answer``, ``expected_answer`` and ``reference`` are answers, as are ``answer_1``, ``answer_2`` …; ``source`` is a
source; ``refuse`` and ``unanswerable`` say that it must be refused, ``answerable`` says the opposite. How a table
holds a case is told in ``rag.evaluation.case_tables``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import IO

from prompts.files import atomic_write
from rag.errors import DatasetError, EvaluationError
from rag.evaluation.case_rows import Row, read_case
from rag.evaluation.case_tables import read_table, write_table
from rag.evaluation.cases import Case
from rag.evaluation.squad import read_articles

KINDS = "JSON lines (.jsonl), a JSON list (.json), CSV (.csv) and TSV (.tsv)"
_SPACE = re.compile(r"[ \t\r\n]*")
# Inside JSON they are plain characters, and some readers of JSON lines would end a line there.
_LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
_HEAD = 4096


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is no case.

    Attributes:
        number: Its first line, from 1; in SQuAD's format the place of the question, from 1.
        reason: A clause.
    """

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Preview:
    """What a file holds.

    Attributes:
        cases: Those that are good, in order, each with an id of its own.
        problems: What is left out, in order.
    """

    cases: tuple[Case, ...]
    problems: tuple[BadRow, ...]


def read_cases(path: Path) -> Preview:
    """Read a file of cases; its ending says what it is.

    Of cases that are there twice, or share an id, the first is taken and the others are named as bad. A column
    that no case has is named as bad on the first line, and left out.

    Raises:
        DatasetError: It cannot be read, is not UTF-8, is none of these formats, or broken as a whole.
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
        raise DatasetError(f"{path} cannot be read: its ending tells no format.", fix=f"Known are {KINDS}.")
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
    """Write JSON lines, CSV or TSV, as the ending says; whole or not at all.

    Returns:
        How many cases were written.

    Raises:
        DatasetError: It cannot be written, the ending is another, or a text is longer than CSV readers take.
    """
    suffix = path.suffix.lower()
    if suffix not in (".jsonl", ".ndjson", ".csv", ".tsv"):
        raise DatasetError(
            f"{path} cannot be written: its ending tells no format.", fix="End it in .jsonl or .csv."
        )
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
    for row in rows:
        if row.reason:
            problems.append(BadRow(row.number, row.reason))
            continue
        try:
            case = read_case(row.told)
        except ValueError as error:
            problems.append(BadRow(row.number, str(error)))
            continue
        content = case.content_sha256
        where, other = by_id.get(case.id, (0, ""))
        if where:
            told = "the same case is" if other == content else f"another case with the id {case.id} is"
            problems.append(BadRow(row.number, f"{told} in line {where}"))
        elif content in by_content:
            problems.append(BadRow(row.number, f"the same case is in line {by_content[content]} under another id"))
        else:
            by_id[case.id], by_content[content] = (row.number, content), row.number
            cases.append(case)
    return Preview(tuple(cases), tuple(problems))


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
        yield from _squad(path)
        return
    try:
        yield from _items(text)
    except (ValueError, RecursionError) as error:
        where = f", line {error.lineno}," if isinstance(error, json.JSONDecodeError) else ""
        told = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise DatasetError(f"{path}{where} is no JSON list of cases: {told}.") from error


def _items(text: str) -> Iterator[Row]:
    """The items of a JSON list, each with its line."""
    decoder = json.JSONDecoder()
    at = _after(text, 0)
    if text[at : at + 1] != "[":
        raise json.JSONDecodeError("a list begins with [", text, at)
    line, counted, at = 1, 0, _after(text, at + 1)
    more = text[at : at + 1] != "]"
    while more:
        told, end = decoder.raw_decode(text, at)
        line, counted = line + text.count("\n", counted, at), at
        yield Row(line, told)
        at = _after(text, end)
        more = text[at : at + 1] == ","
        if more:
            at = _after(text, at + 1)
    if text[at : at + 1] != "]":
        raise json.JSONDecodeError("expected , or ]", text, at)
    rest = _after(text, at + 1)
    if rest < len(text):
        raise json.JSONDecodeError("something follows the list", text, rest)


def _after(text: str, at: int) -> int:
    """The first place from ``at`` that is no white space."""
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _squad(path: Path) -> Iterator[Row]:
    try:
        articles = read_articles(path)
    except EvaluationError as error:
        raise DatasetError(
            f"{path} is neither a JSON list of cases nor in SQuAD's format: {error.message}", fix=error.fix
        ) from error
    asked = (
        (article.title.replace("_", " "), question)
        for article in articles
        for paragraph in article.paragraphs
        for question in paragraph.questions
    )
    for number, (title, question) in enumerate(asked, 1):
        answers = list(dict.fromkeys(text for text, _ in question.answers if text.strip()))
        told = {
            "id": question.id,
            "question": question.text,
            "answers": answers,
            "must_refuse": not answers,
            "tags": [title] if title.strip() else [],
        }
        yield Row(number, told)


def _write_lines(file: IO[str], cases: Iterable[Case]) -> int:
    written = 0
    for case in cases:
        file.write(json.dumps(case.as_json(), ensure_ascii=False).translate(_LINE_ENDS) + "\n")
        written += 1
    return written


def _not_utf8(path: Path) -> DatasetError:
    return DatasetError(f"{path} is not UTF-8 text.", fix="Save it as UTF-8; spreadsheets call it CSV UTF-8.")
