"""Corpora: their names, what is in them, and how they go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from corpus_stores import assert_in_step, places, take_in, write
from sqlalchemy import func, select

from rag import tables as db
from rag.database import reading
from rag.errors import CorpusError
from rag.indexing import corpora as corpora_module
from rag.indexing.corpora import Corpora, CorpusSummary
from rag.indexing.corpus_index import CorpusIndex
from rag.workspace import Workspace


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    records = '{"id": "a", "text": "A stone."}\n{"id": "b", "text": "Two stones."}'
    return write(tmp_path / "docs", {"mill.md": "# The mill\n\nIt grinds rye.", "stones.jsonl": records})


def rows(index: CorpusIndex) -> dict[str, int]:
    """How many rows each table of corpora has."""
    tables = (db.corpora, db.indexes, db.sources, db.documents, db.texts, db.passages)
    with reading(index.engine) as connection:
        return {t.name: connection.scalar(select(func.count()).select_from(t)) or 0 for t in tables}


# Names


@pytest.mark.parametrize("name", ["a", "handbook", "peps-2024", "v1.2_final", "7", "x" * 60])
def test_a_name_of_letters_digits_and_dashes_is_accepted(corpora: Corpora, name: str) -> None:
    corpora.ensure(name)
    assert [each.name for each in corpora.summaries()] == [name]


@pytest.mark.parametrize(
    "name", ["", " ", "Handbook", "a b", "-a", "a-", ".a", "../a", "a/b", "ä", "a\n", "x" * 61, "a\x00b", "🙂"]
)
def test_any_other_name_is_refused_and_nothing_is_made(corpora: Corpora, workspace: Workspace, name: str) -> None:
    with pytest.raises(CorpusError, match=r"The corpus name .* is invalid") as raised:
        corpora.ensure(name)
    assert "lower-case" in raised.value.fix
    assert corpora.summaries() == []
    assert not workspace.lexical.exists()


# Finding


def test_a_corpus_is_opened_once(corpora: Corpora) -> None:
    index = corpora.ensure("notes")
    assert corpora.find("notes") is index
    assert corpora.ensure("notes") is index


def test_a_corpus_that_is_not_there_is_named_with_those_that_are(corpora: Corpora) -> None:
    with pytest.raises(CorpusError, match=r"There is no corpus notes\. There are no corpora yet\.") as raised:
        corpora.find("notes")
    assert raised.value.fix == "Create it with `ragsmith ingest PATH --corpus notes`."
    corpora.ensure("b")
    corpora.ensure("a")
    with pytest.raises(CorpusError, match=r"There is no corpus notes\. The corpora are: a, b\."):
        corpora.find("notes")


def test_a_corpus_of_another_fingerprint_is_named_with_the_fix(open_corpora: Callable[..., Corpora]) -> None:
    open_corpora(tokens=200).ensure("notes")
    other = open_corpora(tokens=100)
    with pytest.raises(CorpusError, match="another encoder or passage size") as raised:
        other.find("notes")
    assert "--corpus notes" in raised.value.fix


def test_a_new_way_of_cutting_has_a_new_fingerprint(
    open_corpora: Callable[..., Corpora], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_corpora().fingerprint
    assert open_corpora().fingerprint == before
    monkeypatch.setattr(corpora_module, "CHUNKING_VERSION", corpora_module.CHUNKING_VERSION + 1)
    assert open_corpora().fingerprint != before


def test_what_one_process_has_taken_in_another_one_finds(
    open_corpora: Callable[..., Corpora], folder: Path
) -> None:
    first = open_corpora().ensure("notes")
    take_in(first, folder)
    again = open_corpora().find("notes")
    assert places(again) == places(first)
    assert_in_step(again)


# Summaries


def test_a_summary_counts_files_documents_and_passages(corpora: Corpora, folder: Path) -> None:
    assert corpora.summaries() == []
    corpora.ensure("empty")
    take_in(corpora.ensure("notes"), folder)
    assert corpora.summaries() == [
        CorpusSummary("empty", files=0, documents=0, passages=0, current=True),
        CorpusSummary("notes", files=2, documents=3, passages=3, current=True),
    ]


def test_a_summary_says_when_a_corpus_has_to_be_ingested_again(
    open_corpora: Callable[..., Corpora], folder: Path
) -> None:
    take_in(open_corpora(tokens=200).ensure("notes"), folder)
    assert open_corpora(tokens=100).summaries() == [
        CorpusSummary("notes", files=0, documents=0, passages=0, current=False)
    ]


# Removing


def test_a_removed_corpus_is_gone_from_every_store_and_its_files_stay(
    corpora: Corpora, workspace: Workspace, folder: Path
) -> None:
    kept = corpora.ensure("kept")
    take_in(kept, folder)
    before = rows(kept)
    take_in(corpora.ensure("gone"), folder)
    corpora.remove("gone")
    assert rows(kept) == before
    assert [each.name for each in corpora.summaries()] == ["kept"]
    assert [each.name for each in kept.dense._client.list_collections()] == [kept.dense._name]
    assert [each.name for each in workspace.lexical.iterdir()] == [kept.dense._name]
    assert sorted(path.name for path in folder.iterdir()) == ["mill.md", "stones.jsonl"]
    assert_in_step(kept)
    with pytest.raises(CorpusError, match="There is no corpus gone"):
        corpora.find("gone")


def test_all_indexes_of_a_corpus_are_removed(
    open_corpora: Callable[..., Corpora], workspace: Workspace, folder: Path
) -> None:
    usual, small = open_corpora(tokens=200), open_corpora(tokens=50)
    take_in(usual.ensure("notes"), folder)
    index = small.ensure("notes")
    take_in(index, folder)
    usual.remove("notes")
    assert set(rows(index).values()) == {0}
    assert list(workspace.lexical.iterdir()) == []
    assert small.summaries() == []


def test_a_removed_corpus_may_be_made_again(corpora: Corpora, folder: Path) -> None:
    take_in(corpora.ensure("notes"), folder)
    corpora.remove("notes")
    again = corpora.ensure("notes")
    assert len(again.dense) == len(again.lexical) == 0
    assert take_in(again, folder).added == 2
    assert_in_step(again)


def test_a_corpus_that_is_not_there_cannot_be_removed(corpora: Corpora) -> None:
    with pytest.raises(CorpusError, match="There is no corpus notes") as raised:
        corpora.remove("notes")
    assert raised.value.fix


@pytest.mark.parametrize("broken", ["DenseIndex", "drop_lexical"])
@pytest.mark.parametrize("then", ["remove", "ingest"])
def test_a_removal_that_was_broken_off_can_be_finished_or_made_good(
    corpora: Corpora, folder: Path, broken: str, then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BrokenOffError(Exception):
        pass

    def fail(*_: object) -> None:
        raise BrokenOffError

    index = corpora.ensure("notes")
    take_in(index, folder)
    with monkeypatch.context() as patch:
        patch.setattr(corpora_module, broken, fail)
        with pytest.raises(BrokenOffError):
            corpora.remove("notes")
    assert corpora.summaries()[0].files == 0
    if then == "remove":
        corpora.remove("notes")
        assert set(rows(index).values()) == {0}
    else:
        again = corpora.ensure("notes")
        assert take_in(again, folder).added == 2
        assert_in_step(again)


# Stored documents


def test_a_stored_document_tells_its_text_and_where_it_came_from(
    corpora: Corpora, index: CorpusIndex, folder: Path
) -> None:
    take_in(index, folder)
    with reading(index.engine) as connection:
        held = dict(iter(connection.execute(select(db.documents.c.record, db.documents.c.text_id))))
    mill, stone = corpora.document(held[""]), corpora.document(held["b"])
    assert mill.text == (folder / "mill.md").read_text()
    assert (mill.title, mill.name) == ("The mill", "docs/mill.md")
    assert mill.source == mill.path == str(folder / "mill.md")
    assert mill.pages == ()
    assert stone.text == "Two stones."
    assert stone.source == f"{folder / 'stones.jsonl'}#b"
    assert stone.title == "stones.jsonl"


def test_a_document_that_is_gone_is_an_error(corpora: Corpora) -> None:
    with pytest.raises(CorpusError, match="Document 77 is no longer in this workspace") as raised:
        corpora.document(77)
    assert raised.value.fix
