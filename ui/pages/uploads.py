"""Files added through the page: which are allowed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag.errors import LoadError
from rag.settings import Settings
from ui.guard import is_loopback

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
