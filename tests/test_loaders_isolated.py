"""What comes out of the process that parses is what went in, and nothing that it makes up gets through."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import docx
import pytest
from corpus_stores import limits, write
from hypothesis import given
from hypothesis import strategies as st
from scripted_app import pdf

from rag.documents.loaders import load
from rag.documents.loaders._frames import FrameError, TooLarge, document_of, frames_of
from rag.documents.loaders.isolated import IsolatedLoader
from rag.errors import LoadError
from rag.types import Block, Document

LONGEST = 1_000_000
STORED = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)
SCALARS = STORED | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
FILES = {
    "a.md": "---\ntitle: Stones\ndate: 2021-03-04\nweight: 3\n---\n# One\n\nText \U0001f600.\n\n## Two\n\nMore.\n",
    "a.txt": "First.\n\nSecond, with ümlauts.\n",
    "a.rst": "Title\n=====\n\nWords.\n",
    "a.html": "<html lang=en><title>T</title><h1>H</h1><p>P</p><table><tr><td>a<td>b</table></html>",
    "a.csv": "name,size\nmill,3\nriver,4\n",
    "a.jsonl": '{"id": 1, "text": "A mill."}\n{broken\n{"id": 1, "text": "A river.", "deep": true}\n',
    "a.ipynb": '{"cells": [{"cell_type": "markdown", "source": "# H"}, {"cell_type": "code", "source": "1"}]}',
    "a.py": "class A:\n    def f(self):\n        return 1\n",
    "a.pdf": pdf(["Net sales rose.", "Costs fell."], ["Outlook."]),
}


def passed(document: Document, longest: int = LONGEST) -> Document:
    """The document after its way through frames."""
    frames = frames_of(document, longest)
    return document_of(json.loads(next(frames)), frames, longest)


@pytest.fixture(scope="module")
def loader() -> Iterator[IsolatedLoader]:
    with IsolatedLoader(limits(memory_mb=256)) as made:
        yield made


@pytest.mark.parametrize("name", FILES)
def test_a_file_gives_the_same_documents_and_problems_as_in_this_process(
    loader: IsolatedLoader, tmp_path: Path, name: str
) -> None:
    path = write(tmp_path, {name: FILES[name]}) / name
    problems: list[str] = []
    expected_problems: list[str] = []
    loading = loader.load(path, on_problem=problems.append)
    assert list(loading.documents) == list(load(path, path.read_bytes(), on_problem=expected_problems.append))
    assert problems == expected_problems


def test_a_word_file_passes_too(loader: IsolatedLoader, tmp_path: Path) -> None:
    file = docx.Document()
    file.add_heading("The plan", 1)
    file.add_paragraph("First words.")
    file.save(str(tmp_path / "a.docx"))
    (document,) = loader.load(tmp_path / "a.docx").documents
    assert document.title == "The plan"
    assert document.blocks[1].headings == ("The plan",)


@pytest.mark.parametrize("content", ["", "\x00\x01\x02\x03" * 50])
def test_a_refusal_is_the_same_as_in_this_process(loader: IsolatedLoader, tmp_path: Path, content: str) -> None:
    path = write(tmp_path, {"a.txt": content}) / "a.txt"
    with pytest.raises(LoadError) as expected:
        list(load(path, path.read_bytes()))
    with pytest.raises(LoadError) as caught:
        list(loader.load(path).documents)
    assert (caught.value.message, caught.value.fix) == (expected.value.message, expected.value.fix)


@given(st.data())
def test_any_document_passes_through_frames(data: st.DataObject) -> None:
    text = data.draw(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=200))
    places = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    paths = st.lists(STORED, max_size=4).map(tuple)
    blocks = tuple(
        Block(start, end, data.draw(st.sampled_from(["heading", "text", "code", "row"])), data.draw(paths), page)
        for page, (start, end) in enumerate(zip(places[::2], places[1::2], strict=False), start=1)
    )
    document = Document(
        text,
        blocks,
        title=data.draw(st.none() | STORED),
        record=data.draw(STORED),
        metadata=data.draw(st.dictionaries(STORED, SCALARS, max_size=4)),
        date=data.draw(st.none() | st.dates()),
    )
    assert passed(document) == document


def test_a_text_of_many_slices_is_one_text_again() -> None:
    text = "".join(random.Random(3).choices("aé汉😀\n", k=2_500_000))
    document = Document(text, (Block(0, len(text)),), date=date(2020, 1, 2))
    assert passed(document, 10_000_000) == document
    with pytest.raises(TooLarge, match="max_text_mb"):
        passed(document, len(text.encode()) - 1)


def spoiled(**changes: object) -> dict[str, object]:
    """The head of an honest document, but for some fields."""
    document = Document("A mill. A river.", (Block(0, 7, "text", ("H", "I")), Block(8, 16)), metadata={"a": 1})
    return {**json.loads(next(frames_of(document, LONGEST))), **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"title": 3},
        {"title": "\0"},
        {"title": "\ud800"},
        {"record": None},
        {"metadata": []},
        {"metadata": {"a": [1]}},
        {"metadata": {"a": None}},
        {"metadata": {"a": float("nan")}},
        {"date": "yesterday"},
        {"date": 3},
        {"parents": [0, 7]},
        {"parents": [0, -1]},
        {"parents": [0]},
        {"titles": "HI"},
        {"titles": [1, 2]},
        {"parents": list(range(100)), "titles": ["a"] * 100},
        {"blocks": 3},
        {"blocks": -1},
        {"blocks": 10**12},
        {"blocks": True},
        {"slices": 2},
        {"slices": 10**12},
        {"slices": "1"},
    ],
)
def test_a_head_that_is_none_is_refused(changes: dict[str, object]) -> None:
    document = Document("A mill. A river.", (Block(0, 7, "text", ("H", "I")), Block(8, 16)), metadata={"a": 1})
    head = spoiled(**changes)
    _, *rest = frames_of(document, LONGEST)
    with pytest.raises(FrameError):
        document_of(head, iter(rest), LONGEST)


@pytest.mark.parametrize(
    "blocks",
    [(Block(0, 17),), (Block(5, 5),), (Block(6, 3),), (Block(0, 9), Block(8, 16)), (Block(8, 16), Block(0, 7))],
)
def test_blocks_that_no_loader_gives_are_refused(blocks: tuple[Block, ...]) -> None:
    with pytest.raises(FrameError, match="overlap"):
        passed(replace(Document("A mill. A river.", ()), blocks=blocks))


def test_text_that_is_not_utf8_or_too_long_is_refused() -> None:
    head = spoiled(blocks=0, parents=[], titles=[])
    for piece in (b"\xff", b"a\0b", b"x" * 101):
        with pytest.raises(FrameError):
            document_of(head, iter([b"", piece]), 100)
