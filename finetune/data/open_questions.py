"""Search questions with the passage that answers them and short answers (Natural Questions, gold passages)."""

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
    """A row for each question whose answer stands in its passage.

    Raises:
        TuningError: The file is missing or malformed.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                held = json.loads(line)
                passage = held["ctxs"][0]
                spans = tuple(
                    dict.fromkeys(
                        match.span()
                        for answer in held["answers"]
                        if answer
                        for match in re.finditer(re.escape(answer), passage["text"], re.IGNORECASE)
                    )
                )
                if spans:
                    yield ReadingRow(held["question"], passage["text"], (passage["title"],), spans)
    except (OSError, EOFError, zlib.error, ValueError, KeyError, IndexError, TypeError) as error:
        raise TuningError(f"{path} cannot be read as questions with passages: {error}.") from error
