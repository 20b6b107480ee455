"""Offsets of passages: in the stored text, and for text files in the file, they give back exactly the passage."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import docx
import openpyxl
import pptx
import pytest
from corpus_stores import limits, take_in, write
from handmade_pdf import at, drawn
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from nasty import STRINGS
from sqlalchemy import select
from test_loaders_formats import CHAPTERS, book_of

from rag import tables as db
from rag.database import reading
from rag.documents.loaders.isolated import IsolatedLoader
from rag.indexing.corpus_index import CorpusIndex
from rag.retrieval.retriever import Retriever, SearchOptions
from rag.settings import RetrievalSettings

# Characters of several bytes and code points, ones without width, ligatures, and scripts without spaces.
PARAGRAPH = (
    "Der Fär\u00adber schüttet “Kali” ins Bad 🧶 — de\u0301\u0300ja\u0300 vu, o\ufb03ce, Wa\u200bsser. "
    "三月に藍を建てる。ผ้าสีน้ำเงินแห้งช้า "
)
LONG = PARAGRAPH * 12
TABLE = [["Vat", "Dye", "Hours"], ["A", "", "3"], ["B", "mädder 🧶", "41"]]
TABLE += [[f"C{number}", "\ufb01ne", str(number)] for number in range(60)]
# Rows of tables in other text files are written anew.
STORED_AS_THEY_ARE = (".rst", ".txt", ".py", ".yaml")


WORDS = "o\ufb03ce of the dy\u00ader"


def saved(file: object) -> bytes:
    stream = io.BytesIO()
    file.save(stream)  # type: ignore[attr-defined]
    return stream.getvalue()


def word_file() -> bytes:
    file = docx.Document()
    file.add_heading("Dyeing", 1)
    file.add_paragraph(LONG)
    table = file.add_table(len(TABLE), 3)
    for row, values in zip(table.rows, TABLE, strict=True):
        for cell, value in zip(row.cells, values, strict=True):
            cell.text = value
    return saved(file)


def slides() -> bytes:
    file = pptx.Presentation()
    slide = file.slides.add_slide(file.slide_layouts[1])
    slide.shapes.title.text = "Vats 🧶"
    slide.placeholders[1].text = LONG
    return saved(file)


def workbook() -> bytes:
    book = openpyxl.Workbook()
    for row in TABLE:
        book.active.append(row)
    return saved(book)


def mail() -> bytes:
    message = EmailMessage()
    message["Subject"] = "Indigo 🧶"
    message.set_content(f"{PARAGRAPH}\n\n" * 12)
    return bytes(message)


def pages() -> str:
    rows = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in TABLE)
    return f"<title>Dye</title><h1>Vats</h1><p hidden>gone</p><p>{LONG}</p><table>{rows}</table><pre>a\n  b</pre>"


def every_format() -> dict[str, str | bytes]:
    csv = "\r\n".join(",".join(row) for row in TABLE)
    markdown = "\n".join(f"| {' | '.join(row)} |" for row in [*TABLE[:1], ["---"] * 3, *TABLE[1:]])
    cells = [{"cell_type": "markdown", "source": LONG}, {"cell_type": "code", "source": "a = '🧶'", "outputs": []}]
    lines = "".join(at(50, 780 - 12 * n, f"The vat {n} of the dyer rests for {n} hours.") for n in range(60))
    rich = "".join(rf"\u{ord(sign)}?" for sign in LONG if ord(sign) < 32_768)
    return {
        "a.md": f"---\ntitle: Dyé\n---\r\n# Vats 🧶\r\n\r\n{LONG}\r\n\r\n{markdown}\r\n\r\n- a\r\n- b\r\n",
        "a.rst": f"Vats 🧶\n=======\n\n{LONG}\n\n.. note:: {PARAGRAPH}\n",
        "a.txt": f"\ufeff{LONG}\r\rQ: When?\r\nA: {PARAGRAPH}\x00\n".encode(),
        "a.csv": csv,
        "a.py": f'"""{PARAGRAPH}"""\n\n\ndef dye():\n    """{LONG}"""\n',
        "a.yaml": f"vats:\n  - name: 🧶\n    note: {PARAGRAPH}\n",
        "a.html": pages(),
        "a.docx": word_file(),
        "a.pptx": slides(),
        "a.xlsx": workbook(),
        "a.epub": book_of({**CHAPTERS, "in/two.xhtml": f"<html><body><h1>Warp</h1><p>{LONG}</p></body></html>"}),
        "a.eml": mail(),
        "a.rtf": rf"{{\rtf1\ansi {rich}}}",
        "a.pdf": drawn([lines, lines]),
        "a.json": json.dumps([{"text": LONG}, {"vat": "🧶", "dyes": ["a", "ﬁ"]}]),
        "a.jsonl": json.dumps({"text": f"{PARAGRAPH}\n\n{LONG}", "title": "🧶"}),
        "a.ipynb": json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}),
    }


def passages_in(index: CorpusIndex) -> list[tuple[Path, str, str, int, int]]:
    """Path of the file, stored text, and text, start and end of every passage, as retrieval reads them."""
    p, t, d, s = db.passages.c, db.texts.c, db.documents.c, db.sources.c
    with reading(index.engine) as connection:
        rows = connection.execute(
            select(s.path, t.text, p.text, p.start, p.end)
            .join_from(db.passages, db.texts)
            .join(db.documents, d.text_id == t.id)
            .join(db.sources, s.id == d.source_id)
            .where(s.index_id == index.id)
        )
        return [(Path(path), whole, text, start, end) for path, whole, text, start, end in rows]


def assert_exact(index: CorpusIndex) -> set[str]:
    """Compare every passage with what its offsets say; returns the suffixes of the files."""
    found = passages_in(index)
    for path, whole, text, start, end in found:
        assert whole[start:end] == text, path
        assert text == text.strip() != "", path
        if path.suffix in STORED_AS_THEY_ARE:
            source = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
            assert source.replace("\x00", "\ufffd")[start:end] == text, path
    return {path.suffix for path, *_ in found}


def test_offsets_give_back_the_passage_in_every_format(index: CorpusIndex, tmp_path: Path) -> None:
    files = every_format()
    report = take_in(index, write(tmp_path / "vats", files))
    assert report.added == len(files)
    assert assert_exact(index) == {Path(name).suffix for name in files}


def test_what_a_search_finds_has_the_same_offsets(index: CorpusIndex, tmp_path: Path) -> None:
    take_in(index, write(tmp_path / "vats", {"a.md": f"# Vats\n\n{LONG}\n\nThe {WORDS} is shut."}))
    retriever = Retriever(index, RetrievalSettings())
    (hit, *_) = retriever.search("office dyer", SearchOptions(3, "lexical"))
    retriever.close()
    whole = (tmp_path / "vats" / "a.md").read_text(encoding="utf-8")
    assert whole[hit.passage.start : hit.passage.end] == hit.passage.text
    assert WORDS in hit.passage.text


@pytest.fixture(scope="module")
def loader() -> Iterator[IsolatedLoader]:
    """One process that reads all files of a test."""
    with IsolatedLoader(limits()) as opened:
        yield opened


@hypothesis_settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from((*STORED_AS_THEY_ARE, ".md", ".csv")),
    pieces=st.lists(st.sampled_from((PARAGRAPH, LONG, *STRINGS)), min_size=3, max_size=8),
    gap=st.sampled_from(("\n", "\n\n", "\r\n\r\n", "\r", " ")),
)
def test_offsets_of_any_text_give_back_the_passage(
    index: CorpusIndex, tmp_path: Path, loader: IsolatedLoader, suffix: str, pieces: list[str], gap: str
) -> None:
    path = tmp_path / f"text{suffix}"
    path.write_bytes(gap.join(pieces).encode())
    take_in(index, path, loader=loader)
    assert_exact(index)
