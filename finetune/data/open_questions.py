"""Search questions with short answers and the passage that contains them (Natural Questions, gold passages)."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from finetune.rows import ReadingRow
from rag.errors import TuningError


def reading_rows(path: Path) -> Iterator[ReadingRow]:
    """Yield a row for every question whose answer occurs in its passage.

    Raises:
        TuningError: The file is missing or malformed.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                record = json.loads(line)
                passage = record["ctxs"][0]
                spans = tuple(
                    dict.fromkeys(
                        match.span()
                        for answer in record["answers"]
                        if answer
                        for match in re.finditer(re.escape(answer), passage["text"], re.IGNORECASE)
                    )
                )
                if spans:
                    yield ReadingRow(record["question"], passage["text"], (passage["title"],), spans)
    except (OSError, EOFError, zlib.error, ValueError, KeyError, IndexError, TypeError) as error:
        raise TuningError(f"{path} cannot be read as questions with passages: {error}.") from error
