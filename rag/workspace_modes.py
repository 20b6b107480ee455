"""Access to the files of a workspace: questions, documents and answers are their owner's alone."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What ragsmith and its libraries keep at the top of a workspace; anything else there belongs to the person.
_OWN = (
    *(".gitignore", ".probe", "writer.lock", "converting.lock"),
    *("chroma", "chroma.damaged-*", "lexical", "ragsmith.db*"),
    *("prompts", "models", "uploads", "runs", "wandb", "tmp"),
)
_OTHERS = 0o077


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
    with contextlib.suppress(OSError):
        if _open_to_others(path):
            path.chmod(stat.S_IMODE(path.lstat().st_mode) & ~_OTHERS)
