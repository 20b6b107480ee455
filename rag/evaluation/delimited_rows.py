"""Rows of CSV and TSV files with their lines, whatever they are read for."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from rag.errors import RagsmithError


def delimited_rows(
    path: Path, lines: Iterable[str], delimiter: str, above: int, error: type[RagsmithError]
) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a table, the header first, with the line of the file that each begins on, from 1.

    Args:
        path: The file, for messages.
        lines: Its lines, with their ends.
        delimiter: The character between two cells.
        above: Number of lines of the file before ``lines``.
        error: The class of the error that a malformed row raises.

    Raises:
        RagsmithError: A row is malformed.
    """
    # The limit of a cell is Python's own, for the whole process.
    csv.field_size_limit(sys.maxsize)
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    begun = 1 + above
    try:
        for cells in rows:
            yield begun, cells
            begun = rows.line_num + 1 + above
    except csv.Error as malformed:
        raise error(
            f"{path}, the row from line {begun} is malformed: {malformed}.",
            fix='Quote cells with line ends, commas or quotes as "…", and double the quotes inside.',
        ) from malformed
