"""The log of a workspace: warnings, refused requests, and the tracebacks of unexpected errors."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

from rag.masking import Masker
from rag.redaction import redact

if TYPE_CHECKING:
    from rag.workspace import Workspace

SHOWN = "logs/ragsmith.log in the workspace"
"""The place of the log for a page, which may be on another machine."""
LARGEST = 5_000_000
"""Bytes of a log; a larger one is put aside when the next process opens it."""
_FORM = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"


@contextmanager
def open_log(workspace: Workspace, masker: Masker | None = None) -> Iterator[LogFile]:
    """Write what is logged from here on to the log of a workspace, without what ``masker`` masks."""
    handler = LogFile(workspace.log, masker)
    logging.getLogger().addHandler(handler)
    try:
        yield handler
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


class LogFile(logging.FileHandler):
    """Appends records to a file, which is made with the first one; secrets are masked."""

    def __init__(self, path: Path, masker: Masker | None = None) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace", delay=True)
        self.path = path
        self.setLevel(logging.INFO)
        self.setFormatter(_Redacted(masker or Masker()))

    def _open(self) -> TextIOWrapper:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size > LARGEST:
            self.path.replace(self.path.with_suffix(".log.1"))
        return super()._open()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; a log that cannot be written must not stop what is logged."""
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is that of logging
        """Say nothing: the record has been printed, and a full disk is reported where it is met."""

    def write_bug(self, what: str, error: BaseException) -> None:
        """Write the traceback of an unexpected error, and add the place of it to the error's notes."""
        record = logging.LogRecord(
            __name__, logging.ERROR, "", 0, what, (), (type(error), error, error.__traceback__)
        )
        self.handle(record)
        error.add_note(f"its traceback is in {self.path}")


class _Redacted(logging.Formatter):
    def __init__(self, masker: Masker) -> None:
        super().__init__(_FORM)
        self._masker = masker

    def format(self, record: logging.LogRecord) -> str:
        return self._masker.log_text(redact(super().format(record)))
