"""Files with a question or a query on each line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from ui.commands._terminal_text import note, unpaired


@dataclass(frozen=True, slots=True)
class Record:
    """One line: its id as it was given, and its text."""

    id: str | int
    text: str


def read_records(path: Path, names: Sequence[str], on_bad: Callable[[int, str], None]) -> Iterator[Record]:
    """The records of a JSONL file, as they are read.

    Args:
        path: The file.
        names: Fields that may hold the text; the first that is there counts.
        on_bad: Called with the number of a line, from 1, that is no record, and the reason; the others go on.

    Raises:
        click.UsageError: The file cannot be read.
    """
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.isspace():
                    continue
                try:
                    yield _record(line, names)
                except ValueError as error:
                    on_bad(number, str(error))
    except OSError as error:
        raise click.UsageError(f"Cannot read {path}: {error.strerror or error}.") from error


def _record(line: bytes, names: Sequence[str]) -> Record:
    try:
        told = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(told, dict):
        raise ValueError("it is no JSON object")
    number = told.get("id", told.get("_id"))
    if isinstance(number, bool) or not isinstance(number, str | int):
        raise ValueError("it has no id that is a text or a whole number")
    text = next((told[name] for name in names if name in told), None)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"it has no text in {' or '.join(names)}")
    return Record(number, unpaired(text))


class BadLines:
    """Names the bad lines of a file on stderr, and remembers that there were some."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.count = 0

    def __call__(self, number: int, reason: str) -> None:
        """Name one."""
        self.count += 1
        note(f"{self._path}, line {number} is left out: {reason}.")
