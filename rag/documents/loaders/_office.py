"""What Word and PowerPoint files share: a guarded opening of their zip archive, and their properties."""

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
"""Bytes that an archive may hold once unpacked."""
_RATIO_LIMIT = 100
"""How many times its size an archive may unpack to; XML of an honest document reaches about 20."""
_RATIO_FLOOR = 20_000_000
"""Bytes below which the ratio does not matter."""
_MOST_PARTS = 10_000
"""A presentation of a thousand slides has about 5,000 parts."""
_MOST_ELEMENTS = 2_000_000
"""Elements in all XML parts, each of which takes about 250 bytes once parsed; a page of text has about 500."""
_PIECE = 65_536
"""Bytes that are unpacked at once."""
_LOCAL_HEAD = struct.Struct("<4s22xHH")
"""The signature of a local file header, and the lengths of the name and the extra field that follow it."""
_DAMAGED = "It seems to be damaged, or made to deceive: save it anew in its program, or leave it out."


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

    No size that the archive states is believed: everything is unpacked once, piece by piece, and counted. What
    is read from the stream later is what was counted.

    Args:
        part: A file that the archive must hold, such as ``word/document.xml``.

    Raises:
        LoadError: It is no such archive, is not what it says, or would unpack to too much.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            items = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        fix = "Save it anew in its program (old .doc and .ppt as .docx and .pptx), or leave it out."
        raise refused(path, f"is not an Office file that can be read ({error})", fix) from error
    if any(item.flag_bits & 1 for item in items):
        raise refused(path, "is encrypted", "Save a copy without the password and add that.")
    if all(item.filename != part for item in items):
        raise refused(path, f"is an archive without {part}", "Check what kind of file it is.")
    if len(items) > _MOST_PARTS:
        raise refused(path, f"holds {len(items):,} parts, and {_MOST_PARTS:,} are the most", "Leave it out.")
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
    """Unpack a part and forget it; its bytes and, for XML, its elements.

    Raises:
        LoadError: It has more of them, or is not what the archive says of it.
    """
    is_xml = item.filename.lower().endswith((".xml", ".rels"))
    size = elements = checksum = 0
    before = b""
    for piece in _pieces(path, data, item):
        size += len(piece)
        if size > most:
            raise _too_much(path, f"more than {size:,}")
        checksum = zlib.crc32(piece, checksum)
        if not is_xml:
            continue
        # A tag may begin at the end of one piece and close at the start of the next.
        both = before + piece
        elements += both.count(b"<") - both.count(b"</") - before.count(b"<") + before.count(b"</")
        if elements > most_elements:
            raise refused(
                path, f"holds more than {_MOST_ELEMENTS:,} elements of XML", "Split it, or leave it out."
            )
        before = both[-1:]
    if size != item.file_size or checksum != item.CRC:
        raise _damaged(path, item)
    return size, elements


def _pieces(path: Path, data: bytes, item: zipfile.ZipInfo) -> Iterator[bytes]:
    """Unpack a part in pieces.

    ``zipfile`` stops at the size that the archive states, although its own ``read`` has unpacked all of it by
    then: a part that goes on beyond that size would not be noticed.

    Raises:
        LoadError: It is damaged, or packed in a way that Office programs do not use.
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
        raise refused(path, f"packs {item.filename} in a way that Office programs do not use", _DAMAGED)
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
    return refused(path, f"holds a part that is not what it says, {item.filename[:100]}", _DAMAGED)


def _too_much(path: Path, total: str) -> LoadError:
    problem = f"would unpack to {total} bytes, which is more than a document holds"
    return refused(path, problem, "Leave it out, or save its text as a smaller file.")


def described(properties: Properties) -> dict[str, Scalar]:
    """Metadata from the core properties."""
    names = ("author", "subject", "keywords", "category")
    return scalars({name: getattr(properties, name) for name in names})
