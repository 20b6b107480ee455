"""Tables of every format: a row names its columns wherever it is from, and an empty cell shifts nothing."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import docx
import pptx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pptx.util import Inches

from rag.documents.chunking import ChunkingRule, chunk_document
from rag.documents.loaders import load
from rag.types import Document
from tests.test_loaders_office import saved

Rows = Sequence[Sequence[str]]

PRICES = [["Room", "Winter", "Summer", "View"], ["Attic", "", "80", "lake"], ["Cellar", "45", "60", ""]]
NAMED = ["Room: Attic; Summer: 80; View: lake", "Room: Cellar; Winter: 45; Summer: 60"]


def read(name: str, data: bytes | str) -> Document:
    (document,) = load(Path(name), data.encode() if isinstance(data, str) else data)
    return document


def rows_of(document: Document) -> list[str]:
    return [document.text[b.start : b.end] for b in document.blocks if b.kind == "row"]


def csv_of(rows: Rows) -> bytes:
    return "\n".join(",".join(row) for row in rows).encode()


def markdown_of(rows: Rows) -> bytes:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]).encode()


def html_of(rows: Rows) -> bytes:
    head, *body = (
        "".join(f"<{tag}>{cell}</{tag}>" for cell in row) for row, tag in zip(rows, tags(rows), strict=True)
    )
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in body)}</table>".encode()


def tags(rows: Rows) -> list[str]:
    return ["th", *["td"] * (len(rows) - 1)]


def docx_of(rows: Rows) -> bytes:
    file = docx.Document()
    table = file.add_table(len(rows), len(rows[0]))
    for row, cells in zip(table.rows, rows, strict=True):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    return saved(file)


def pptx_of(rows: Rows) -> bytes:
    file = pptx.Presentation()
    slide = file.slides.add_slide(file.slide_layouts[6])
    table = slide.shapes.add_table(len(rows), len(rows[0]), 0, 0, Inches(4), Inches(2)).table
    for y, cells in enumerate(rows):
        for x, text in enumerate(cells):
            table.cell(y, x).text = text
    return saved(file)


WRITERS = {"csv": csv_of, "md": markdown_of, "html": html_of, "docx": docx_of, "pptx": pptx_of}


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_row_names_its_columns_and_an_empty_cell_shifts_nothing(suffix: str) -> None:
    assert rows_of(read(f"a.{suffix}", WRITERS[suffix](PRICES))) == NAMED


class Words:
    """Counts a word as a token."""

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def starts(self, text: str) -> list[int]:
        return [at for at, c in enumerate(text) if not c.isspace() and (at == 0 or text[at - 1].isspace())]


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_passage_of_a_long_table_names_the_columns(suffix: str) -> None:
    rows = [["Keeper", "Tower", "Lamp"], *([f"Keeper {n}", f"tower {n}", f"lamp {n}"] for n in range(60))]
    document = read(f"a.{suffix}", WRITERS[suffix](rows))
    chunks = chunk_document(document, Words(), ChunkingRule(60, 66))
    assert len(chunks) > 5
    for chunk in chunks:
        first = document.text[chunk.start : chunk.end].split("\n")[0]
        assert first.startswith("Keeper: Keeper ")
        assert "; Tower: tower " in first
        assert "; Lamp: lamp " in first


@given(
    st.lists(st.lists(st.sampled_from(["", "x", "7", "7 m"]), min_size=3, max_size=3), min_size=1, max_size=5),
    st.sampled_from(["csv", "md", "html"]),
)
@settings(max_examples=60, deadline=None)
def test_a_value_is_always_under_its_own_name(body: list[list[str]], suffix: str) -> None:
    rows = [["Alpha", "Beta", "Gamma", "Delta"], *([f"row {n}", *cells] for n, cells in enumerate(body))]
    expected = [
        "; ".join(f"{name}: {cell}" for name, cell in zip(rows[0], row, strict=True) if cell) for row in rows[1:]
    ]
    assert rows_of(read(f"a.{suffix}", WRITERS[suffix](rows))) == expected


@pytest.mark.parametrize(
    ("source", "first"),
    [
        ("Port,2021,2022\nOslo,7,9\nBergen,8,6", "Port: Oslo; 2021: 7; 2022: 9"),
        ("Port,2022\nOslo,7\nBergen,8", "Port: Oslo; 2022: 7"),
        ("Shop,8,9,10,11\nBaker,3,9,4,1\nGrocer,1,0,2,7", "Shop: Baker; 8: 3; 9: 9; 10: 4; 11: 1"),
        ("Day,2024-05-01,2024-05-02\nGuests,12,15", "Day: Guests; 2024-05-01: 12; 2024-05-02: 15"),
        ("Pump,On,Off,On,Off\nA,1,2,3,4", "Pump: A; On: 1; Off: 2; On (2): 3; Off (2): 4"),
        ("Tools of the yard,,\n,,\nTool,Hook,Count\nAdze,4,2", "Tool: Adze; Hook: 4; Count: 2"),
        ("Tank,2023,,2024,\n,Level,Flow,Level,Flow\nA,1,2,3,4",
         "Tank: A; 2023 / Level: 1; 2023 / Flow: 2; 2024 / Level: 3; 2024 / Flow: 4"),
        ("Ada,1815,London\nMary,1797,Somers Town\nEmmy,1882,Erlangen", "Ada | 1815 | London"),
        ("Ada,1915,London\nMary,1997,Rome\nEmmy,1982,Bern", "Ada | 1915 | London"),
        ("yes,yes,no\nno,yes,no", "yes | yes | no"),
        ("2024-05-01,opened\n2024-05-02,closed", "2024-05-01 | opened"),
        ("Guest,Was it warm?\nAda,yes\nBo,no", "Guest: Ada; Was it warm?: yes"),
        ("Length:,12 m\nOwner:,Berg", "Length: 12 m"),
        (",Level\n2023,4\n2024,5", "2023; Level: 4"),
    ],
)  # fmt: skip
def test_the_names_of_columns_are_told_from_content(source: str, first: str) -> None:
    assert rows_of(read("a.csv", source))[0] == first


def test_a_line_above_the_names_is_the_heading_of_all_rows() -> None:
    document = read("a.csv", "Tools of the yard,,\nCounted in May,,\nTool,Hook,Count\nAdze,4,2\n")
    assert [b.kind for b in document.blocks] == ["heading", "text", "row"]
    assert {b.headings for b in document.blocks} == {("Tools of the yard",)}
    page = read(
        "a.html", "<h1>Yard</h1><table><caption>Tools</caption><tr><th>Tool<th>Hook<tr><td>Adze<td>4</table>"
    )
    assert page.blocks[-1].headings == ("Yard", "Tools")


def test_merged_cells_hold_for_all_that_they_cover() -> None:
    document = read(
        "a.html",
        "<table><tr><th rowspan=2>Line<th colspan=2>Fare<tr><th>Adult<th>Child"
        "<tr><td rowspan=2>North<td>9<td>4<tr><td>8<td>3<tr><td>South<td colspan=2>free</table>",
    )
    assert rows_of(document) == [
        "Line: North; Fare / Adult: 9; Fare / Child: 4",
        "Line: North; Fare / Adult: 8; Fare / Child: 3",
        "Line: South; Fare / Adult: free; Fare / Child: free",
    ]


@pytest.mark.parametrize("suffix", ["docx", "pptx"])
def test_merged_cells_of_office_files_hold_for_all_that_they_cover(suffix: str) -> None:
    rows = [
        ["Line", "Fare", "", "Zone"],
        ["", "Adult", "Child", ""],
        ["North", "9", "4", "B"],
        ["", "8", "3", "C"],
    ]
    merged = [((0, 0), (1, 0)), ((0, 1), (0, 2)), ((0, 3), (1, 3)), ((2, 0), (3, 0))]
    file = (docx.Document if suffix == "docx" else pptx.Presentation)(io.BytesIO(WRITERS[suffix](rows)))
    table = file.tables[0] if suffix == "docx" else file.slides[0].shapes[0].table
    for one, other in merged:
        table.cell(*one).merge(table.cell(*other))
    assert rows_of(read(f"a.{suffix}", saved(file))) == [
        "Line: North; Fare / Adult: 9; Fare / Child: 4; Zone: B",
        "Line: North; Fare / Adult: 8; Fare / Child: 3; Zone: C",
    ]


def test_a_line_across_a_table_belongs_to_the_rows_below_it() -> None:
    document = read(
        "a.html", "<table><tr><th>Tool<th>Hook<tr><td colspan=2>Wood<tr><td>Adze<td>4<tr><td colspan=2>Iron"
        "<tr><td>Tongs<td>7</table>",
    )  # fmt: skip
    assert rows_of(document) == ["Wood", "Wood; Tool: Adze; Hook: 4", "Iron", "Iron; Tool: Tongs; Hook: 7"]


def test_a_row_of_many_columns_begins_each_of_its_parts_with_its_first_cell() -> None:
    names, values = (["Ship", *(f"{word} number {n}" for n in range(40))] for word in ("part", "value"))
    found = rows_of(read("a.csv", csv_of([names, ["Vega", *values[1:]]])))
    assert len(found) > 2
    assert all(part.startswith("Ship: Vega; ") and len(part) < 400 for part in found)


def test_rows_and_columns_that_a_page_claims_without_end_are_bounded() -> None:
    document = read("a.html", "<table><tr><td rowspan=99999999 colspan=99999999>x<tr><td>y<td>z</table>")
    assert len(document.text) < 2_000


def test_text_after_a_markdown_table_keeps_its_place() -> None:
    document = read(
        "a.md", "# Yard\n\n| Tool | Hook |\n|---|---|\n| Adze | 4 |\n\nAfter *it*.\n\n```\ncode\n```\n"
    )
    assert [document.text[b.start : b.end] for b in document.blocks] == [
        "# Yard", "Tool: Adze; Hook: 4", "After *it*.", "```\ncode\n```",
    ]  # fmt: skip
