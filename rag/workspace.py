"""The one folder that holds everything a person's ragsmith knows."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rag.errors import StorageFull, WorkspaceBusy, WorkspaceError

# What ragsmith and its libraries keep at the top of a workspace; anything else there belongs to the person.
_OWN = (
    *(".gitignore", ".probe", "writer.lock", "converting.lock"),
    *("chroma", "chroma.damaged-*", "lexical", "ragsmith.db*"),
    *("prompts", "models", "uploads", "runs", "wandb", "tmp"),
)
_OTHERS = 0o077


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where things live below ``root``. Made with ``open_workspace``."""

    root: Path

    @property
    def chroma(self) -> Path:
        """The embedded Chroma store."""
        return self.root / "chroma"

    @property
    def lexical(self) -> Path:
        """The lexical indexes, a folder each."""
        return self.root / "lexical"

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.root / "ragsmith.db"

    @property
    def prompts(self) -> Path:
        """Versions and labels of prompts, a folder each."""
        return self.root / "prompts"

    @property
    def models(self) -> Path:
        """Converted and tuned models."""
        return self.root / "models"

    @property
    def adapters(self) -> Path:
        """LoRA adapters, a folder each."""
        return self.models / "adapters"

    @property
    def uploads(self) -> Path:
        """Files that were uploaded in the chat page, a folder each corpus."""
        return self.root / "uploads"

    @property
    def runs(self) -> Path:
        """Trainings, a folder each."""
        return self.root / "runs"

    @property
    def wandb(self) -> Path:
        """Offline and online W&B runs."""
        return self.root / "wandb"

    @contextmanager
    def writing(self, what: str, *, wait_s: float = 0.0) -> Iterator[None]:
        """Hold the workspace's single writing place; the lock dies with the process.

        Raises:
            WorkspaceBusy: Another process writes, and did not finish within ``wait_s`` seconds.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.root / "writer.lock", timeout=wait_s)
        try:
            lock.acquire()
        except Timeout as error:
            raise WorkspaceBusy(
                f"Cannot {what}: another ragsmith process is writing to {self.root}.",
                fix="Wait until it has finished, or stop it.",
            ) from error
        try:
            yield
        finally:
            lock.release()


def open_workspace(home: Path) -> Workspace:
    """Make the folder where it is missing, check that it can be written, and close it to other users.

    Raises:
        WorkspaceError: It is no folder, or cannot be made or written.
        StorageFull: The disk has no room left.
    """
    root = home.expanduser().resolve()
    with disk_errors(f"use the workspace {root}"):
        root.parent.mkdir(parents=True, exist_ok=True)
        root.mkdir(mode=0o700, exist_ok=True)
        close_to_others(root)
        probe = root / ".probe"
        probe.write_bytes(b"x")
        probe.unlink(missing_ok=True)
        ignore = root / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n!prompts/\n!prompts/**\nprompts/.lock\n!.gitignore\n", encoding="utf-8")
    return Workspace(root)


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Translate what the operating system says of a file into what a person can do.

    Raises:
        StorageFull: The disk has no room left.
        WorkspaceError: Any other failure to read or write.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                f"Cannot {what}: the disk is full.",
                fix="Free some space and run the same command again; what was finished is kept.",
            ) from error
        raise WorkspaceError(
            f"Cannot {what}: {error.strerror or error}.",
            fix="Choose another folder with RAGSMITH_HOME, or fix its permissions.",
        ) from error


@contextmanager
def private_files() -> Iterator[None]:
    """Make what this process writes readable by its owner alone: files 0600, folders 0700.

    That holds for files too which a person exports to a path of their own choosing.
    """
    before = os.umask(_OTHERS)
    try:
        yield
    finally:
        os.umask(before)


def close_to_others(root: Path) -> None:
    """Take away what modes of an older workspace let other users do.

    A look at the mode of the folder is all that it takes from the second time on. Links are not followed, what
    somebody else owns is left, and a folder with files beside the workspace's own keeps its own mode.
    """
    if os.name != "posix" or not root.lstat().st_mode & _OTHERS:
        return
    entries = list(root.iterdir())
    own = [path for path in entries if any(path.match(name) for name in _OWN)]
    for path in own:
        # Contents first: what is broken off is taken up again.
        if _open_to_others(path):
            close_below(path)
        _close(path)
    shared = root.lstat().st_mode & stat.S_ISVTX
    if len(own) == len(entries) and not shared:
        _close(root)


def close_below(folder: Path) -> None:
    """Close all files and folders below a folder to other users; links are not followed."""
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            _close(Path(place, name))


def _open_to_others(path: Path) -> bool:
    found = path.lstat()
    mine = found.st_uid == os.geteuid()
    return mine and not stat.S_ISLNK(found.st_mode) and bool(found.st_mode & _OTHERS)


def _close(path: Path) -> None:
    # A file that is gone by now, or a disk that knows no modes, is no reason to keep the workspace shut.
    with suppress(OSError):
        if _open_to_others(path):
            path.chmod(stat.S_IMODE(path.lstat().st_mode) & ~_OTHERS)
