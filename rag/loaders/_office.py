"""What Word and PowerPoint files share: a guarded opening of their zip archive, and their properties."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Protocol

from rag.documents import Scalar
from rag.loaders._fields import scalars
from rag.loaders._text import refused

_UNPACKED_LIMIT = 500_000_000
"""Bytes that an archive may hold once unpacked."""
_RATIO_LIMIT = 100
"""How many times its size an archive may unpack to; XML of an honest document reaches about 20."""
_RATIO_FLOOR = 20_000_000
"""Bytes below which the ratio does not matter."""


class Properties(Protocol):
    """The core properties of an Office file."""

    @property
    def author(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def keywords(self) -> str: ...
    @property
    def category(self) -> str: ...


def unpacked(path: Path, data: bytes, part: str) -> io.BytesIO:
    """The archive as a stream, once it is known to be of the right kind and no bomb.

    Args:
        part: A file that the archive must hold, such as ``word/document.xml``.

    Raises:
        LoadError: It is no such archive, or would unpack to too much.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            sizes = {item.filename: item.file_size for item in archive.infolist()}
            encrypted = any(item.flag_bits & 1 for item in archive.infolist())
            total = sum(item.file_size for item in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        fix = "Save it anew in its program (old .doc and .ppt as .docx and .pptx), or leave it out."
        raise refused(path, f"is not an Office file that can be read ({error})", fix) from error
    if encrypted:
        raise refused(path, "is encrypted", "Save a copy without the password and add that.")
    if part not in sizes:
        raise refused(path, f"is an archive without {part}", "Check what kind of file it is.")
    if total > _UNPACKED_LIMIT or total > max(_RATIO_FLOOR, len(data) * _RATIO_LIMIT):
        problem = f"would unpack to {total:,} bytes, which is more than a document holds"
        raise refused(path, problem, "Leave it out, or save its text as a smaller file.")
    return io.BytesIO(data)


def described(properties: Properties) -> dict[str, Scalar]:
    """Metadata from the core properties."""
    names = ("author", "subject", "keywords", "category")
    return scalars({name: getattr(properties, name) for name in names})
