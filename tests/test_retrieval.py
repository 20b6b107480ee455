"""Retrieval: two sides fused by rank, filtered alike, and every hit at its exact place."""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime
from os import utime
from pathlib import Path

import pytest
from corpus_stores import take_in, write
from hypothesis import given
from hypothesis import strategies as st
from scripted_app import pdf
from sqlalchemy import insert, update

from rag import tables as db
from rag.database import open_database, writing
from rag.encoders import Encoder
from rag.errors import FilterError
from rag.indexing.corpora import Corpora
from rag.indexing.corpus_index import CorpusIndex
from rag.indexing.dense_index import ChromaStore, DenseEntry
from rag.indexing.lexical_index import LexicalEntry
from rag.retrieval.filters import filters_of
from rag.retrieval.retriever import Fused, Retriever, SearchOptions, fuse
from rag.settings import RetrievalSettings, SearchMode
from rag.types import Filters, Hit
from rag.workspace import open_workspace

MODES: tuple[SearchMode, ...] = ("hybrid", "dense", "lexical")
USUAL = RetrievalSettings()
DAY = datetime(2021, 5, 4, 12, tzinfo=UTC).timestamp()


def notebook() -> str:
    code = {"execution_count": None, "outputs": [], "source": "readings = load('tide.csv')\nreadings.mean()"}
    cells = [
        {"cell_type": "markdown", "source": "# Measuring the tide\n\nThe gauge is read twice a day."},
        {"cell_type": "code", **code},
    ]
    for number, cell in enumerate(cells):
        cell.update(id=f"cell{number}", metadata={})
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells})


LONG_PAGE = "\n\n".join(
    f"## Chapter {n}\n\n"
    + " ".join(f"In room {n} the lamp {m} burns until {m} o'clock at night." for m in range(12))
    for n in range(9)
)
RECORDS = [
    {"id": "w1", "title": "Whales", "text": "A blue whale eats four tons of krill a day.", "sea": "Southern"},
    {"id": "w2", "title": "Seals", "text": "Seals sleep on the ice and hunt below it.", "sea": "Weddell"},
]
FILES: dict[str, str | bytes] = {
    "guides/mill.md": "---\ntitle: The mill book\ndate: 2019-03-01\n---\n\n# Grinding\n\nThe mill grinds rye.",
    "guides/lamps.md": f"# The lighthouse\n\n{LONG_PAGE}",
    "guides/bread.rst": "Bread\n=====\n\nKnead the dough for eight minutes, then let it rest.\n",
    "site/orchard.html": "<title>Orchard</title><body><h1>Pruning</h1><p>Prune currants in winter.</p></body>",
    "report.pdf": pdf(
        ["Harbour report", "Cargo grew to 512 thousand tons."], ["Outlook", "The harbour expects less cargo."]
    ),
    "stock.csv": "item,place\nnails,upper shelf\nropes,lower shelf\n",
    "code/grind.py": 'def grind(rye, stones):\n    """Turn rye into flour."""\n    return stones * rye\n',
    "tide.ipynb": notebook(),
    "sea.jsonl": "\n".join(map(json.dumps, RECORDS)),
    "日本.txt": "山の上に古い寺があり、毎朝鐘の音が谷に響く。",
    "copy/a.txt": "This text about telescopes is there twice.",
    "copy/b.txt": "This text about telescopes is there twice.",
}


@pytest.fixture(scope="module")
def mixed(encoder: Encoder, converted_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpora]:
    """One corpus of every kind of file, for tests that only read."""
    home = tmp_path_factory.mktemp("mixed")
    folder = write(home / "docs", FILES)
    for path in folder.rglob("*"):
        utime(path, (DAY, DAY))
    workspace = open_workspace(home / "workspace")
    engine = open_database(workspace)
    made = Corpora(workspace, engine, encoder, 60, ChromaStore(workspace, None))
    report = take_in(made.ensure("mixed"), folder)
    assert report.problems == ()
    assert report.added == len(FILES)
    yield made
    engine.dispose()


@pytest.fixture(scope="module")
def retriever(mixed: Corpora) -> Iterator[Retriever]:
    made = Retriever(mixed.find("mixed"), USUAL)
    yield made
    made.close()


@pytest.fixture
def retriever_of() -> Iterator[Callable[..., Retriever]]:
    """Makes retrievers that are closed with the test."""
    made: list[Retriever] = []

    def make(index: CorpusIndex, settings: RetrievalSettings = USUAL, reranker: object = None) -> Retriever:
        made.append(Retriever(index, settings, reranker))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.close()


def names(hits: Sequence[Hit]) -> list[str]:
    return [hit.passage.name.removeprefix("docs/") for hit in hits]


def asked(mode: SearchMode = "hybrid", k: int = 100, **filters: object) -> SearchOptions:
    return SearchOptions(k, mode, Filters(**filters))  # type: ignore[arg-type]


# The fusion


def test_each_side_adds_its_weight_over_constant_and_rank() -> None:
    settings = RetrievalSettings(rrf_k=10, dense_weight=0.4)
    fused = fuse([(7, 0.9), (3, 0.8)], [(3, 12.0), (5, 4.0), (7, 1.0)], settings)
    assert fused == [
        Fused(3, pytest.approx(0.4 / 12 + 0.6 / 11), 2, 0.8, 1, 12.0),
        Fused(7, pytest.approx(0.4 / 11 + 0.6 / 13), 1, 0.9, 3, 1.0),
        Fused(5, pytest.approx(0.6 / 12), None, None, 2, 4.0),
    ]


@pytest.mark.parametrize(("weight", "first"), [(1.0, 1), (0.0, 2), (0.9, 1), (0.1, 2)])
def test_the_weight_decides_between_the_sides(weight: float, first: int) -> None:
    fused = fuse([(1, 0.9), (3, 0.8)], [(2, 9.0), (3, 8.0)], RetrievalSettings(dense_weight=weight, rrf_k=0.1))
    assert fused[0].passage_id == first


def test_of_equal_scores_the_one_nearer_in_meaning_comes_first() -> None:
    fused = fuse([(9, 0.5)], [(4, 0.5)], RetrievalSettings(dense_weight=0.5))
    assert [each.passage_id for each in fused] == [9, 4]


def test_a_side_that_stands_alone_keeps_its_own_scores() -> None:
    assert [each.score for each in fuse([(1, 0.9), (2, 0.1)], [], USUAL)] == [0.9, 0.1]
    assert [each.score for each in fuse([], [(1, 7.5)], USUAL)] == [7.5]
    assert fuse([], [], USUAL) == []


RANKING = st.lists(st.integers(0, 30), unique=True, max_size=20).map(
    lambda numbers: [(number, 1.0 - at / 100) for at, number in enumerate(numbers)]
)


@given(RANKING, RANKING)
def test_every_passage_of_both_sides_is_in_the_fusion_once_best_first(
    dense: list[tuple[int, float]], lexical: list[tuple[int, float]]
) -> None:
    fused = fuse(dense, lexical, USUAL)
    assert sorted(each.passage_id for each in fused) == sorted({n for n, _ in [*dense, *lexical]})
    assert all(one.score >= other.score for one, other in itertools.pairwise(fused))
    for each in fused:
        if each.dense_rank is not None:
            assert dense[each.dense_rank - 1] == (each.passage_id, each.dense_score)
        if each.lexical_rank is not None:
            assert lexical[each.lexical_rank - 1] == (each.passage_id, each.lexical_score)


# What is found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("what does the mill grind", "guides/mill.md"),
        ("kneading dough", "guides/bread.rst"),
        ("pruning currants", "site/orchard.html"),
        ("harbour cargo tons", "report.pdf"),
        ("ropes on a shelf", "stock.csv"),
        ("stones that turn rye into flour", "code/grind.py"),
        ("tide gauge readings", "tide.ipynb"),
        ("blue whale krill", "sea.jsonl#w1"),
    ],
)
def test_every_kind_of_file_is_found_in_every_mode(
    retriever: Retriever, query: str, name: str, mode: SearchMode
) -> None:
    assert name in names(retriever.search(query, asked(mode, k=3)))


@given(st.lists(st.sampled_from(" ".join(map(str, FILES.values())).split()), min_size=1, max_size=8).map(" ".join))
def test_the_text_of_a_hit_is_exactly_what_stands_at_its_place(
    mixed: Corpora, retriever: Retriever, query: str
) -> None:
    for hit in retriever.search(query, asked(k=50)):
        stored = mixed.document(hit.passage.document_id)
        assert stored.text[hit.passage.start : hit.passage.end] == hit.passage.text


def test_in_text_formats_the_place_is_that_in_the_file(retriever: Retriever) -> None:
    seen = set()
    for query in ("mill lamp dough whale temple telescope stones", "山の上"):
        for hit in retriever.search(query, asked()):
            path = Path(hit.passage.source)
            if path.suffix in (".md", ".rst", ".txt", ".py"):
                text = path.read_text(encoding="utf-8")
                assert text[hit.passage.start : hit.passage.end] == hit.passage.text
                seen.add(path.suffix)
    assert seen == {".md", ".rst", ".txt", ".py"}


def test_a_hit_tells_where_it_comes_from(retriever: Retriever) -> None:
    (mill,) = retriever.search("mill", asked(k=1, source="mill.md"))
    assert mill.passage.title == "The mill book"
    assert mill.passage.headings == ("Grinding",)
    assert mill.passage.page is None
    (whale,) = retriever.search("whale", asked(k=1))
    assert whale.passage.source.endswith("sea.jsonl#w1")
    assert whale.passage.title == "Whales"
    assert whale.passage.metadata["sea"] == "Southern"
    (cargo,) = retriever.search("the harbour expects", asked(k=1, source="report.pdf"))
    assert cargo.passage.page == 2


def test_a_hit_tells_why_it_was_found(retriever: Retriever) -> None:
    hits = retriever.search("mill grinds rye", asked(k=5))
    best = hits[0]
    assert best.dense_rank == best.lexical_rank == 1
    assert best.dense_score is not None
    assert best.lexical_score is not None
    assert best.score == pytest.approx(1 / (USUAL.rrf_k + 1))
    assert best.rerank_score is None
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_a_single_side_tells_only_its_own_scores(retriever: Retriever) -> None:
    for hit in retriever.search("mill", asked("dense", k=5)):
        assert hit.score == hit.dense_score
        assert hit.lexical_rank is None
        assert -1 <= hit.score <= 1.0001
    for hit in retriever.search("mill", asked("lexical", k=5)):
        assert hit.score == hit.lexical_score
        assert hit.dense_rank is None
        assert "mill" in hit.passage.text.lower()


@pytest.mark.parametrize("mode", MODES)
def test_no_more_than_k_are_found_and_all_when_k_is_larger(retriever: Retriever, mode: SearchMode) -> None:
    assert len(retriever.search("lamp in the room", asked(mode, k=3))) == 3
    everything = retriever.search("lamp in the room", asked(mode, k=1_000))
    assert len({hit.passage.id for hit in everything}) == len(everything)
    if mode == "dense":
        assert {name.partition("#")[0] for name in names(everything)} >= set(FILES) - {"copy/b.txt"}


def test_the_settings_decide_where_nothing_is_asked_for(
    mixed: Corpora, retriever_of: Callable[..., Retriever]
) -> None:
    made = retriever_of(mixed.find("mixed"), RetrievalSettings(k=2, mode="lexical"))
    hits = made.search("lamp")
    assert len(hits) == 2
    assert all(hit.dense_rank is None for hit in hits)
    assert made.options() == SearchOptions(2, "lexical")
    assert made.options(7, "dense") == SearchOptions(7, "dense")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "query", ["", "  \n", "the of and", "🙂🙃", "?!", "\x00", "mill " * 2_000, "山の上に古い寺"]
)
def test_no_query_fails(retriever: Retriever, query: str, mode: SearchMode) -> None:
    hits = retriever.search(query, asked(mode, k=5))
    assert len(hits) <= 5
    if mode == "dense":
        assert len(hits) == 5


# Near-duplicates


def test_of_passages_that_say_the_same_only_the_best_is_kept(
    index: CorpusIndex, tmp_path: Path, retriever_of: Callable[..., Retriever]
) -> None:
    text = "The old mill by the cold river grinds rye and wheat from late September until early March."
    write(
        tmp_path / "docs",
        {
            "one.txt": text,
            "two.txt": text.upper(),
            "three.txt": text.replace(" ", "\n"),
            "other.txt": "The new mill on the warm hill grinds maize and rice from April until July.",
        },
    )
    take_in(index, tmp_path / "docs")
    made = retriever_of(index)
    for mode in MODES:
        found = names(made.search("old mill rye", asked(mode, k=10)))
        assert len(found) == 2
        assert "other.txt" in found


def test_a_file_without_a_title_is_found_by_its_name(
    index: CorpusIndex, tmp_path: Path, retriever_of: Callable[..., Retriever]
) -> None:
    text = "Revenue rose by four percent, and the dividend was kept."
    write(tmp_path / "docs", {"Norvik_Lines-2031.txt": f"{text} A.", "Ostbank_2031.txt": f"{text} B."})
    take_in(index, tmp_path / "docs")
    made = retriever_of(index)
    for mode in MODES:
        (found, *_) = made.search("Did the revenue of Norvik Lines rise in FY2031?", asked(mode, k=2))
        assert names([found]) == ["Norvik_Lines-2031.txt"]


def test_a_source_is_asked_for_by_its_name_however_its_letters_are_composed(
    index: CorpusIndex, tmp_path: Path, retriever_of: Callable[..., Retriever]
) -> None:
    write(tmp_path / "docs", {unicodedata.normalize("NFD", "Hüllen.txt"): "The hull is nine metres long."})
    take_in(index, tmp_path / "docs")
    made = retriever_of(index)
    for form in ("NFC", "NFD"):
        assert len(made.search("hull", asked(source=unicodedata.normalize(form, "Hüllen.txt")))) == 1


def test_a_text_that_two_files_hold_is_found_once(retriever: Retriever) -> None:
    found = names(retriever.search("telescopes", asked(k=5)))
    assert found.count("copy/a.txt") == 1
    assert "copy/b.txt" not in found


# Filters


@pytest.mark.parametrize(
    ("typed", "filters"),
    [
        ([], None),
        (["sea = Weddell"], Filters(where=(("sea", "Weddell"),))),
        (["sea=Weddell", "id=w1"], Filters(where=(("sea", "Weddell"), ("id", "w1")))),
        (["formula=a=b"], Filters(where=(("formula", "a=b"),))),
        (["the mill.md"], Filters(source="the mill.md")),
        (["source=mill.md", "sea=Weddell"], Filters(source="mill.md", where=(("sea", "Weddell"),))),
        (["https://example.org/?id=3"], Filters(source="https://example.org/?id=3")),
    ],
)
def test_filters_are_read_as_they_are_typed(typed: list[str], filters: Filters | None) -> None:
    assert filters_of(typed) == filters


def test_two_sources_are_refused() -> None:
    with pytest.raises(FilterError, match="two sources"):
        filters_of(["mill.md", "source=lamps.md"])


@pytest.mark.parametrize("typed", ["=Weddell", "sea=", " = "])
def test_a_filter_without_field_or_value_is_refused(typed: str) -> None:
    with pytest.raises(FilterError, match="must be FIELD=VALUE"):
        filters_of([typed])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"source": "mill.md"}, {"guides/mill.md"}),
        ({"source": "docs/guides/mill.md"}, {"guides/mill.md"}),
        ({"source": "sea.jsonl"}, {"sea.jsonl#w1", "sea.jsonl#w2"}),
        ({"source": "docs/sea.jsonl#w2"}, {"sea.jsonl#w2"}),
        ({"title": "the MILL book"}, {"guides/mill.md"}),
        ({"glob": "*/guides/*"}, {"guides/mill.md", "guides/lamps.md", "guides/bread.rst"}),
        ({"glob": "docs/guides/*.rst"}, {"guides/bread.rst"}),
        ({"glob": "*.jsonl#w?"}, {"sea.jsonl#w1", "sea.jsonl#w2"}),
        ({"page": 2}, {"report.pdf"}),
        ({"page": 2, "source": "report.pdf"}, {"report.pdf"}),
        ({"page": 2, "source": "mill.md"}, set()),
        ({"page": 99}, set()),
        ({"before": date(2019, 3, 1)}, {"guides/mill.md"}),
        ({"before": date(2019, 2, 28)}, set()),
        ({"after": date(2021, 5, 5)}, set()),
        ({"glob": "*.md", "after": date(2021, 5, 4), "before": date(2021, 5, 4)}, {"guides/lamps.md"}),
        ({"where": (("SEA", "weddell"),)}, {"sea.jsonl#w2"}),
        ({"where": (("sea", "Weddell"), ("id", "w1"))}, set()),
        ({"where": (("colour", "red"),)}, set()),
        ({"where": (("Title", "the MILL book"),)}, {"guides/mill.md"}),
        ({"where": (("name", "docs/guides/bread.rst"),)}, {"guides/bread.rst"}),
        ({"where": (("source", "bread.rst"), ("date", "1999-01-01"))}, set()),
        ({"where": (("date", "2021-05-04"), ("source", "lamps.md"))}, {"guides/lamps.md"}),
        ({"source": "MILL.md"}, set()),
        ({"source": "mill"}, set()),
    ],
)
def test_filters_hold_on_both_sides(
    retriever: Retriever, filters: dict[str, object], expected: set[str], mode: SearchMode
) -> None:
    query = "mill lamp dough whale seals harbour grinds report outlook rest"
    assert set(names(retriever.search(query, asked(mode, **filters)))) == expected


@pytest.mark.parametrize("mode", ["lexical", "hybrid"])
def test_a_record_is_found_by_what_stands_in_its_other_fields(retriever: Retriever, mode: SearchMode) -> None:
    assert names(retriever.search("Weddell", asked(mode, k=1))) == ["sea.jsonl#w2"]


def test_a_filter_finds_what_the_whole_corpus_would_hide(retriever: Retriever) -> None:
    (found,) = retriever.search("lamps burning at night", asked("dense", k=1, source="stock.csv"))
    assert found.passage.name == "docs/stock.csv"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["a.txt", "b.txt"])
def test_a_shared_text_is_told_with_the_source_that_was_asked_for(
    retriever: Retriever, name: str, mode: SearchMode
) -> None:
    (hit,) = retriever.search("telescopes", asked(mode, source=name))
    assert Path(hit.passage.source).name == name
    (hit,) = retriever.search("telescopes", asked(mode, glob=f"*/copy/{name}"))
    assert Path(hit.passage.source).name == name


# Left-overs


@pytest.mark.parametrize("mode", MODES)
def test_what_a_crash_left_behind_is_never_found(
    index: CorpusIndex, tmp_path: Path, encoder: Encoder, retriever_of: Callable[..., Retriever], mode: SearchMode
) -> None:
    write(tmp_path / "docs", {"mill.txt": "The old mill.", "river.txt": "The cold river."})
    take_in(index, tmp_path / "docs")
    vector = encoder.embed(["old mill"])
    # In both indexes, but not in the database; in all three, but not finished.
    index.dense.add([DenseEntry(901, 77, 0)], vector)
    index.lexical.write([LexicalEntry(901, 77, 0, "old mill")])
    with writing(index.engine) as connection:
        connection.execute(
            insert(db.texts).values(id=55, index_id=index.id, digest="x", state="pending", text="old mill")
        )
        connection.execute(
            insert(db.passages).values(id=900, text_id=55, start=0, end=8, headings=[], tokens=2, text="old mill")
        )
    index.dense.add([DenseEntry(900, 55, 0)], vector)
    index.lexical.write([LexicalEntry(900, 55, 0, "old mill")])
    made = retriever_of(index)
    hits = made.search("old mill", asked(mode, k=10))
    assert {hit.passage.text for hit in hits} <= {"The old mill.", "The cold river."}
    assert hits[0].passage.text == "The old mill."
    assert made.search("old mill", asked(mode, k=1))[0].passage.text == "The old mill."


def test_what_is_gone_from_the_database_is_not_found_though_the_indexes_hold_it(
    index: CorpusIndex, tmp_path: Path, retriever_of: Callable[..., Retriever]
) -> None:
    write(tmp_path / "docs", {"mill.txt": "The old mill.", "river.txt": "The cold river."})
    take_in(index, tmp_path / "docs")
    with writing(index.engine) as connection:
        connection.execute(db.documents.delete())
        connection.execute(db.sources.delete())
        connection.execute(update(db.texts).values(state="leaving"))
    assert retriever_of(index).search("mill", asked()) == []


# The reranker


def test_the_reranker_has_the_last_word(mixed: Corpora, retriever_of: Callable[..., Retriever]) -> None:
    class Backwards:
        depth = 4
        identity = "backwards"

        def rerank(self, query: str, hits: Sequence[Hit]) -> list[Hit]:
            assert query == "lamp"
            return [*reversed(hits[:4]), *hits[4:]]

    index = mixed.find("mixed")
    usual = retriever_of(index).search("lamp", asked(k=4))
    assert retriever_of(index, USUAL, Backwards()).search("lamp", asked(k=4)) == usual[::-1]
