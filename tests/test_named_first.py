"""Among records and rows that are alike, the one that a query names is found first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from corpus_stores import take_in, write

from rag.indexing.corpus_index import CorpusIndex
from rag.retrieval.retriever import Retriever
from rag.settings import RetrievalSettings


@pytest.fixture
def retriever(index: CorpusIndex) -> Iterator[Retriever]:
    made = Retriever(index, RetrievalSettings())
    yield made
    made.close()


def test_the_record_that_is_named_comes_first_among_those_that_differ_in_nothing_but_a_number(
    index: CorpusIndex, retriever: Retriever, tmp_path: Path
) -> None:
    form = "Receipt {}: the berth at the north quay was let for a week, with power and water, at {} kroner in all."
    numbers = [f"88-{number}" for number in range(300, 312)]
    write(tmp_path / "docs", {f"{number}.txt": form.format(number, 500 + at) for at, number in enumerate(numbers)})
    take_in(index, tmp_path / "docs")
    for number in numbers[1::4]:
        (found, *_) = retriever.search(f"How much was paid on receipt {number}?")
        assert found.passage.name.endswith(f"{number}.txt")


def test_the_row_that_is_named_comes_first_among_rows_that_share_each_of_its_words(
    index: CorpusIndex, retriever: Retriever, tmp_path: Path
) -> None:
    first = ("Ada", "Ben", "Cara", "Dov", "Eva", "Finn", "Greta", "Hans", "Inga", "Jon", "Karl", "Liv", "Mia")
    last = ("Ames", "Birk", "Crane", "Dorn", "Elm", "Ford", "Gill")
    people = [f"{first[at % len(first)]} {last[at % len(last)]}" for at in range(len(first) * len(last))]
    rows = [
        f"| {name} | {at} | {('saw', 'plane', 'lathe')[at % 3]} | {people[(at * 5 + 1) % len(people)]} |"
        for at, name in enumerate(people)
    ]
    table = "\n".join(("# Workshop", "", "| Person | Bench | Tool | Partner |", "|---|---|---|---|", *rows))
    write(tmp_path / "docs", {"workshop.md": table})
    take_in(index, tmp_path / "docs")
    for name in people[::6]:
        (found, *_) = retriever.search(f"Which tool does {name} use?")
        assert f"Person: {name};" in found.passage.text
