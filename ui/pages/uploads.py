"""Files added through the page: which are allowed, and where and under which name uploads are stored."""

from __future__ import annotations

import filecmp
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rag.errors import CorpusError, LoadError
from rag.settings import Settings
from rag.workspace import Workspace, disk_errors
from ui.guard import is_loopback

_CORPUS = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,58}[a-z0-9])?")
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*\u202a-\u202e\u2066-\u2069\ud800-\udfff]')
# File systems take 255 bytes; a number for a second file of the same name must fit as well.
_LONGEST = 200
# Headers that a proxy adds to the requests that it forwards.
_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")


def offers_folders(settings: Settings) -> bool:
    """Whether files of this machine may be added from the page.

    They may only come from the configured folders, and only while nobody else can reach the page, which a host
    other than the loopback, a password or allowed hosts suggest.
    """
    access = settings.access
    shared = access.password is not None or bool(access.allowed_hosts)
    return bool(settings.ingest.folder_roots) and is_loopback(settings.host) and not shared


def check_folder(settings: Settings, named: str, headers: Mapping[str, str]) -> Path:
    """Return the folder or file that a person names on the page.

    Args:
        headers: Headers of the request: a proxy may let others in, also on the loopback.

    Raises:
        LoadError: Adding folders is off, or the path is outside ``ingest.folder_roots``.
    """
    if not offers_folders(settings) or any(name in headers for name in _FORWARDED):
        raise LoadError(
            "Folders of this machine cannot be added from this page.",
            fix="Upload the files, or run `ragsmith ingest` on the machine.",
        )
    # Links are resolved first: one inside a root may lead anywhere.
    path = Path(named).expanduser().resolve()
    roots = [root.expanduser().resolve() for root in settings.ingest.folder_roots]
    if not any(path.is_relative_to(root) for root in roots):
        raise LoadError(
            f"{named} must be inside a folder that may be added from this page.",
            fix="Choose one below ingest.folder_roots, or run `ragsmith ingest` on the machine.",
        )
    return path


def check_references(inputs: Any, folder: Path) -> None:
    """Refuse inputs of an event that name a file which was not uploaded.

    Args:
        inputs: The parsed JSON that the browser sent.
        folder: The folder that receives uploads.

    Raises:
        LoadError: A file at any depth is outside the folder, hidden, or an address.
    """
    root = folder.resolve()
    waiting = [inputs]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            path = value.get("path")
            if isinstance(path, str) and not _is_upload(path, root):
                raise LoadError("The file must be uploaded.", fix="Choose it again with the upload button.")
            if isinstance(path, str) and Path(path).name.startswith("."):
                raise LoadError("The file must not be hidden.", fix="Rename it, without the dot in front.")
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)


def _is_upload(path: str, root: Path) -> bool:
    try:
        real = Path(path).resolve()
        return real.is_relative_to(root) and real.is_file()
    except (OSError, ValueError):
        return False


def keep_uploads(workspace: Workspace, corpus: str, files: Sequence[Path]) -> list[Path]:
    """Move uploaded files into the folder of a corpus.

    A file that exists with the same content is used as it is; one of the same name with other content gets a
    number.

    Raises:
        CorpusError: The name of the corpus is invalid.
        StorageFull: The disk is full.
        WorkspaceError: The folder cannot be written.
    """
    if not _CORPUS.fullmatch(corpus):
        raise CorpusError(
            f"{corpus!r} must be a valid name of a corpus.",
            fix="Use up to 60 lower-case letters, digits, dots, dashes and underscores.",
        )
    folder = workspace.uploads / corpus
    with disk_errors(f"keep the upload in {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        return [_keep(folder, file) for file in files]


def safe_name(name: str) -> str:
    """Return a file name that cannot leave its folder, hide the file or be refused by a file system."""
    cleaned = _UNSAFE.sub("_", name).strip().strip(".")
    path = Path(cleaned or "file")
    suffix = path.suffix if len(path.suffix) <= 12 else ""
    stem = path.name.removesuffix(suffix)
    room = _LONGEST - len(suffix.encode())
    return (stem.encode()[:room].decode(errors="ignore") or "file") + suffix


def _keep(folder: Path, file: Path) -> Path:
    for target in _candidates(folder, safe_name(file.name)):
        try:
            # Creating the file checks and takes the name in one step, so that two uploads do not collide.
            target.open("xb").close()
        except FileExistsError:
            if target.is_file() and filecmp.cmp(file, target, shallow=False):
                file.unlink(missing_ok=True)
                return target
            continue
        try:
            shutil.copyfile(file, target)
        except OSError:
            target.unlink(missing_ok=True)
            raise
        file.unlink(missing_ok=True)
        return target
    raise AssertionError("the candidates never end")


def _candidates(folder: Path, name: str) -> Iterator[Path]:
    yield folder / name
    stem, suffix = Path(name).stem, Path(name).suffix
    number = 2
    while True:
        yield folder / f"{stem} ({number}){suffix}"
        number += 1
