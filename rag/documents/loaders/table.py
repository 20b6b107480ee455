"""CSV and TSV: each row is rendered with the names of its columns, so that it can be read on its own."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rag.documents.loaders._blocks import Builder, finished
from rag.documents.loaders._text import OnProblem, decode, refused
from rag.types import Document

_SAMPLE = 16_384
_SAMPLE_ROWS = 50
_DELIMITERS = ",;\t|"
_SHORT_ROW = 300
"""Characters up to which a row is written on one line."""
_LONGEST_NAME = 100
"""Characters beyond which a cell of the first row is content and not the name of a column."""


def load(path: Path, data: bytes, on_problem: OnProblem) -> Iterator[Document]:
    """One document; a row becomes ``column: value; …``, a long one a line for each column."""
    text = decode(path, data, on_problem)
    if text[:4].lower() == "sep=":  # Excel's note to itself.
        text = text.partition("\n")[2]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(text)
    # The module's limit of 128 KiB is for the whole process; a completion or an article may well be longer.
    csv.field_size_limit(sys.maxsize)
    builder = Builder()
    names: list[str] | None = None
    count = 0
    try:
        for row in csv.reader(_lines(text), delimiter=delimiter):
            if not any(cell.strip() for cell in row):
                continue
            if names is None:
                names = [cell.strip() for cell in row] if _is_header(row) else []
                if names:
                    continue
            count += 1
            builder.add(_render(names, row), "row", gap="\n\n")
    except csv.Error as error:
        raise refused(path, f"is not a table that can be read ({error})", "Save it anew as CSV.") from error
    if names and not count:  # Only one row: then it is what there is to read.
        builder.add("; ".join(name for name in names if name), "row")
    columns = {"columns": ", ".join(name for name in names or [] if name)[:2_000]}
    yield Document(
        builder.text,
        finished(path, builder.text, builder.blocks),
        metadata={"rows": count, **(columns if columns["columns"] else {})},
    )


def _lines(text: str) -> Iterator[str]:
    r"""Lines with their ends, found by ``\n`` alone: ``splitlines`` also cuts at U+2028 inside a cell."""
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end


def _delimiter(text: str) -> str:
    """The sign that cuts the first rows into the most even columns; a comma when none does.

    ``csv.Sniffer`` is not used: its patterns backtrack without bound on long lines.
    """
    sample = text[:_SAMPLE]
    if len(text) > _SAMPLE and "\n" in sample:
        sample = sample[: sample.rindex("\n")]
    best, best_score = ",", 0.0
    for delimiter in _DELIMITERS:
        rows = [row for row in csv.reader(_lines(sample), delimiter=delimiter) if row][:_SAMPLE_ROWS]
        widths = Counter(len(row) for row in rows if len(row) > 1)
        if widths:
            width, times = widths.most_common(1)[0]
            score = times / len(rows) + min(width, 50) / 1_000  # Evenness first, then the number of columns.
            if score > best_score:
                best, best_score = delimiter, score
    return best


def _is_header(row: list[str]) -> bool:
    """Whether a first row names columns: short texts, all different, no numbers."""
    named = [cell.strip() for cell in row if cell.strip()]
    if len(set(named)) < len(named) or any(len(name) > _LONGEST_NAME for name in named):
        return False
    return not any(_is_number(name) for name in named)


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "").strip("$€£% "))
    except ValueError:
        return False
    return True


def _render(names: list[str], row: list[str]) -> str:
    """A row with its columns' names; empty cells are left out."""
    parts = []
    for index, cell in enumerate(row):
        name = names[index] if index < len(names) else ""
        value = cell.strip()
        if index == 0 and names and not name and value.isdecimal():
            continue  # The number of the row, as data frames are saved with.
        if value:
            parts.append(f"{name}: {value}" if name else value)
    short = sum(map(len, parts)) <= _SHORT_ROW and not any("\n" in part for part in parts)
    return ("; " if short else "\n").join(parts)
