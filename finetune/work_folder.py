"""A folder in which one process works at a time, and which others may ask to stop.

``stop``   exists while a stop is requested
``lock``   locked while a process works
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from rag.workspace import disk_errors

if TYPE_CHECKING:
    from filelock import FileLock


@dataclass(frozen=True)
class WorkFolder:
    """The lock and the stop request of a folder."""

    path: Path

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.name

    @property
    def lock(self) -> FileLock:
        """Lock of the process that works; the system releases it when the process dies."""
        from filelock import FileLock

        return FileLock(self.path / "lock")

    @property
    def is_active(self) -> bool:
        """Whether a process is working now."""
        from filelock import Timeout

        try:
            with self.lock.acquire(timeout=0):
                return False
        except Timeout:
            return True

    @property
    def stop_requested(self) -> bool:
        """Whether a stop is requested."""
        return (self.path / "stop").exists()

    def request_stop(self) -> None:
        """Ask the process that works to stop.

        Raises:
            StorageFull: The disk is full.
            WorkspaceError: The folder cannot be written.
        """
        with disk_errors(f"stop {self.name}"):
            (self.path / "stop").touch()

    def clear_stop(self) -> None:
        """Withdraw a stop request."""
        (self.path / "stop").unlink(missing_ok=True)


def new_folder_in(parent: Path, name: str) -> Path:
    """Create a folder with a name, or with the first number from 2 after it that is free.

    Raises:
        OSError: The folder cannot be created.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        break
    return path
