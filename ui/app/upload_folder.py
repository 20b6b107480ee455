"""The documents of a corpus that are stored in the workspace: uploaded files, and pages fetched from the web."""

from __future__ import annotations

import filecmp
import hashlib
import os
import re
import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rag.indexing.corpora import check_corpus_name
from rag.workspace import Workspace, disk_errors

if TYPE_CHECKING:
    from rag.documents.fetching import FetchedPage

_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*\u202a-\u202e\u2066-\u2069\ud800-\udfff]')
# File systems take 255 bytes; a number for a second file of the same name must fit as well.
_LONGEST = 200
# The address of a page is shortened in the name of its file; the hash tells pages apart.
_LONGEST_PAGE = 80


class UploadFolder:
    """The folder of a corpus in the workspace.

    Raises:
        CorpusError: The name of the corpus is invalid.
    """

    def __init__(self, workspace: Workspace, corpus: str) -> None:
        check_corpus_name(corpus)
        self._folder = workspace.uploads / corpus

    def taken(self, files: Sequence[Path]) -> list[str]:
        """Return the names, among those of these files, that a stored file with other content has."""
        names = [(file, safe_name(file.name)) for file in files]
        return [
            name for file, name in names if (self._folder / name).exists() and self._copy_of(file, name) is None
        ]

    def keep(self, files: Sequence[Path], *, replace: bool = False) -> list[Path]:
        """Move files into the folder.

        A file that is stored already with the same content is used as it is.

        Args:
            replace: Whether a file takes the place of a stored one with the same name; else it gets a number.

        Raises:
            StorageFull: The disk is full.
            WorkspaceError: The folder cannot be written.
        """
        with disk_errors(f"keep the upload in {self._folder}"):
            self._folder.mkdir(parents=True, exist_ok=True)
            return [self._keep(file, replace) for file in files]

    def keep_page(self, page: FetchedPage) -> Path:
        """Store a page; it takes the place of what its address gave before.

        Raises:
            StorageFull: The disk is full.
            WorkspaceError: The folder cannot be written.
        """
        stem = _page_stem(page.address)
        target = self._folder / f"{stem}{page.suffix}"
        with disk_errors(f"keep the page in {self._folder}"):
            self._folder.mkdir(parents=True, exist_ok=True)
            new = _beside(target)
            try:
                new.write_bytes(page.data)
                os.replace(new, target)
            finally:
                new.unlink(missing_ok=True)
            # The page may have been of another format before.
            for former in self._folder.iterdir():
                if former.stem == stem and former != target:
                    former.unlink()
        return target

    def _keep(self, file: Path, replace: bool) -> Path:
        name = safe_name(file.name)
        stored = self._copy_of(file, name)
        if stored is None:
            stored = self._replaced(file, name) if replace else self._numbered(file, name)
        file.unlink(missing_ok=True)
        return stored

    def _copy_of(self, file: Path, name: str) -> Path | None:
        """Return the stored file with this name, or with a number of it, and the same content."""
        for target in _candidates(self._folder, name):
            if not target.exists():
                return None
            if target.is_file() and filecmp.cmp(file, target, shallow=False):
                return target
        raise AssertionError("the candidates never end")

    def _replaced(self, file: Path, name: str) -> Path:
        target = self._folder / name
        new = _beside(target)
        try:
            shutil.copyfile(file, new)
            # In one step: an interruption leaves the old file or the new one.
            os.replace(new, target)
        finally:
            new.unlink(missing_ok=True)
        return target

    def _numbered(self, file: Path, name: str) -> Path:
        for target in _candidates(self._folder, name):
            try:
                # Creating the file checks and takes the name in one step, so that two uploads do not collide.
                target.open("xb").close()
            except FileExistsError:
                continue
            try:
                shutil.copyfile(file, target)
            except OSError:
                target.unlink(missing_ok=True)
                raise
            return target
        raise AssertionError("the candidates never end")


def is_stored(workspace: Workspace, path: str) -> bool:
    """Whether a file is stored in the workspace: an upload, or a page of the web."""
    folder, name = os.path.split(path)
    # A link at the end is not followed: it is ours, and what it leads to is not.
    return os.path.join(os.path.realpath(folder), name).startswith(os.path.realpath(workspace.uploads) + os.sep)


def delete_stored(workspace: Workspace, paths: Sequence[str]) -> None:
    """Delete those of these files that are stored in the workspace; files elsewhere stay.

    Raises:
        WorkspaceError: A file cannot be deleted.
    """
    for path in paths:
        if is_stored(workspace, path):
            with disk_errors(f"delete {path}"):
                Path(path).unlink(missing_ok=True)


def safe_name(name: str) -> str:
    """Return a file name that cannot leave its folder, hide the file or be refused by a file system."""
    # macOS sends names with accents apart from their letters, other systems do not: one file has one name.
    cleaned = _UNSAFE.sub("_", unicodedata.normalize("NFC", name)).strip().strip(".")
    path = Path(cleaned or "file")
    suffix = path.suffix if len(path.suffix) <= 12 else ""
    stem = path.name.removesuffix(suffix)
    room = _LONGEST - len(suffix.encode())
    return (stem.encode()[:room].decode(errors="ignore") or "file") + suffix


def _page_stem(address: str) -> str:
    parts = urlsplit(address)
    readable = safe_name(f"{parts.hostname}{parts.path.rstrip('/')}").encode()[:_LONGEST_PAGE]
    return f"{readable.decode(errors='ignore')}-{hashlib.sha256(address.encode()).hexdigest()[:12]}"


def _beside(target: Path) -> Path:
    """The hidden file that becomes the target when it is complete; ingestion passes over hidden files."""
    return target.with_name(f".{target.name}.new")


def _candidates(folder: Path, name: str) -> Iterator[Path]:
    yield folder / name
    stem, suffix = Path(name).stem, Path(name).suffix
    number = 2
    while True:
        yield folder / f"{stem} ({number}){suffix}"
        number += 1
