"""Files of formats that are not read: what they are, and what to do instead."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from rag.documents.loaders._text import refused
from rag.errors import LoadError

_PICTURE = ("a picture", "Run text recognition first (OCR) and add the result.")
_RECORDING = ("a recording", "Add its transcript.")
_ARCHIVE = ("an archive", "Unpack it and add what is in it.")
_WRITER = ("a document of another office program", "Save it as .docx, .xlsx or .pptx, or as PDF.")
_FOREIGN: dict[str, tuple[str, str]] = {
    ".doc": ("an old Word document", "Save it as .docx."),
    ".dot": ("an old Word template", "Save it as .docx."),
    ".xls": ("an old Excel workbook", "Save it as .xlsx."),
    ".xlsb": ("a binary Excel workbook", "Save it as .xlsx."),
    ".ppt": ("an old PowerPoint presentation", "Save it as .pptx."),
    ".msg": ("an Outlook message", "Save it as .eml, or as text."),
    ".mbox": ("a mailbox", "Save its mails as .eml."),
    ".pst": ("an Outlook mailbox", "Save its mails as .eml."),
    **dict.fromkeys((".odt", ".ods", ".odp", ".pages", ".numbers", ".key", ".wpd"), _WRITER),
    **dict.fromkeys((".mobi", ".azw", ".azw3", ".fb2", ".djvu"), ("an e-book", "Convert it to EPUB or PDF.")),
    **dict.fromkeys((".ps", ".eps", ".xps"), ("a page description", "Convert it to PDF.")),
    **dict.fromkeys(
        (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".heic", ".svg", ".ico"), _PICTURE
    ),
    **dict.fromkeys((".mp3", ".wav", ".m4a", ".ogg", ".mp4", ".mov", ".avi", ".mkv", ".webm"), _RECORDING),
    **dict.fromkeys((".zip", ".7z", ".rar", ".tar", ".gz", ".tgz", ".bz2", ".xz"), _ARCHIVE),
}
_SIGNATURES: tuple[tuple[bytes, str], ...] = ((b"%!PS", ".ps"), (b"<svg", ".svg"))
_ENCODED_LINE = re.compile(r"[A-Za-z0-9+/=_-]{60,}|M[!-`]{60}")


def foreign(path: Path, data: bytes) -> LoadError | None:
    """Return the error for a file that is known not to be text; None for others."""
    start = data[:1_000].lstrip()
    suffix = next((suffix for mark, suffix in _SIGNATURES if start.startswith(mark)), path.suffix.lower())
    if suffix not in _FOREIGN:
        return None
    what, fix = _FOREIGN[suffix]
    return refused(path, f"is {what}, which is not read", fix)


# How files of common formats begin: what they are, and their suffix. HTML counts only under a binary suffix.
_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"%pdf-", "a PDF", ".pdf"),
    (b"\x89png\r\n", "a picture", ".png"),
    (b"\xff\xd8\xff", "a picture", ".jpg"),
    (b"<!doctype html", "a page of the web", ".html"),
    (b"<html", "a page of the web", ".html"),
)
# Files that begin as ZIP archives do, by the folder that one of their members is in.
_PACKAGES: tuple[tuple[str, str, str], ...] = (
    ("xl/", "an Excel workbook", ".xlsx"),
    ("word/", "a Word document", ".docx"),
    ("ppt/", "a PowerPoint presentation", ".pptx"),
    ("META-INF/container.xml", "an e-book", ".epub"),
)
_ARCHIVES = frozenset({"docx", "pptx", "xlsx", "epub"})


def misnamed(path: Path, data: bytes, kind: str) -> LoadError | None:
    """Return the error for a file whose content is of another format than its name says; None for others.

    Args:
        kind: Name of the loader for the file.
    """
    # PDF programs write a few bytes in front.
    if kind == "pdf" and b"%PDF-" in data[:1_024]:
        return None
    found = _packed(data, kind) if data.startswith(b"PK\x03\x04") else _beginning(data, kind)
    if found is None:
        return None
    what, suffix = found
    if suffix in _FOREIGN:
        return refused(path, f"is {what} ({suffix}) in spite of its name", _FOREIGN[suffix][1])
    return refused(path, f"is {what} in spite of its name", f"Rename it to {path.stem}{suffix}.")


def _beginning(data: bytes, kind: str) -> tuple[str, str] | None:
    start = data[:1_000].lstrip().lower()
    found = next(((what, suffix) for mark, what, suffix in _BEGINNINGS if start.startswith(mark)), None)
    if found is None or (found[1] == ".html" and kind not in {"pdf", *_ARCHIVES}):
        return None
    return found if found[1] != f".{kind}" else None


def _packed(data: bytes, kind: str) -> tuple[str, str] | None:
    try:
        with ZipFile(BytesIO(data)) as archive:
            names = archive.namelist()
    except (BadZipFile, ValueError, NotImplementedError):
        # Damaged, which the loader of the format says.
        return None if kind in _ARCHIVES else ("an archive", ".zip")
    for member, what, suffix in _PACKAGES:
        if any(name.startswith(member) for name in names):
            return (what, suffix) if suffix != f".{kind}" else None
    return None if kind in _ARCHIVES else ("an archive", ".zip")


def is_encoded(text: str) -> bool:
    """Whether most of a text is data in letters: base64, or uuencoded."""
    rows = [row for row in text[:100_000].split("\n") if row.strip()]
    return 2 * sum(1 for row in rows if _ENCODED_LINE.fullmatch(row.strip())) > len(rows) > 1
