"""PDF, Word and PowerPoint, with files made on the spot."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import docx
import pptx
import pytest
from docx.document import Document as WordFile
from pptx.presentation import Presentation
from pptx.util import Inches

from rag.documents.loaders import load
from rag.errors import LoadError
from rag.types import Document


def read(name: str, data: bytes) -> Document:
    (document,) = load(Path(name), data)
    return document


def shown(document: Document, kind: str | None = None) -> list[str]:
    return [document.text[b.start : b.end] for b in document.blocks if kind in (None, b.kind)]


# PDF

_PADDING = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")


def _rc4(key: bytes, data: bytes) -> bytes:
    state = list(range(256))
    j = 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    out = bytearray()
    i = j = 0
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def make_pdf(
    pages: Sequence[Sequence[str]],
    info: str = "",
    outline: tuple[str, int] | None = None,
    password: str | None = None,
) -> bytes:
    """A PDF of text lines in Helvetica; with a password (maybe empty) it is encrypted with 40-bit RC4."""
    first = 6
    kids = " ".join(f"{first + 2 * i} 0 R" for i in range(len(pages)))
    catalog = "<< /Type /Catalog /Pages 2 0 R" + (" /Outlines 4 0 R" if outline else "") + " >>"
    objects: dict[int, bytes] = {
        1: catalog.encode(),
        2: f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        3: b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        4: b"<< /Type /Outlines /First 5 0 R /Last 5 0 R /Count 1 >>",
        5: b"null",
    }
    if outline:
        title, page = outline
        objects[5] = f"<< /Title ({title}) /Parent 4 0 R /Dest [{first + 2 * page} 0 R /Fit] >>".encode()
    key = b""
    encrypt = b""
    if password is not None:
        user = (password.encode() + _PADDING)[:32]
        owner = _rc4(_md5(_PADDING)[:5], user)
        key = _md5(user + owner + struct.pack("<i", -4) + b"0123456789abcdef")[:5]
        check = _rc4(key, _PADDING)
        encrypt = b"<< /Filter /Standard /V 1 /R 2 /P -4 /O <%s> /U <%s> >>" % (
            owner.hex().encode(),
            check.hex().encode(),
        )
    for i, lines in enumerate(pages):
        number = first + 2 * i
        drawn = " ".join(f"({line}) Tj T*" for line in lines)
        stream = f"BT /F1 10 Tf 12 TL 40 780 Td {drawn} ET".encode()
        if key:
            stream = _rc4(_md5(key + struct.pack("<I", number + 1)[:3] + b"\0\0")[:10], stream)
        objects[number] = (
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents {number + 1} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        ).encode()
        objects[number + 1] = b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream)
    last = max(objects)
    identity = b"0123456789abcdef".hex().encode()
    trailer = b"/Root 1 0 R /Size %d /ID [<%s> <%s>]" % (last + 3, identity, identity)
    if info:
        objects[last + 1] = f"<< {info} >>".encode()
        trailer += b" /Info %d 0 R" % (last + 1)
    if encrypt:
        objects[last + 2] = encrypt
        trailer += b" /Encrypt %d 0 R" % (last + 2)
    out = io.BytesIO()
    out.write(b"%PDF-1.4\n")
    offsets: dict[int, int] = {}
    for number, body in sorted(objects.items()):
        offsets[number] = out.tell()
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (last + 3))
    for number in range(1, last + 3):
        out.write(b"%010d 00000 %c \n" % (offsets.get(number, 0), b"n" if number in offsets else b"f"))
    out.write(b"trailer\n<< %s >>\nstartxref\n%d\n%%%%EOF\n" % (trailer, start))
    return out.getvalue()


LONG = "A full line of a paragraph that goes all the way to the right margin,"


def test_a_pdf_gives_paragraphs_with_their_pages() -> None:
    pages = [["Results", LONG, LONG, "and ends here.", LONG, "to end again."], ["On page two."]]
    document = read("a.pdf", make_pdf(pages))
    assert shown(document) == [
        "Results", f"{LONG}\n{LONG}\nand ends here.", f"{LONG}\nto end again.", "On page two.",
    ]  # fmt: skip
    assert [b.page for b in document.blocks] == [1, 1, 1, 2]
    assert document.title is None


def test_the_information_of_a_pdf_describes_it() -> None:
    info = "/Title (The report) /Author (Ada) /CreationDate (D:20230817105302+00'00')"
    document = read("a.pdf", make_pdf([["Words."]], info))
    assert (document.title, document.date) == ("The report", date(2023, 8, 17))
    assert document.metadata == {"author": "Ada", "pages": 1}


@pytest.mark.parametrize(
    "title", ["Microsoft Word - draft", "report_final.docx", "Untitled", " ", "0000764478-23"]
)
def test_a_title_that_a_program_wrote_is_none(title: str) -> None:
    assert read("a.pdf", make_pdf([["Words."]], f"/Title ({title})")).title is None


def test_the_outline_of_a_pdf_names_headings() -> None:
    document = read(
        "a.pdf", make_pdf([["Before it."], ["Risk factors", LONG, "more."]], outline=("Risk factors", 1))
    )
    assert shown(document, "heading") == ["Risk factors"]
    assert [b.headings for b in document.blocks] == [(), ("Risk factors",), ("Risk factors",)]


def test_an_empty_password_opens_a_pdf() -> None:
    assert shown(read("a.pdf", make_pdf([["Readable words."]], password=""))) == ["Readable words."]


def test_a_real_password_is_asked_for() -> None:
    with pytest.raises(LoadError, match="encrypted with a password") as caught:
        read("a.pdf", make_pdf([["Secret."]], password="abc"))
    assert caught.value.__cause__ is not None


def test_a_pdf_without_text_is_said_to_be_scanned() -> None:
    with pytest.raises(LoadError, match="scanned") as caught:
        read("a.pdf", make_pdf([[], []]))
    assert "OCR" in caught.value.fix


@pytest.mark.parametrize("data", [b"%PDF-1.4 junk", b"no pdf at all", make_pdf([["Words."]])[:200]])
def test_a_broken_pdf_is_refused(data: bytes) -> None:
    with pytest.raises(LoadError, match=r"^a\.pdf"):
        read("a.pdf", data)


# Word


def saved(file: WordFile | Presentation) -> bytes:
    stream = io.BytesIO()
    file.save(stream)
    return stream.getvalue()


def test_a_word_file_gives_headings_paragraphs_and_rows() -> None:
    file = docx.Document()
    file.core_properties.author = "Ada"
    file.add_heading("The plan", 1)
    file.add_paragraph("First words.")
    file.add_paragraph("an item", style="List Bullet")
    file.add_heading("Costs", 2)
    table = file.add_table(rows=2, cols=2)
    for row, cells in zip(table.rows, (("name", "size"), ("a", "1")), strict=True):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    file.add_paragraph("Last\twords.")
    document = read("a.docx", saved(file))
    assert document.title == "The plan"
    assert document.metadata["author"] == "Ada"
    assert shown(document) == [
        "The plan",
        "First words.",
        "- an item",
        "Costs",
        "name: a; size: 1",
        "Last\twords.",
    ]
    assert [b.kind for b in document.blocks] == ["heading", "text", "text", "heading", "row", "text"]
    assert document.blocks[-1].headings == ("The plan", "Costs")


def test_a_merged_cell_is_read_once() -> None:
    file = docx.Document()
    table = file.add_table(rows=1, cols=3)
    table.rows[0].cells[0].merge(table.rows[0].cells[1]).text = "wide"
    table.rows[0].cells[2].text = "x"
    assert shown(read("a.docx", saved(file))) == ["wide | x"]


def test_tracked_insertions_count_and_deletions_do_not() -> None:
    from docx.oxml import parse_xml
    from docx.oxml.ns import nsdecls

    file = docx.Document()
    paragraph = file.add_paragraph("Kept")
    for tag, inner in (("ins", "<w:t> new</w:t>"), ("del", "<w:delText> old</w:delText>")):
        paragraph._p.append(
            parse_xml(f"<w:{tag} {nsdecls('w')} w:id='1' w:author='a'><w:r>{inner}</w:r></w:{tag}>")
        )
    assert shown(read("a.docx", saved(file))) == ["Kept new"]


# PowerPoint


def test_a_presentation_gives_slides_as_pages() -> None:
    file = pptx.Presentation()
    slide = file.slides.add_slide(file.slide_layouts[1])
    assert slide.shapes.title is not None
    slide.shapes.title.text = "First slide"
    slide.placeholders[1].text = "a point\nanother point"
    assert slide.notes_slide.notes_text_frame is not None
    slide.notes_slide.notes_text_frame.text = "Say hello."
    other = file.slides.add_slide(file.slide_layouts[6])
    group = other.shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, Inches(1), Inches(1)).text_frame.text = "in a group"
    table = other.shapes.add_table(1, 2, 0, 0, Inches(2), Inches(1)).table
    table.cell(0, 0).text, table.cell(0, 1).text = "a", "b"
    document = read("a.pptx", saved(file))
    assert document.title == "First slide"
    assert document.metadata["slides"] == 2
    assert shown(document) == [
        "First slide",
        "a point",
        "another point",
        "Notes: Say hello.",
        "in a group",
        "a | b",
    ]
    assert [b.page for b in document.blocks] == [1, 1, 1, 1, 2, 2]
    assert document.blocks[1].headings == ("First slide",)
    assert document.blocks[-1].kind == "row"


# Archives


@pytest.mark.parametrize("suffix", ["docx", "pptx"])
def test_what_is_no_archive_is_refused(suffix: str) -> None:
    with pytest.raises(LoadError, match="not a readable Office file"):
        read(f"a.{suffix}", b"PK\x03\x04 but no more")


@pytest.mark.parametrize(("suffix", "part"), [("docx", "word/document.xml"), ("pptx", "ppt/presentation.xml")])
def test_a_zip_bomb_is_refused_before_it_is_unpacked(suffix: str, part: str) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(part, b" " * 30_000_000)
    with pytest.raises(LoadError, match="would unpack to 30,000,000 bytes"):
        read(f"a.{suffix}", stream.getvalue())


@pytest.mark.parametrize(("suffix", "part"), [("docx", "word/document.xml"), ("pptx", "ppt/presentation.xml")])
@pytest.mark.parametrize("content", [b"<broken", b"<a/>"])
def test_an_archive_with_broken_parts_is_refused(suffix: str, part: str, content: bytes) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(part, content)
    with pytest.raises(LoadError, match="is not a readable"):
        read(f"a.{suffix}", stream.getvalue())


def test_one_kind_of_office_file_under_the_suffix_of_another_is_named() -> None:
    with pytest.raises(LoadError, match="PowerPoint presentation in spite of its name"):
        read("a.docx", saved(pptx.Presentation()))


def test_external_entities_in_a_word_file_are_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("hidden words")
    original = io.BytesIO(saved(docx.Document()))
    changed = io.BytesIO()
    with zipfile.ZipFile(original) as source, zipfile.ZipFile(changed, "w") as target:
        for item in source.infolist():
            content = source.read(item)
            if item.filename == "word/document.xml":
                body = (
                    f'<!DOCTYPE x [<!ENTITY s SYSTEM "{secret.as_uri()}">]>'
                    '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">'
                    "<w:body><w:p><w:r><w:t>shown &s;</w:t></w:r></w:p></w:body></w:document>"
                )
                content = body.encode()
            target.writestr(item, content)
    assert "hidden" not in read("a.docx", changed.getvalue()).text
