"""CSV and TSV: rows are rendered with their column names, so that each can be understood on its own."""

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
"""Maximum characters of a row that is rendered on one line."""
_LONGEST_NAME = 100
"""Maximum characters of a column name; a longer cell of the first row is content."""


def load(path: Path, data: bytes, on_problem: OnProblem) -> Iterator[Document]:
    """Yield one document; a row becomes ``column: value; …``, a long one has a line per column."""
    text = decode(path, data, on_problem)
    if text[:4].lower() == "sep=":  # Excel's hint about the delimiter.
        text = text.partition("\n")[2]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(text)
    # The default limit of 128 KiB is too low for cells with whole articles.
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
        raise refused(path, f"is not a readable table ({error})", "Save it again as CSV.") from error
    if names and not count:  # The header is the only row: use it as content.
        builder.add("; ".join(name for name in names if name), "row")
    columns = {"columns": ", ".join(name for name in names or [] if name)[:2_000]}
    yield Document(
        builder.text,
        finished(path, builder.text, builder.blocks),
        metadata={"rows": count, **(columns if columns["columns"] else {})},
    )


def _lines(text: str) -> Iterator[str]:
    r"""Yield lines with their ends, split at ``\n`` only: ``splitlines`` also splits at U+2028 inside a cell."""
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end


def _delimiter(text: str) -> str:
    """Return the delimiter that splits the first rows into the most even columns; a comma if none does.

    ``csv.Sniffer`` is not used, because its patterns backtrack without bound on long lines.
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
            score = times / len(rows) + min(width, 50) / 1_000  # Evenness counts more than the number of columns.
            if score > best_score:
                best, best_score = delimiter, score
    return best


def _is_header(row: list[str]) -> bool:
    """Whether a first row contains column names: short texts, all different, no numbers."""
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
    """Render a row with its column names, without empty cells."""
    parts = []
    for index, cell in enumerate(row):
        name = names[index] if index < len(names) else ""
        value = cell.strip()
        if index == 0 and names and not name and value.isdecimal():
            continue  # The row number that data frames are saved with.
        if value:
            parts.append(f"{name}: {value}" if name else value)
    short = sum(map(len, parts)) <= _SHORT_ROW and not any("\n" in part for part in parts)
    return ("; " if short else "\n").join(parts)
