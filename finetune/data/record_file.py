"""Records in a JSONL file, appended as they are made, so that a killed process loses only the last ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from prompts.validation import plain_reason
from rag.errors import TuningError
from rag.workspace import disk_errors

Record = TypeVar("Record", bound=BaseModel)


class RecordFile(Generic[Record]):
    """A file of records of one kind; one process at a time may append to it.

    Args:
        path: The file, which need not exist.
        kind: The model of a record.
    """

    def __init__(self, path: Path, kind: type[Record]) -> None:
        self._path = path
        self._kind = kind

    def read(self) -> list[Record]:
        """Return the records, and delete a last line that a killed process left incomplete.

        Raises:
            TuningError: Another line is malformed.
        """
        with disk_errors(f"read {self._path}"):
            if not self._path.exists():
                return []
            content = self._path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if whole != content:
                with self._path.open("r+b") as file:
                    file.truncate(len(whole))
        return [self._parsed(line, number) for number, line in enumerate(whole.splitlines(), 1)]

    def append(self, records: Sequence[Record]) -> None:
        """Write records at the end of the file.

        Raises:
            StorageFull, WorkspaceError: The file cannot be written.
        """
        lines = "".join(f"{record.model_dump_json()}\n" for record in records)
        with disk_errors(f"write {self._path}"), self._path.open("ab") as file:
            file.write(lines.encode())

    def _parsed(self, line: bytes, number: int) -> Record:
        try:
            return self._kind.model_validate_json(line)
        except ValidationError as error:
            raise TuningError(
                f"{self._path}, line {number} is malformed: {plain_reason(error.errors()[0]['msg'])}.",
                fix="Delete the file; it is made again.",
            ) from error
