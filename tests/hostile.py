"""Files that want more than they should have: small, made here, and each against another format."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from functools import cache

import docx
from handmade_pdf import assembled

DOCUMENT = "word/document.xml"
_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def swelling_pdf(megabytes: int) -> bytes:
    """A PDF of a few kilobytes whose page has so many megabytes of text: each takes PDFium a hundred."""
    drawn = b"BT /F1 12 Tf " + b"(aaaaaaaaaa) Tj " * (megabytes * 1_000_000 // 16) + b"ET"
    stream = zlib.compress(zlib.compress(drawn, 9), 9)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [4 0 R] /Count 1 >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 5 0 R "
        b"/Resources << /Font << /F1 3 0 R >> >> >>",
        b"<< /Length %d /Filter [/FlateDecode /FlateDecode] >>\nstream\n%s\nendstream" % (len(stream), stream),
    ]
    return assembled(objects)


def word_file(body: bytes, declaration: bytes = b"") -> bytes:
    """A Word file with this body."""
    original, changed = io.BytesIO(), io.BytesIO()
    docx.Document().save(original)
    content = b'%s<w:document xmlns:w="%s"><w:body>%s</w:body></w:document>' % (declaration, _WORD.encode(), body)
    with zipfile.ZipFile(original) as source, zipfile.ZipFile(changed, "w", zipfile.ZIP_DEFLATED) as target:
        for item in source.infolist():
            target.writestr(item.filename, content if item.filename == DOCUMENT else source.read(item))
    return changed.getvalue()


def lying_word_file(megabytes: int, stated: int = 5_000, *, honest_checksum: bool = False) -> bytes:
    """A Word file with a part that says that it is short, and is not.

    Args:
        honest_checksum: Whether the checksum is that of the bytes that are stated: then ``zipfile`` sees nothing.
    """
    data = bytearray(word_file(b" " * (megabytes * 1_000_000)))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start = archive.read(DOCUMENT)[:stated]
        item = archive.getinfo(DOCUMENT)
        place = item.header_offset
    checksum = struct.pack("<I", zlib.crc32(start) if honest_checksum else item.CRC)
    name = DOCUMENT.encode()
    at = data.rindex(b"PK\1\2", 0, data.rindex(name))
    for first in (place + 14, at + 16):  # In the local header, and in the directory.
        data[first : first + 4] = checksum
        data[first + 8 : first + 12] = struct.pack("<I", stated)
    return bytes(data)


def laughing_word_file() -> bytes:
    """A Word file with entities of entities, a billion in the end."""
    entities = [b'<!ENTITY a0 "ha">']
    entities += [b'<!ENTITY a%d "%s">' % (number, b"&a%d;" % (number - 1) * 10) for number in range(1, 10)]
    declaration = b"<!DOCTYPE w [%s]>" % b"".join(entities)
    return word_file(b'<w:p w:x="&a9;"><w:r><w:t>&a9;</w:t></w:r></w:p>', declaration)


def crowded_archive(parts: int) -> bytes:
    """An archive with so many empty parts, and a document."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(DOCUMENT, "<a/>")
        for number in range(parts):
            archive.writestr(f"word/{number}.xml", "")
    return made.getvalue()


@cache
def files() -> dict[str, tuple[bytes, str]]:
    """Hostile files by name, and what is said of each where 256 MB, some seconds and 2 MB of text are the most."""
    keys = {f"key {number}": {"inner": number} for number in range(20_000)}
    return {
        "swelling.pdf": (swelling_pdf(6), "ingest.parse_"),
        "lying.docx": (lying_word_file(100), "would unpack to more than"),
        "cunning.docx": (lying_word_file(30, honest_checksum=True), "would unpack to more than"),
        "floor.docx": (word_file(b"<w:p/>" * 2_100_000), "XML elements"),
        "laughing.docx": (laughing_word_file(), "not a readable Word file"),
        "crowded.docx": (crowded_archive(10_000), "parts"),
        "numbers.json": (b"[" + b"[]," * 4_000_000 + b"[]]", "ingest.parse_"),
        "deep.json": (b"[" * 1_000_000, "nested too deeply"),
        "long-names.json": (json.dumps({"n" * 1_000_000: keys}).encode(), "ingest.parse_"),
        "rows.csv": (b"1\n" * 2_000_000, "ingest.parse_"),
        "tags.html": (b"<p>a" * 2_000_000, "ingest.parse_"),
        "bad.jsonl": (b'{"text": "One good line."}\n' + b"x\n" * 100_000, "99,900 more problems"),
        "cells.ipynb": (b'{"cells": [' + b"{}," * 4_000_000 + b"{}]}", "ingest.parse_"),
        "headings.md": (b"# a\n" * 1_500_000, "ingest.parse_"),
        "large.txt": (b"Many words go on. " * 150_000, "ingest.max_text_mb"),
    }
