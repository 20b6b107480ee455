"""PDF pages in reading order, and what is on them besides running text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from handmade_pdf import at, drawn, turned

from rag.documents.loaders import load
from rag.errors import LoadError
from rag.types import Document

LEFT = (
    "Bees are kept behind the orchard, where",
    "the hives face south. Each family of bees",
    "needs fifteen kilos of honey to live until",
    "the willows bloom. The beekeeper weighs",
    "the hives in October and again in March.",
)
RIGHT = (
    "Apples are picked by hand from ladders of",
    "ash. The early ones are pressed at once,",
    "while late ones lie in the cellar on straw",
    "and are turned every week, so that none of",
    "them rots before the market in Advent.",
)


def read(data: bytes) -> tuple[Document, list[str]]:
    problems: list[str] = []
    (document,) = load(Path("a.pdf"), data, on_problem=problems.append)
    return document, problems


def text_of(data: bytes) -> str:
    return read(data)[0].text


def side_by_side(lower: float = 0.0) -> Iterator[str]:
    """Two columns that are drawn row by row, the right one maybe a little lower."""
    for number, (left, right) in enumerate(zip(LEFT, RIGHT, strict=True)):
        yield at(50, 700 - 14 * number, left) + at(310, 700 - 14 * number - lower, right)


@pytest.mark.parametrize("lower", [0.0, 6.0])
@pytest.mark.parametrize("extra", ["", "/Rotate 90"])
def test_columns_are_read_one_after_the_other(lower: float, extra: str) -> None:
    title = at(50, 760, "The farm above the lake: what happens there in the course of a year", 14)
    document, _ = read(drawn([title + "".join(side_by_side(lower)) + at(290, 40, "Page 7")], extra))
    shown = [document.text[b.start : b.end] for b in document.blocks]
    assert shown[0].startswith("The farm above the lake")
    assert " ".join(" ".join(shown[1:-1]).split()) == " ".join((*LEFT, *RIGHT))
    assert shown[-1] == "Page 7"


def test_three_columns_are_read_one_after_the_other() -> None:
    columns = [[line[first : first + 24] for line in LEFT] for first in (0, 6, 12)]
    content = "".join(
        at(40 + 180 * x, 700 - 14 * y, columns[x][y]) for y in range(len(LEFT)) for x in range(len(columns))
    )
    assert text_of(drawn([content])).split("\n") == [line.strip() for column in columns for line in column]


PLACES = {
    1: lambda number: (100 + 14 * number, 100),
    2: lambda number: (500, 100 + 14 * number),
    3: lambda number: (500 - 14 * number, 700),
}


@pytest.mark.parametrize("quarter", [1, 2, 3])
@pytest.mark.parametrize("rotation", [0, 90, 270])
def test_turned_text_is_read_line_by_line(quarter: int, rotation: int) -> None:
    content = "".join(turned(quarter, *PLACES[quarter](number), line) for number, line in enumerate(LEFT))
    assert text_of(drawn([content], f"/Rotate {rotation}")).split("\n") == list(LEFT)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_page_that_is_only_shown_turned_is_read_from_the_top(rotation: int) -> None:
    content = "".join(at(50, 700 - 14 * number, line) for number, line in enumerate(LEFT))
    assert text_of(drawn([content], f"/Rotate {rotation}")).split("\n") == list(LEFT)


def test_cells_in_columns_are_rows_of_a_table() -> None:
    rows = [("Hive", "Spring", "Autumn"), ("A", "31", ""), ("B", "", "44"), ("C", "29", "40")]
    places = (50, 180, 300)
    content = "".join(
        at(x, 700 - 16 * y, cell)
        for y, row in enumerate(rows)
        for x, cell in zip(places, row, strict=True)
        if cell
    )
    document, _ = read(drawn([at(50, 740, "What the hives weigh in kilos, all with their lids on") + content]))
    assert [document.text[b.start : b.end] for b in document.blocks if b.kind == "row"] == [
        "Hive: A; Spring: 31",
        "Hive: B; Autumn: 44",
        "Hive: C; Spring: 29; Autumn: 40",
    ]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["The pollina-", "tion of plums"], "pollination"),
        (["Some long-", "lived queens"], "long-lived"),
        (["Our co-workers say: co-", "workers"], "say: co-workers"),
        (["The apiary, an api-", "ary"], "an apiary"),
        (["An up-to-", "date list"], "up-to-date"),
        (["With or with-", "out honey, out of it"], "without honey"),
        (["Queen bees: the queen-", "bees"], "queen-bees"),
        (["Mrs Lind-", "Berg keeps them"], "Lind-Berg"),
    ],
)
def test_words_that_are_divided_at_line_ends_are_joined(lines: list[str], expected: str) -> None:
    filled = "".join(at(50, 700 - 14 * number, line) for number, line in enumerate(lines))
    assert expected in " ".join(text_of(drawn([filled])).split())


# Scans


def scanned(*stamps: str) -> bytes:
    """Pages with one image that covers them, and a line of text."""
    image = "q 600 0 0 800 0 0 cm BI /W 1 /H 1 /CS /G /BPC 8 ID \x00 EI Q\n"
    return drawn([image + at(50, 20, stamp) for stamp in stamps])


def test_the_stamp_of_a_scanner_is_no_text() -> None:
    with pytest.raises(LoadError, match="scanned images"):
        read(scanned("Scanned by PageEater 1/2", "Scanned by PageEater 2/2"))


def test_pages_with_a_stamp_on_an_image_count_as_scanned() -> None:
    readable = drawn(["".join(at(50, 700 - 14 * number, line) for number, line in enumerate(LEFT))])
    assert read(readable)[1] == []
    document, problems = read(scanned("Office copy 1", "Office copy 2", "Plan of the orchard"))
    assert document.text == "Plan of the orchard"
    assert problems == [
        "pages with images but no text were not read: 1, 2, 3. Text recognition is turned off (ingest.ocr)."
    ]


TESSERACT = """#!/bin/sh
if [ "$1" = --list-langs ]; then printf 'List:\\nosd\\nnld\\neng\\n'; exit; fi
cat > /dev/null
echo "Recognized with $4"
"""


def test_scanned_pages_are_recognized_where_tesseract_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "tesseract"
    program.write_text(TESSERACT)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    problems: list[str] = []
    (document,) = load(Path("a.pdf"), scanned("Scan 1", "Scan 2"), on_problem=problems.append, ocr_s=20.0)
    assert [(document.text[b.start : b.end], b.page) for b in document.blocks] == [
        ("Recognized with eng+nld", 1),
        ("Recognized with eng+nld", 2),
    ]
    assert problems == ["the text of pages 1, 2 was recognized in images and may contain mistakes"]


def test_without_tesseract_the_problem_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LoadError) as caught:
        list(load(Path("a.pdf"), scanned("Scan 1"), ocr_s=20.0))
    assert "Install tesseract" in caught.value.fix


# Forms and remarks


def form(*fields: str, content: str = "") -> bytes:
    """A page with these annotations, which are fields of its form."""
    first = 6
    references = " ".join(f"{first + number} 0 R" for number in range(len(fields)))
    data = drawn([content], f"/Annots [{references}]", [field.encode() for field in fields])
    return data.replace(b"/Type /Catalog", b"/Type /Catalog /AcroForm << /Fields [%s] >>" % references.encode())


def widget(name: str, rest: str, box: str) -> str:
    return f"<< /Type /Annot /Subtype /Widget /T ({name}) /Rect [{box}] {rest} >>"


def test_values_of_a_form_are_read_with_their_labels() -> None:
    document, _ = read(
        form(
            widget("f1", "/FT /Tx /V (Hanna Ek)", "150 695 300 711"),
            widget("f2", "/FT /Tx /V (17)", "150 675 300 691"),
            widget("f3", "/FT /Tx /V (unlabelled) /TU (Remark)", "150 375 300 391"),
            widget("f4", "/FT /Tx", "150 355 300 371"),
            widget("f5", "/FT /Btn /V /Yes /AS /Yes /AP << /N << /Yes null >> >>", "50 640 60 650"),
            content=at(50, 700, "Name of keeper:") + at(50, 680, "Number of hives:") + at(66, 642, "Has a smoker"),
        )
    )
    shown = [document.text[b.start : b.end] for b in document.blocks if b.kind == "row"]
    assert shown[:3] == ["Name of keeper: Hanna Ek", "Number of hives: 17", "Remark: unlabelled"]
    assert document.blocks[-1].page == 1


def test_remarks_on_a_page_are_read_and_hidden_ones_are_not() -> None:
    note = "<< /Type /Annot /Subtype /{} /Rect [10 10 90 30] /Contents ({}) {} >>"
    document, _ = read(
        form(
            note.format("FreeText", "Paid on 3 May", ""),
            note.format("Text", "Ask Hanna", ""),
            note.format("Text", "secret", "/F 2"),
            note.format("Link", "go there", ""),
            content=at(50, 700, "Invoice"),
        )
    )
    assert document.text.split("\n\n") == ["Invoice", "Note: Paid on 3 May", "Note: Ask Hanna"]


def test_a_form_without_printed_text_is_read() -> None:
    assert text_of(form(widget("keeper", "/FT /Tx /V (Hanna Ek)", "150 695 300 711"))) == "keeper: Hanna Ek"


def test_a_file_attached_to_a_page_is_named() -> None:
    _, problems = read(
        form("<< /Type /Annot /Subtype /FileAttachment /Rect [1 1 9 9] >>", content=at(50, 700, "See the sheet."))
    )
    assert problems == ["1 attached file was not read (page 1)"]
