"""Files with one question or query per line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from ui.commands._terminal_text import note, unpaired


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a file: its id as given, and its text."""

    id: str | int
    text: str


def read_records(path: Path, names: Sequence[str], on_bad: Callable[[int, str], None]) -> Iterator[Record]:
    """Yield the records of a JSONL file as they are read.

    Args:
        path: The file.
        names: Fields that may hold the text; the first one present counts.
        on_bad: Called with the number, from 1, of every invalid line, and the reason; reading goes on.

    Raises:
        click.UsageError: The file cannot be read, or is empty.
    """
    is_empty = True
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.isspace():
                    continue
                is_empty = False
                try:
                    yield _record(line, names)
                except ValueError as error:
                    on_bad(number, str(error))
    except OSError as error:
        raise click.UsageError(f"Cannot read {path}: {error.strerror or error}.") from error
    if is_empty:
        raise click.UsageError(
            f"{path} is empty: it must have an object with id and {' or '.join(names)} on each line."
        )


def _record(line: bytes, names: Sequence[str]) -> Record:
    try:
        fields = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError("it must be UTF-8") from None
    except (ValueError, RecursionError):
        raise ValueError("it must be JSON") from None
    if not isinstance(fields, dict):
        raise ValueError("it must be a JSON object")
    number = fields.get("id", fields.get("_id"))
    if isinstance(number, bool) or not isinstance(number, str | int):
        raise ValueError("its id must be a string or an integer")
    text = next((fields[name] for name in names if name in fields), None)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"it must have text in {' or '.join(names)}")
    return Record(number, unpaired(text))


class BadLines:
    """Reports the invalid lines of a file on stderr, and counts them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.count = 0

    def __call__(self, number: int, reason: str) -> None:
        """Report and count a line."""
        self.count += 1
        note(f"{self._path}, line {number} is skipped: {reason}.")
