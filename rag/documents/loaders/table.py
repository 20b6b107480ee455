"""CSV and TSV."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rag.documents.loaders._blocks import Builder, finished
from rag.documents.loaders._tables import write_table
from rag.documents.loaders._text import OnProblem, decode, refused
from rag.types import Document

_SAMPLE = 16_384
_SAMPLE_ROWS = 50
_DELIMITERS = ",;\t|"


def load(path: Path, data: bytes, on_problem: OnProblem) -> Iterator[Document]:
    """Yield one document; see ``rag.documents.loaders._tables`` for its text."""
    text = decode(path, data, on_problem)
    if text[:4].lower() == "sep=":  # Excel's hint about the delimiter.
        text = text.partition("\n")[2]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(text)
    # The default limit of 128 KiB is too low for cells with whole articles.
    csv.field_size_limit(sys.maxsize)
    builder = Builder()
    try:
        table = write_table(builder, csv.reader(_lines(text), delimiter=delimiter), numbered=True)
    except csv.Error as error:
        raise refused(path, f"is not a readable table ({error})", "Save it again as CSV.") from error
    columns = ", ".join(filter(None, table.names))[:2_000]
    yield Document(
        builder.text,
        finished(path, builder.text, builder.blocks),
        metadata={"rows": table.rows, **({"columns": columns} if columns else {})},
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
