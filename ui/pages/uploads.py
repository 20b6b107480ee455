"""What a person uploads: where it is kept, and under which name."""

from __future__ import annotations

import filecmp
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from rag.errors import CorpusError
from rag.workspace import Workspace, disk_errors

_CORPUS = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,58}[a-z0-9])?")
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*\u202a-\u202e\u2066-\u2069\ud800-\udfff]')
# File systems take 255 bytes; a number for a second file of the same name must fit as well.
_LONGEST = 200


def keep_uploads(workspace: Workspace, corpus: str, files: Sequence[Path]) -> list[Path]:
    """Move uploaded files to where the corpus keeps them.

    A file that is there already with the same content is used as it is; one of the same name with other
    content gets a number.

    Raises:
        CorpusError: The name cannot be that of a corpus.
        StorageFull: The disk has no room left.
        WorkspaceError: The folder cannot be written.
    """
    if not _CORPUS.fullmatch(corpus):
        raise CorpusError(
            f"{corpus!r} cannot be the name of a corpus.",
            fix="Use up to 60 lower-case letters, digits, dots, dashes and underscores.",
        )
    folder = workspace.uploads / corpus
    with disk_errors(f"keep the upload in {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        return [_keep(folder, file) for file in files]


def safe_name(name: str) -> str:
    """A file's name without what could lead out of its folder, hide it or upset a file system."""
    cleaned = _UNSAFE.sub("_", name).strip().strip(".")
    path = Path(cleaned or "file")
    suffix = path.suffix if len(path.suffix) <= 12 else ""
    stem = path.name.removesuffix(suffix)
    room = _LONGEST - len(suffix.encode())
    return (stem.encode()[:room].decode(errors="ignore") or "file") + suffix


def _keep(folder: Path, file: Path) -> Path:
    for target in _candidates(folder, safe_name(file.name)):
        try:
            # Taking the place and finding it free is one step, so that two uploads do not meet.
            target.open("xb").close()
        except FileExistsError:
            if target.is_file() and filecmp.cmp(file, target, shallow=False):
                return target
            continue
        try:
            shutil.copyfile(file, target)
        except OSError:
            target.unlink(missing_ok=True)
            raise
        file.unlink(missing_ok=True)
        return target
    raise AssertionError("there is always a next number")


def _candidates(folder: Path, name: str) -> Iterator[Path]:
    yield folder / name
    stem, suffix = Path(name).stem, Path(name).suffix
    number = 2
    while True:
        yield folder / f"{stem} ({number}){suffix}"
        number += 1
