"""Shared parts of the loaders of zip archives (Office files, e-books): safe opening, and properties."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from rag.documents.loaders._fields import scalars
from rag.documents.loaders._text import refused
from rag.errors import LoadError
from rag.types import Scalar

_UNPACKED_LIMIT = 500_000_000
"""Maximum bytes of an unpacked archive."""
_RATIO_LIMIT = 100
"""Maximum compression ratio of an archive; real documents reach about 20."""
_RATIO_FLOOR = 20_000_000
"""Unpacked bytes below which the ratio is not checked."""
_MOST_PARTS = 10_000
"""Maximum parts of an archive; a presentation of a thousand slides has about 5,000."""
_MOST_ELEMENTS = 2_000_000
"""Maximum XML elements in all parts, at about 250 bytes each once parsed; a page of text has about 500."""
_PIECE = 65_536
"""Bytes to unpack at a time."""
_LOCAL_HEAD = struct.Struct("<4s22xHH")
"""Signature of a local file header, and the lengths of the name and the extra field after it."""
SMALL = 720_000
"""EMU (2 cm): a picture that is smaller in both directions is an icon."""
GENERATED = "automatically generated"
"""Part of an alternative text that the program has guessed."""
_DAMAGED = "It seems to be damaged or malicious: save it again in its program, or leave it out."


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


def unpacked(path: Path, data: bytes, part: str, kind: str = "Office file") -> io.BytesIO:
    """Return the archive as a stream, after checking its kind and that it is not a zip bomb.

    The sizes stated by the archive are not trusted: everything is unpacked once, piece by piece, and counted.

    Args:
        path: Path of the file, for messages.
        data: Bytes of the file.
        part: A file that the archive must contain, such as ``word/document.xml``.
        kind: What it is, for messages.

    Raises:
        LoadError: It is not such an archive, is inconsistent, or would unpack to too many bytes.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            items = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        fix = "Save it again in its program (old .doc, .ppt and .xls as .docx, .pptx and .xlsx), or leave it out."
        raise refused(path, f"is not a readable {kind} ({error})", fix) from error
    if any(item.flag_bits & 1 for item in items):
        raise refused(path, "is encrypted", "Save a copy without the password and add that.")
    if all(item.filename != part for item in items):
        raise refused(path, f"is an archive without {part}", "Check what kind of file it is.")
    if len(items) > _MOST_PARTS:
        raise refused(path, f"contains {len(items):,} parts, but the limit is {_MOST_PARTS:,}", "Leave it out.")
    most = min(_UNPACKED_LIMIT, max(_RATIO_FLOOR, len(data) * _RATIO_LIMIT))
    total = sum(item.file_size for item in items)
    if total > most:
        raise _too_much(path, f"{total:,}")
    left, elements = most, 0
    for item in items:
        size, markup = _counted(path, data, item, left, _MOST_ELEMENTS - elements)
        left -= size
        elements += markup
    return io.BytesIO(data)


def _counted(path: Path, data: bytes, item: zipfile.ZipInfo, most: int, most_elements: int) -> tuple[int, int]:
    """Unpack a part to count its bytes and, for XML, its elements.

    Raises:
        LoadError: It exceeds a limit, or does not match its entry in the archive.
    """
    is_xml = item.filename.lower().endswith((".xml", ".rels", ".xhtml", ".html", ".htm", ".opf"))
    size = elements = checksum = 0
    before = b""
    for piece in _pieces(path, data, item):
        size += len(piece)
        if size > most:
            raise _too_much(path, f"more than {size:,}")
        checksum = zlib.crc32(piece, checksum)
        if not is_xml:
            continue
        # A tag may span two pieces.
        both = before + piece
        elements += both.count(b"<") - both.count(b"</") - before.count(b"<") + before.count(b"</")
        if elements > most_elements:
            raise refused(
                path, f"contains more than {_MOST_ELEMENTS:,} XML elements", "Split it, or leave it out."
            )
        before = both[-1:]
    if size != item.file_size or checksum != item.CRC:
        raise _damaged(path, item)
    return size, elements


def _pieces(path: Path, data: bytes, item: zipfile.ZipInfo) -> Iterator[bytes]:
    """Unpack a part in pieces.

    ``zipfile`` stops at the size that the archive states, so that it would not notice a longer part.

    Raises:
        LoadError: The part is damaged, or uses a compression method that Office programs do not.
    """
    head = data[item.header_offset : item.header_offset + _LOCAL_HEAD.size]
    if len(head) < _LOCAL_HEAD.size:
        raise _damaged(path, item)
    signature, name, extra = _LOCAL_HEAD.unpack(head)
    start = item.header_offset + _LOCAL_HEAD.size + name + extra
    packed = memoryview(data)[start : start + item.compress_size]
    if signature != b"PK\3\4" or len(packed) < item.compress_size:
        raise _damaged(path, item)
    if item.compress_type == zipfile.ZIP_STORED:
        yield from (bytes(packed[at : at + _PIECE]) for at in range(0, len(packed), _PIECE))
        return
    if item.compress_type != zipfile.ZIP_DEFLATED:
        raise refused(path, f"uses an unsupported compression method for {item.filename}", _DAMAGED)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for at in range(0, len(packed), _PIECE):
            waiting = bytes(packed[at : at + _PIECE])
            while waiting and not inflater.eof:
                yield inflater.decompress(waiting, _PIECE)
                waiting = inflater.unconsumed_tail
        while not inflater.eof:
            piece = inflater.decompress(b"", _PIECE)
            if not piece:
                break
            yield piece
    except zlib.error as error:
        raise _damaged(path, item) from error
    if not inflater.eof or inflater.unused_data:
        raise _damaged(path, item)


def _damaged(path: Path, item: zipfile.ZipInfo) -> LoadError:
    return refused(path, f"contains an inconsistent part, {item.filename[:100]}", _DAMAGED)


def _too_much(path: Path, total: str) -> LoadError:
    problem = f"would unpack to {total} bytes, which exceeds the limit"
    return refused(path, problem, "Leave it out, or save its text as a smaller file.")


def described(properties: Properties) -> dict[str, Scalar]:
    """Return metadata from the core properties."""
    names = ("author", "subject", "keywords", "category")
    return scalars({name: getattr(properties, name) for name in names})
