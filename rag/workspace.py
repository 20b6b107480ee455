"""The workspace: the folder with all data of ragsmith."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rag.errors import StorageFull, WorkspaceBusy, WorkspaceError

DELIVERY_LOCK = "delivery.lock"
# Entries of ragsmith and its libraries at the top of a workspace; anything else belongs to the user.
_OWN = (
    *(".gitignore", ".probe", "writer.lock", "converting.lock", DELIVERY_LOCK),
    *("chroma", "chroma.damaged-*", "lexical", "ragsmith.db*"),
    *("prompts", "models", "uploads", "data", "runs", "wandb", "logs", "tmp"),
)
_OTHERS = 0o077
ADAPTERS = "adapters"


@dataclass(frozen=True, slots=True)
class Workspace:
    """The layout of a workspace; create it with ``open_workspace``."""

    root: Path

    @property
    def chroma(self) -> Path:
        """The embedded Chroma store."""
        return self.root / "chroma"

    @property
    def lexical(self) -> Path:
        """The lexical indexes, one folder each."""
        return self.root / "lexical"

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.root / "ragsmith.db"

    @property
    def prompts(self) -> Path:
        """Versions and labels of prompts, one folder per prompt."""
        return self.root / "prompts"

    @property
    def models(self) -> Path:
        """Converted and tuned models."""
        return self.root / "models"

    @property
    def adapters(self) -> Path:
        """LoRA adapters, one folder each."""
        return self.models / ADAPTERS

    @property
    def uploads(self) -> Path:
        """Files uploaded in the chat page, one folder per corpus."""
        return self.root / "uploads"

    @property
    def data(self) -> Path:
        """Versions of prepared training data, one folder per name."""
        return self.root / "data"

    @property
    def runs(self) -> Path:
        """Training runs, one folder each."""
        return self.root / "runs"

    @property
    def measured(self) -> Path:
        """Training runs that are only measured for an estimate, one folder each until it is taken."""
        return self.root / "measured"

    @property
    def wandb(self) -> Path:
        """Offline and online W&B runs."""
        return self.root / "wandb"

    @property
    def log(self) -> Path:
        """The log of all processes of the workspace."""
        return self.root / "logs" / "ragsmith.log"

    @contextmanager
    def writing(self, what: str, *, wait_s: float = 0.0) -> Iterator[None]:
        """Acquire the workspace's write lock, which the system releases when the process dies.

        Raises:
            WorkspaceBusy: Another process is writing and did not finish within ``wait_s`` seconds.
        """
        busy = WorkspaceBusy(
            f"Cannot {what}: another ragsmith process is writing to {self.root}.",
            fix="Wait until it has finished, or stop it.",
        )
        with self._locked("writer.lock", busy, wait_s):
            yield

    @contextmanager
    def delivering(self, *, wait_s: float = 0.0) -> Iterator[None]:
        """Acquire the lock of the process that writes the W&B run of a day; see ``writing``.

        Raises:
            WorkspaceBusy: Another process has it.
        """
        busy = WorkspaceBusy(
            f"Another ragsmith process is delivering the traces of {self.root} to W&B.",
            fix="Wait until it has finished, or stop it; a server delivers as long as it runs.",
        )
        with self._locked(DELIVERY_LOCK, busy, wait_s):
            yield

    @contextmanager
    def _locked(self, name: str, busy: WorkspaceBusy, wait_s: float) -> Iterator[None]:
        from filelock import FileLock, Timeout

        lock = FileLock(self.root / name, timeout=wait_s)
        with disk_errors(f"lock {self.root / name}"):
            try:
                lock.acquire()
            except Timeout as error:
                raise busy from error
        try:
            yield
        finally:
            lock.release()


def open_workspace(home: Path) -> Workspace:
    """Create the folder if needed, check that it is writable, and make it private to the user.

    Raises:
        WorkspaceError: The path is not a folder, or cannot be created or written.
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
    """Translate errors of the operating system about files.

    Raises:
        StorageFull: The disk is full.
        WorkspaceError: Any other failure to read or write.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                f"Cannot {what}: the disk is full.",
                fix="Free some space and run the same command again; finished work is kept.",
            ) from error
        raise WorkspaceError(
            f"Cannot {what}: {error.strerror or error}.",
            fix="Choose another folder with RAGSMITH_HOME, or fix its permissions.",
        ) from error


@contextmanager
def private_files() -> Iterator[None]:
    """Make new files readable by their owner only (files 0600, folders 0700), including exported files."""
    before = os.umask(_OTHERS)
    try:
        yield
    finally:
        os.umask(before)


def close_to_others(root: Path) -> None:
    """Remove the permissions of other users in an older workspace; later calls only check the folder's mode.

    Links are not followed, files of other users are skipped, and a folder that also contains files outside the
    workspace's layout keeps its own mode.
    """
    if os.name != "posix" or not root.lstat().st_mode & _OTHERS:
        return
    entries = list(root.iterdir())
    own = [path for path in entries if any(path.match(name) for name in _OWN)]
    for path in own:
        # Contents first, so that an interrupted call is resumed by the next one.
        if _open_to_others(path):
            close_below(path)
        _close(path)
    shared = root.lstat().st_mode & stat.S_ISVTX
    if len(own) == len(entries) and not shared:
        _close(root)


def close_below(folder: Path) -> None:
    """Make all files and folders below a folder private to the user; links are not followed."""
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            _close(Path(place, name))


def _open_to_others(path: Path) -> bool:
    found = path.lstat()
    mine = found.st_uid == os.geteuid()
    return mine and not stat.S_ISLNK(found.st_mode) and bool(found.st_mode & _OTHERS)


def _close(path: Path) -> None:
    # A deleted file, or a file system without modes, must not prevent opening the workspace.
    with suppress(OSError):
        if _open_to_others(path):
            path.chmod(stat.S_IMODE(path.lstat().st_mode) & ~_OTHERS)
