"""Workbooks, e-books, mails and Rich Text; and files of formats that are not read, which are refused by name."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from datetime import date
from email.message import EmailMessage
from pathlib import Path

import openpyxl
import pytest
from openpyxl.comments import Comment

from rag.documents.loaders import load
from rag.errors import LoadError
from rag.types import Document


def read(name: str, data: bytes) -> tuple[Document, list[str]]:
    problems: list[str] = []
    (document,) = load(Path(name), data, on_problem=problems.append)
    return document, problems


def shown(document: Document) -> list[str]:
    return [document.text[b.start : b.end] for b in document.blocks]


# Excel


def workbook_of(book: openpyxl.Workbook) -> bytes:
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def test_every_sheet_is_a_section_with_its_tables() -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Looms"
    for row in (["Loom", "Width", "", "Bought"], ["", "Warp", "Weft", ""], ["A", 1.5, None, date(2019, 3, 1)],
                ["B", None, 90, date(2020, 4, 2)]):  # fmt: skip
        sheet.append(row)
    for merged in ("A1:A2", "B1:C1", "D1:D2"):
        sheet.merge_cells(merged)
    sheet.append([])
    for row in (["Yarns"], ["Yarn", "Share", "Wool"], ["Blue", 0.255, True]):
        sheet.append(row)
    sheet["B8"].number_format = "0.0%"
    book.create_sheet("Empty")
    book.create_sheet("Weavers").append(["Siv", "Ove"])
    document, problems = read("a.xlsx", workbook_of(book))
    assert shown(document) == [
        "Looms",
        "Loom: A; Width / Warp: 1.5; Bought: 2019-03-01",
        "Loom: B; Width / Weft: 90; Bought: 2020-04-02",
        "Yarns",
        "Yarn: Blue; Share: 25.5%; Wool: yes",
        "Empty",
        "Weavers",
        "Siv | Ove",
    ]
    assert document.blocks[4].headings == ("Looms", "Yarns")
    assert document.metadata["sheets"] == "Looms, Empty, Weavers"
    assert problems == []


def test_formulas_without_results_are_named_and_comments_are_read() -> None:
    book = openpyxl.Workbook()
    book.active.append(["Loom", "Price"])
    book.active.append(["A", "=2*21"])
    book.active["A2"].comment = Comment("Sold in May", "Siv")
    document, problems = read("a.xlsx", workbook_of(book))
    assert "Comment: Sold in May" in shown(document)
    assert problems == [
        "1 formula was not read (sheet Sheet): its result is missing; save the file in its program"
    ]


def test_an_empty_workbook_is_refused() -> None:
    with pytest.raises(LoadError, match="has no cells to read"):
        read("a.xlsx", workbook_of(openpyxl.Workbook()))


# E-books

CONTAINER = '<container><rootfiles><rootfile full-path="in/book.opf"/></rootfiles></container>'
BOOK = """<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">
<metadata><dc:title>Weaving</dc:title><dc:creator>Siv Alm</dc:creator></metadata><manifest>
<item id="n" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
<item id="one" href="text/first%20one.xhtml" media-type="application/xhtml+xml"/>
<item id="two" href="two.xhtml" media-type="application/xhtml+xml"/>
<item id="gone" href="gone.xhtml" media-type="application/xhtml+xml"/></manifest>
<spine><itemref idref="n"/><itemref idref="two"/><itemref idref="one"/><itemref idref="gone"/></spine></package>"""
CHAPTERS = {
    "in/nav.xhtml": "<html><body>Contents</body></html>",
    "in/text/first one.xhtml": "<html><body><h1>Weft</h1><p>Across.</p></body></html>",
    "in/two.xhtml": "<html><body><h1>Warp</h1><p>Along.</p></body></html>",
}


def book_of(parts: Mapping[str, str]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {"META-INF/container.xml": CONTAINER, "in/book.opf": BOOK, **parts}.items():
            archive.writestr(name, content)
    return stream.getvalue()


def test_the_chapters_of_a_book_are_read_in_its_order() -> None:
    document, problems = read("a.epub", book_of(CHAPTERS))
    assert shown(document) == ["Warp", "Along.", "Weft", "Across."]
    assert document.title == "Weaving"
    assert document.metadata["author"] == "Siv Alm"
    assert problems == ["1 chapter was not read (gone.xhtml): it is missing, or not a page of text"]


def test_a_protected_book_is_refused() -> None:
    locked = '<encryption><CipherReference URI="in/two.xhtml"/></encryption>'
    with pytest.raises(LoadError, match="protected against copying"):
        read("a.epub", book_of({**CHAPTERS, "META-INF/encryption.xml": locked}))


@pytest.mark.parametrize(("name", "part"), [("a.xlsx", "xl/workbook.xml"), ("a.epub", "META-INF/container.xml")])
def test_a_zip_bomb_is_refused_before_it_is_unpacked(name: str, part: str) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(part, b" " * 30_000_000)
    with pytest.raises(LoadError, match="would unpack to 30,000,000 bytes"):
        read(name, stream.getvalue())


# Mails


def mail_of(body: str, subtype: str = "plain", **headers: str) -> EmailMessage:
    message = EmailMessage()
    for name, value in headers.items():
        message[name] = value
    message.set_content(body, subtype=subtype, cte="base64")
    return message


def test_a_mail_is_read_with_its_head_and_what_is_forwarded() -> None:
    message = mail_of(
        "The loom is söld.\n\nSiv",
        Subject="Löom 7",
        From="Siv <siv@example.org>",
        Date="Mon, 4 Mar 2024 10:00:00 +0100",
    )
    message.add_attachment(b"x", maintype="image", subtype="png", filename="loom.png")
    message.add_attachment(mail_of("I buy it.", Subject="Offer"))
    document, problems = read("a.eml", message.as_bytes())
    assert shown(document) == [
        "Löom 7",
        "From: Siv <siv@example.org>\nDate: Mon, 04 Mar 2024 10:00:00 +0100",
        "The loom is söld.",
        "Siv",
        "Offer",
        "I buy it.",
    ]
    assert (document.title, document.date) == ("Löom 7", date(2024, 3, 4))
    assert problems == ["1 attachment was not read (loom.png): add it as a file"]


def test_a_mail_in_html_is_read_as_a_page() -> None:
    body = "<p>Prices:</p><table><tr><th>Loom<th>Price<tr><td>A<td>9</table><div hidden>pixel</div>"
    document, _ = read("a.eml", mail_of(body, "html", Subject="Prices").as_bytes())
    assert shown(document) == ["Prices", "Prices:", "Loom: A; Price: 9"]


def test_every_text_of_a_mail_is_read_once_and_its_other_parts_are_named() -> None:
    message = mail_of("Above the picture.", Subject="Loom")
    message.add_attachment(b"x", maintype="image", subtype="png", filename="loom.png", disposition="inline")
    message.attach(mail_of("Below it."))
    message.attach(mail_of("BEGIN:VCALENDAR", "calendar"))
    inner = mail_of("Inside.", Subject="Inner")
    inner.add_attachment(mail_of("Deep inside.", Subject="Deep"))
    message.add_attachment(inner)
    document, problems = read("a.eml", message.as_bytes())
    assert shown(document) == [
        "Loom",
        "Above the picture.",
        "Below it.",
        "Inner",
        "Inside.",
        "Deep",
        "Deep inside.",
    ]
    assert problems == ["2 attachments were not read (loom.png, text/calendar): add it as a file"]


def test_of_an_empty_text_and_a_page_the_page_is_read() -> None:
    message = mail_of(" ", Subject="News")
    message.add_alternative("<p>The mill is sold.</p>", subtype="html")
    assert shown(read("a.eml", message.as_bytes())[0]) == ["News", "The mill is sold."]


def test_what_is_no_mail_is_refused() -> None:
    with pytest.raises(LoadError, match="is not a mail"):
        read("a.eml", b"Only words.\n")


# Rich Text

RTF = rb"""{\rtf1\ansi\ansicpg1252{\fonttbl{\f0 Arial;}}Wei\'dfe Wolle\par
\trowd\cellx1\cellx2\cellx3\intbl Yarn\cell Winter\cell Summer\cell\row
\trowd\cellx1\cellx2\cellx3\intbl Blue\cell\cell 8\cell\row\pard After \u8364?5{\pict\pngblip 00ff}\par}"""


@pytest.mark.parametrize("name", ["a.rtf", "a.txt", "upload"])
def test_rich_text_is_read_under_any_name(name: str) -> None:
    document, problems = read(name, RTF)
    assert shown(document) == ["Weiße Wolle", "Yarn: Blue; Summer: 8", "After €5"]
    assert problems == ["1 picture was not read"]


def test_notes_headers_and_the_title_of_rich_text_are_read() -> None:
    source = rb"""{\rtf1\ansi\ansicpg1252{\info{\title Wei\'dfe Wolle}}{\header Mill \b 7\b0\par}{\headerf Mill 7}
Dyed{\footnote {\super 1} Only {\i in} May.} blue.{\*\annotation Ask Siv.}\par {\*\moMath x}}"""
    document, problems = read("a.rtf", source)
    assert shown(document) == [
        "Dyed blue.",
        "Page header: Mill 7",
        "Footnote: 1 Only in May.",
        "Comment: Ask Siv.",
    ]
    assert document.title == "Weiße Wolle"
    assert problems == ["1 equation was not read"]


# Others


@pytest.mark.parametrize(
    ("name", "what"),
    [("a.doc", "Word"), ("a.XLS", "Excel"), ("a.msg", "Outlook"), ("a.odt", "office"), ("a.zip", "archive"),
     ("a.png", "picture"), ("a.mp3", "recording")],
)  # fmt: skip
def test_a_file_of_a_format_that_is_not_read_is_refused_by_name(name: str, what: str) -> None:
    with pytest.raises(LoadError, match=rf"^{name} is .*{what}.*not read") as caught:
        read(name, b"anything")
    assert caught.value.fix


@pytest.mark.parametrize(
    "data",
    [b"%!PS-Adobe-3.0\nshowpage", b"<svg><text>x</text></svg>", b"\0\1\2" * 99, (b"QUJD" * 19 + b"\n") * 2],
)  # fmt: skip
def test_a_file_without_a_known_suffix_is_refused_for_what_it_contains(data: bytes) -> None:
    with pytest.raises(LoadError, match=r"^data\.bin (is|contains)"):
        read("data.bin", data)


def test_text_without_a_known_suffix_is_read() -> None:
    assert shown(read("notes.unknown", b"Some words.")[0]) == ["Some words."]


def small_workbook() -> bytes:
    book = openpyxl.Workbook()
    book.active.append(["kiln", "degrees"])
    return workbook_of(book)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("kilns.pdf", small_workbook(), "an Excel workbook in spite of its name. Rename it to kilns.xlsx."),
        ("kilns.docx", small_workbook(), "an Excel workbook in spite of its name. Rename it to kilns.xlsx."),
        ("kilns.md", small_workbook(), "an Excel workbook in spite of its name. Rename it to kilns.xlsx."),
        ("kilns.docx", b"%PDF-1.7\n", "a PDF in spite of its name. Rename it to kilns.pdf."),
        (
            "kilns.pdf",
            b"<!DOCTYPE html><p>Hot",
            "a page of the web in spite of its name. Rename it to kilns.html.",
        ),
        ("kilns.pdf", b"\x89PNG\r\n\x1a\n\0", r"a picture \(.png\) in spite of its name. Run text recognition"),
        ("kilns.xlsx", b"\xff\xd8\xff\xe0\0", r"a picture \(.jpg\) in spite of its name. Run text recognition"),
    ],
)
def test_a_file_under_the_name_of_another_format_is_called_what_it_is(name: str, data: bytes, said: str) -> None:
    with pytest.raises(LoadError, match=said):
        read(name, data)


def test_a_page_in_markdown_is_under_its_right_name() -> None:
    document, _ = read("kilns.md", b"<html><body><p>The kiln is hot.</p></body></html>")
    assert "The kiln is hot." in document.text
