"""What stands beside the running text of Office files is read, and what cannot be read is named."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import docx
import pptx
from docx.document import Document as WordFile
from docx.opc.packuri import PackURI
from docx.opc.part import Part
from docx.oxml import parse_xml
from docx.shared import Cm
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

from rag.documents.loaders import load
from tests.test_loaders_office import saved

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def read(name: str, data: bytes) -> tuple[list[str], list[str]]:
    """The blocks and the problems."""
    problems: list[str] = []
    (document,) = load(Path(name), data, on_problem=problems.append)
    return [document.text[b.start : b.end] for b in document.blocks], problems


def add_notes(file: WordFile, kind: str, texts: dict[str, str]) -> None:
    """Give a Word file a part of footnotes or endnotes."""
    notes = "".join(
        f'<w:{kind} w:id="{key}"><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:{kind}>' for key, text in texts.items()
    )
    xml = f'<w:{kind}s xmlns:w="{WORD}">{notes}</w:{kind}s>'
    content = f"application/vnd.openxmlformats-officedocument.wordprocessingml.{kind}s+xml"
    part = Part(PackURI(f"/word/{kind}s.xml"), content, xml.encode(), file.part.package)
    file.part.relate_to(part, f"{RELATIONS}/{kind}s")


def refer(paragraph: object, kind: str, key: str) -> None:
    run = f'<w:r xmlns:w="{WORD}"><w:{kind}Reference w:id="{key}"/></w:r>'
    paragraph._p.append(parse_xml(run))  # type: ignore[attr-defined]


def test_notes_follow_the_paragraph_that_refers_to_them() -> None:
    file = docx.Document()
    refer(file.add_paragraph("The mill grinds rye."), "footnote", "7")
    refer(file.add_paragraph("It stands still in May."), "endnote", "2")
    file.add_paragraph("It is red.")
    add_notes(file, "footnote", {"-1": "", "7": "Only on weekdays.", "8": "Nobody refers to this."})
    add_notes(file, "endnote", {"2": "Except in 1987."})
    assert read("a.docx", saved(file)) == (
        [
            "The mill grinds rye.", "Footnote 1: Only on weekdays.",
            "It stands still in May.", "Endnote 1: Except in 1987.", "It is red.",
        ],
        [],
    )  # fmt: skip


def test_a_note_in_a_table_follows_the_table() -> None:
    file = docx.Document()
    table = file.add_table(2, 2)
    for cell, text in zip(
        (c for row in table.rows for c in row.cells), ("Flour", "Price", "Rye", "9"), strict=True
    ):
        cell.text = text
    refer(table.cell(1, 1).paragraphs[0], "footnote", "1")
    add_notes(file, "footnote", {"1": "A sack of 25 kilos."})
    assert read("a.docx", saved(file))[0] == ["Flour: Rye; Price: 9", "Footnote 1: A sack of 25 kilos."]


def test_comments_are_read_with_their_author() -> None:
    file = docx.Document()
    paragraph = file.add_paragraph("The stones are dressed in June.")
    file.add_comment(paragraph.runs, "Moved to July.", author="Tove", initials="T")
    assert read("a.docx", saved(file))[0] == [
        "The stones are dressed in June.", "Comment by Tove: Moved to July.",
    ]  # fmt: skip


def test_page_headers_and_footers_are_read_once() -> None:
    file = docx.Document()
    file.add_paragraph("Words.")
    file.sections[0].header.paragraphs[0].text = "Deed KV-88"
    file.sections[0].footer.paragraphs[0].text = "Page 1 of 9"
    file.sections[0].even_page_header.paragraphs[0].text = "Deed KV-88"
    file.sections[0].first_page_footer.paragraphs[0].text = "The miller's guild"
    assert read("a.docx", saved(file))[0] == [
        "Page header: Deed KV-88",
        "Words.",
        "Page footer: The miller's guild",
    ]


def test_a_text_box_follows_the_paragraph_it_is_anchored_in() -> None:
    file = docx.Document()
    paragraph = file.add_paragraph("Around the box.")
    box = (
        f'<w:r xmlns:w="{WORD}" xmlns:v="urn:schemas-microsoft-com:vml"><w:pict><v:textbox><w:txbxContent>'
        "<w:p><w:r><w:t>In the box.</w:t></w:r></w:p></w:txbxContent></v:textbox></w:pict></w:r>"
    )
    paragraph._p.insert(0, parse_xml(box))
    assert read("a.docx", saved(file))[0] == ["Around the box.", "In the box."]


def test_symbols_and_fields_of_forms_are_read() -> None:
    file = docx.Document()
    paragraph = file.add_paragraph("At 4 ")
    begin, data = '<w:fldChar w:fldCharType="begin"><w:ffData>', "</w:ffData></w:fldChar>"
    forms = (
        '<w:checkBox><w:default w:val="0"/><w:checked/></w:checkBox>',
        '<w:checkBox><w:default w:val="0"/></w:checkBox>',
        '<w:ddList><w:result w:val="1"/><w:listEntry w:val="rye"/><w:listEntry w:val="oats"/></w:ddList>',
    )
    fields = (
        '<w:sym w:font="Symbol" w:char="F0B0"/><w:t>C </w:t><w:sym w:font="Wingdings" w:char="F0FC"/>'
        f"{''.join(begin + form + data for form in forms)}"
        '<w:sym w:font="Runes" w:char="F041"/>'
    )
    paragraph._p.append(parse_xml(f'<w:r xmlns:w="{WORD}">{fields}</w:r>'))
    assert read("a.docx", saved(file)) == (["At 4 °C ✓☒☐oats"], ["1 symbol was not read: its font is not known"])


def test_what_a_word_file_has_besides_text_is_named_with_its_place() -> None:
    file = docx.Document()
    file.add_heading("Wheels", 1)
    paragraph = file.add_paragraph("The ratio is ")
    math = "http://schemas.openxmlformats.org/officeDocument/2006/math"
    equation = f'<m:oMath xmlns:m="{math}"><m:f><m:num><m:r><m:t>a</m:t></m:r></m:num></m:f></m:oMath>'
    paragraph._p.append(parse_xml(equation))
    file.add_picture(io.BytesIO(PIXEL), width=Cm(5))
    file.add_picture(io.BytesIO(PIXEL), width=Cm(1))
    shown, problems = read("a.docx", saved(file))
    assert "The ratio is a" in shown
    assert problems == [
        "1 equation was not read (under “Wheels”): only its characters are, without fractions and powers",
        "1 picture was not read (under “Wheels”): text in pictures is not recognized",
    ]


def test_slides_give_charts_comments_and_name_pictures() -> None:
    file = pptx.Presentation()
    slide = file.slides.add_slide(file.slide_layouts[6])
    data = CategoryChartData()
    data.categories = ["May", "June"]
    data.add_series("Sacks", (12, 15))
    box = (0, 0, Inches(4), Inches(3))
    chart = slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, *box, data).chart
    chart.has_title = True
    chart.chart_title.text_frame.text = "Milled"
    slide.shapes.add_picture(io.BytesIO(PIXEL), *box)
    shown, problems = read("a.pptx", saved(file))
    assert shown[:3] == ["Chart: Milled", "May; Sacks: 12", "June; Sacks: 15"]
    assert problems == ["1 picture was not read (slide 1): text in pictures is not recognized"]
