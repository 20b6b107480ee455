"""Ingestion: only what changed is done, what is gone goes, and one bad file stops nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from corpus_stores import CountingEncoder, assert_in_step, passages_of, places, take_in, write
from sqlalchemy import select

from rag import tables as db
from rag.database import reading
from rag.encoders import Encoder
from rag.errors import CorpusError, LoadError
from rag.indexing import ingestion as ingestion
from rag.indexing.corpora import Corpora
from rag.indexing.corpus_index import CorpusIndex
from rag.indexing.corpus_sources import corpus_sources, forget_sources, named_sources, source_page
from rag.indexing.ingest_report import IngestProgress, IngestReport
from rag.retrieval.filters import matching_texts
from rag.types import Filters

MILL = "# The mill\n\nThe old mill grinds rye and wheat from September to March."
RIVER = "# The river\n\nThe river carries cold water from the hills to the mill."
STONES = "The stones were cut in the quarry above the village."


def counts(report: IngestReport) -> tuple[int, int, int, int, int]:
    return report.added, report.changed, report.unchanged, report.deleted, report.skipped


def texts_matching(index: CorpusIndex, filters: Filters) -> list[int]:
    with reading(index.engine) as connection:
        return matching_texts(connection, index.id, filters)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "docs", {"mill.md": MILL, "river.md": RIVER, "deep/stones.txt": STONES})


@pytest.fixture
def counting(encoder: Encoder) -> CountingEncoder:
    return CountingEncoder(encoder)


@pytest.fixture
def index(open_corpora: Callable[..., Corpora], counting: CountingEncoder) -> CorpusIndex:
    return open_corpora(counting).ensure("notes")


# What is taken in


def test_every_file_of_a_folder_is_taken_in(index: CorpusIndex, folder: Path) -> None:
    report = take_in(index, folder)
    assert counts(report) == (3, 0, 0, 0, 0)
    assert report.passages == 3
    assert report.problems == ()
    assert not report.stopped
    assert {Path(path).name for path, *_ in places(index)} == {"mill.md", "river.md", "stones.txt"}
    assert_in_step(index)


def test_a_passage_is_embedded_with_the_titles_it_stands_under(
    index: CorpusIndex, folder: Path, counting: CountingEncoder
) -> None:
    take_in(index, folder / "mill.md")
    assert counting.texts == [f"The mill\n{MILL}"]
    assert list(passages_of(index, "mill.md")) == [MILL]


def test_single_files_and_folders_may_be_mixed_and_named_twice(index: CorpusIndex, folder: Path) -> None:
    report = take_in(index, folder / "mill.md", folder, folder / "mill.md")
    assert counts(report) == (3, 0, 0, 0, 0)
    assert_in_step(index)


def test_a_name_is_the_path_below_the_folder_that_was_ingested(index: CorpusIndex, folder: Path) -> None:
    take_in(index, folder)
    with reading(index.engine) as connection:
        names = set(connection.scalars(select(db.sources.c.name)))
    assert names == {"docs/mill.md", "docs/river.md", "docs/deep/stones.txt"}


def test_hidden_files_unknown_formats_and_tool_folders_are_left_out(index: CorpusIndex, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "docs",
        {
            "a.md": MILL,
            "photo.jpg": b"\xff\xd8",
            "a.md~": MILL,
            ".hidden.md": RIVER,
            ".git/b.md": RIVER,
            "node_modules/c.md": RIVER,
            "__pycache__/d.md": RIVER,
        },
    )
    report = take_in(index, folder)
    assert counts(report) == (1, 0, 0, 0, 2)
    assert report.skipped_files == "a.md~, photo.jpg"


def test_files_of_other_formats_are_named_up_to_a_few(index: CorpusIndex, tmp_path: Path) -> None:
    folder = write(tmp_path / "docs", {"a.md": MILL, **{f"deep/{n}.blend": b"\0" for n in range(9)}})
    expected = ", ".join(f"deep/{n}.blend" for n in range(5)) + " and 4 more"
    assert take_in(index, folder).skipped_files == expected


def test_what_was_not_read_of_a_file_is_kept_with_it(index: CorpusIndex, tmp_path: Path) -> None:
    folder = write(tmp_path / "docs", {"a.md": MILL, "b.jsonl": '{"text": "The mill."}\n{broken\n'})
    report = take_in(index, folder)
    with reading(index.engine) as connection:
        kept = dict(connection.execute(select(db.sources.c.name, db.sources.c.problems)).all())
    assert kept["docs/a.md"] == []
    assert kept["docs/b.jsonl"] == [problem.reason for problem in report.problems] != []


def test_a_file_that_is_named_is_read_whatever_its_format(index: CorpusIndex, tmp_path: Path) -> None:
    write(tmp_path, {"notes.unknown": STONES, ".hidden": RIVER})
    assert counts(take_in(index, tmp_path / "notes.unknown", tmp_path / ".hidden")) == (2, 0, 0, 0, 0)


def test_a_path_that_does_not_exist_is_an_error_and_changes_nothing(index: CorpusIndex, folder: Path) -> None:
    take_in(index, folder)
    before = places(index)
    with pytest.raises(LoadError, match="does not exist") as raised:
        take_in(index, folder, folder / "missing.md")
    assert raised.value.fix
    assert places(index) == before


def test_an_empty_folder_is_no_error(index: CorpusIndex, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert counts(take_in(index, tmp_path / "empty")) == (0, 0, 0, 0, 0)


def test_records_become_documents_with_their_fields(index: CorpusIndex, tmp_path: Path) -> None:
    records = [
        {"id": "m1", "title": "Mill", "text": "The old mill.", "year": 1871, "open": True},
        {"id": "r1", "text": "The cold river.", "length": 12.5},
    ]
    write(tmp_path, {"a.jsonl": "\n".join(map(json.dumps, records))})
    report = take_in(index, tmp_path / "a.jsonl")
    assert (report.added, report.passages) == (1, 2)
    assert sorted((record, text) for _, record, _, _, text in places(index)) == [
        ("m1", "The old mill."),
        ("r1", "The cold river."),
    ]
    with reading(index.engine) as connection:
        rows = connection.execute(
            select(db.documents.c.record, db.documents.c.title, db.documents.c.metadata)
        ).all()
    told = {record: (title, metadata) for record, title, metadata in rows}
    assert told["m1"][0] == "Mill"
    assert told["m1"][1].items() >= {"year": 1871, "open": True}.items()
    assert told["r1"][0] == "a.jsonl"
    assert told["r1"][1]["length"] == 12.5


def test_the_date_is_the_documents_own_else_that_of_the_file(index: CorpusIndex, tmp_path: Path) -> None:
    write(tmp_path, {"own.md": "---\ndate: 1999-12-31\n---\n\nA mill.", "file.md": "A river."})
    noon = datetime(2020, 2, 29, 12, tzinfo=UTC).timestamp()
    for name in ("own.md", "file.md"):
        os.utime(tmp_path / name, (noon, noon))
    take_in(index, tmp_path / "own.md", tmp_path / "file.md")
    assert len(texts_matching(index, Filters(before=date(1999, 12, 31)))) == 1
    assert len(texts_matching(index, Filters(after=date(2020, 2, 29), before=date(2020, 2, 29)))) == 1


# Again


def test_a_second_ingestion_embeds_nothing(index: CorpusIndex, folder: Path, counting: CountingEncoder) -> None:
    take_in(index, folder)
    before = places(index)
    counting.texts.clear()
    report = take_in(index, folder)
    assert counts(report) == (0, 0, 3, 0, 0)
    assert report.passages == 0
    assert counting.texts == []
    assert places(index) == before


def test_a_touched_file_embeds_nothing(index: CorpusIndex, folder: Path, counting: CountingEncoder) -> None:
    take_in(index, folder)
    counting.texts.clear()
    os.utime(folder / "mill.md", (0, 0))
    assert take_in(index, folder).unchanged == 3
    assert counting.texts == []


def test_a_changed_file_replaces_only_its_own_passages(
    index: CorpusIndex, folder: Path, counting: CountingEncoder
) -> None:
    take_in(index, folder)
    before = places(index)
    counting.texts.clear()
    write(folder, {"mill.md": MILL + " In summer it stands still."})
    assert counts(take_in(index, folder)) == (0, 1, 2, 0, 0)
    after = places(index)
    assert len(counting.texts) == 1
    assert {place for place in before if "mill.md" not in place[0]} == set(before) & set(after)
    assert all(after[place] == before[place] for place in set(before) & set(after))
    assert list(passages_of(index, "mill.md")) == [MILL + " In summer it stands still."]
    assert_in_step(index)


def test_of_a_changed_record_file_only_the_changed_records_are_embedded(
    index: CorpusIndex, tmp_path: Path, counting: CountingEncoder
) -> None:
    lines = [json.dumps({"id": n, "text": f"Stone number {n} lies in the river."}) for n in range(9)]
    path = write(tmp_path, {"a.jsonl": "\n".join(lines)}) / "a.jsonl"
    take_in(index, path)
    counting.texts.clear()
    lines[4] = json.dumps({"id": 4, "text": "This stone lies in the mill."})
    write(tmp_path, {"a.jsonl": "\n".join(lines)})
    assert take_in(index, path).changed == 1
    assert counting.texts == ["This stone lies in the mill."]
    assert len(places(index)) == 9
    assert_in_step(index)


def test_a_deleted_file_disappears(index: CorpusIndex, folder: Path) -> None:
    take_in(index, folder)
    (folder / "mill.md").unlink()
    assert counts(take_in(index, folder)) == (0, 0, 2, 1, 0)
    assert passages_of(index, "mill.md") == {}
    assert_in_step(index)


def test_a_renamed_file_keeps_its_passages(index: CorpusIndex, folder: Path, counting: CountingEncoder) -> None:
    take_in(index, folder)
    before = passages_of(index, "mill.md")
    counting.texts.clear()
    (folder / "mill.md").rename(folder / "grinder.md")
    assert counts(take_in(index, folder)) == (1, 0, 2, 1, 0)
    assert passages_of(index, "grinder.md") == before
    assert counting.texts == []
    assert_in_step(index)


def test_files_outside_of_what_is_ingested_now_stay(index: CorpusIndex, folder: Path, tmp_path: Path) -> None:
    take_in(index, folder)
    other = write(tmp_path / "docs-more", {"more.md": "# More\n\nMore of it."})
    (folder / "mill.md").unlink()
    assert counts(take_in(index, other)) == (1, 0, 0, 0, 0)
    assert passages_of(index, "mill.md")
    assert counts(take_in(index, folder / "deep")) == (0, 0, 1, 0, 0)
    assert passages_of(index, "mill.md")


def test_a_new_loader_reads_every_file_again_and_keeps_equal_passages(
    index: CorpusIndex, folder: Path, counting: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_in(index, folder)
    before = places(index)
    counting.texts.clear()
    monkeypatch.setattr(ingestion, "LOADER_VERSION", ingestion.LOADER_VERSION + 1)
    assert counts(take_in(index, folder)) == (0, 3, 0, 0, 0)
    assert counting.texts == []
    assert places(index) == before


# The same text twice


def test_the_same_text_twice_is_stored_once(index: CorpusIndex, folder: Path, counting: CountingEncoder) -> None:
    write(folder, {"copy.md": MILL, "deep/copy.md": MILL})
    take_in(index, folder)
    assert len(counting.texts) == len(set(counting.texts)) == 3
    assert passages_of(index, "copy.md") == passages_of(index, "mill.md")
    assert len(index.dense) == 3
    assert_in_step(index)


def test_a_text_stays_until_its_last_file_is_gone(index: CorpusIndex, folder: Path) -> None:
    write(folder, {"copy.md": MILL})
    take_in(index, folder)
    (folder / "mill.md").unlink()
    take_in(index, folder)
    assert list(passages_of(index, "copy.md")) == [MILL]
    assert_in_step(index)
    (folder / "copy.md").unlink()
    take_in(index, folder)
    assert MILL not in {place[4] for place in places(index)}
    assert_in_step(index)


def test_either_source_of_a_shared_text_is_found(index: CorpusIndex, folder: Path) -> None:
    write(folder, {"copy.md": MILL})
    take_in(index, folder)
    assert texts_matching(index, Filters(source="copy.md")) == texts_matching(index, Filters(source="mill.md"))
    assert len(texts_matching(index, Filters(glob="*/copy.md"))) == 1


# What cannot be read


def test_a_file_that_cannot_be_read_is_named_and_the_others_go_on(index: CorpusIndex, folder: Path) -> None:
    write(folder, {"broken.pdf": b"%PDF-1.7 nothing", "empty.md": "", "huge.txt": "stone " * 500})
    report = take_in(index, folder, max_bytes=2_000)
    assert counts(report) == (3, 0, 0, 0, 0)
    assert {Path(problem.path).name for problem in report.problems} == {"broken.pdf", "empty.md", "huge.txt"}
    assert all(problem.reason and "\n" not in problem.reason for problem in report.problems)
    assert_in_step(index)


@pytest.mark.parametrize("bad", ["", "\x00\x01\x02\x03" * 50, "stone " * 20_000])
def test_what_was_read_from_a_file_before_stays_while_it_cannot_be_read(
    index: CorpusIndex, folder: Path, bad: str
) -> None:
    take_in(index, folder)
    before = places(index)
    write(folder, {"mill.md": bad})
    report = take_in(index, folder, max_bytes=50_000)
    assert [Path(problem.path).name for problem in report.problems] == ["mill.md"]
    assert counts(report) == (0, 0, 2, 0, 0)
    assert places(index) == before
    write(folder, {"mill.md": STONES + " And the mill."})
    assert counts(take_in(index, folder)) == (0, 1, 2, 0, 0)
    assert_in_step(index)


def remarks(index: CorpusIndex) -> dict[str, tuple[str, ...]]:
    return {source.name: source.remarks for source in corpus_sources(index.engine, index.id)}


def test_files_that_cannot_be_read_are_listed_until_they_can_be_or_are_gone(
    index: CorpusIndex, folder: Path
) -> None:
    (folder / "out.md").symlink_to(write(folder.parent / "elsewhere", {"out.md": RIVER}) / "out.md")
    (folder / os.fsdecode(b"caf\xe9.md")).write_text(RIVER)
    write(folder, {"empty.md": "", "broken.pdf": b"%PDF-1.7 nothing", "z.jsonl": '{"text": "A mill."}\n{broken\n'})
    take_in(index, folder)
    unread = {name: why for name, why in remarks(index).items() if why}
    assert list(unread) == ["docs/broken.pdf", "docs/caf\ufffd.md", "docs/empty.md", "docs/out.md", "docs/z.jsonl"]
    assert all("could not be read: " in why for name, (why,) in unread.items() if name != "docs/z.jsonl")
    page = source_page(index.engine, index.id, 5)
    assert (page.total, page.unread, [source.id for source in page.sources[:4]]) == (4, 4, [None] * 4)

    write(folder, {"empty.md": STONES})
    (folder / os.fsdecode(b"caf\xe9.md")).unlink()
    (folder / "broken.pdf").unlink()
    # Gone already, without another ingestion.
    assert "docs/broken.pdf" not in remarks(index)
    take_in(index, folder)
    (link,) = named_sources(corpus_sources(index.engine, index.id), "out.md", "notes")
    assert [name for name, why in remarks(index).items() if why] == ["docs/out.md", "docs/z.jsonl"]
    forget_sources(index, [link])
    assert "docs/out.md" not in remarks(index)


def test_a_file_whose_new_content_cannot_be_read_says_which_text_is_used(index: CorpusIndex, folder: Path) -> None:
    take_in(index, folder)
    write(folder, {"mill.md": ""})
    take_in(index, folder / "mill.md")
    (why,) = remarks(index)["docs/mill.md"]
    assert why.startswith("its newest content could not be read (")
    assert why.endswith(f"; the text of {date.today()} is still used")
    write(folder, {"mill.md": MILL})
    assert take_in(index, folder).unchanged == 3
    assert remarks(index)["docs/mill.md"] == ()


def test_a_bad_record_is_named_and_the_others_go_on(index: CorpusIndex, tmp_path: Path) -> None:
    path = write(tmp_path, {"a.jsonl": '{"id": 1, "text": "A mill."}\n{broken\n{"id": 3, "text": "A river."}'})
    report = take_in(index, path / "a.jsonl")
    assert (report.added, report.passages, len(report.problems)) == (1, 2, 1)
    assert "line 2" in report.problems[0].reason


def test_a_folder_that_cannot_be_listed_keeps_what_was_read_from_it(
    index: CorpusIndex, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_in(index, folder)
    before = places(index)
    scandir = os.scandir

    # A refusal that root, too, gets.
    def refuse(path: str) -> object:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    report = take_in(index, folder)
    assert [Path(problem.path).name for problem in report.problems] == ["deep"]
    assert places(index) == before


def test_links_in_a_circle_end(index: CorpusIndex, folder: Path) -> None:
    (folder / "deep" / "up").symlink_to(folder)
    (folder / "self.md").symlink_to(folder / "self.md")
    report = take_in(index, folder)
    assert report.added == 3
    assert [Path(problem.path).name for problem in report.problems] == ["self.md"]


# Several corpora, several fingerprints


def test_corpora_stand_side_by_side(corpora: Corpora, folder: Path) -> None:
    one, other = corpora.ensure("one"), corpora.ensure("other")
    take_in(one, folder)
    take_in(other, folder / "mill.md")
    assert (len(one.dense), len(other.dense)) == (3, 1)
    (folder / "mill.md").unlink()
    take_in(one, folder)
    assert passages_of(one, "mill.md") == {}
    assert passages_of(other, "mill.md")
    assert_in_step(one)
    assert_in_step(other)


def test_another_size_of_passages_has_an_index_of_its_own(
    open_corpora: Callable[..., Corpora], folder: Path
) -> None:
    write(folder, {"long.txt": STONES * 30})
    usual, small = open_corpora(tokens=200), open_corpora(tokens=50)
    assert usual.fingerprint != small.fingerprint
    take_in(usual.ensure("notes"), folder)
    with pytest.raises(CorpusError, match="another encoder or passage size") as raised:
        small.find("notes")
    assert "ragsmith ingest PATH --corpus notes" in raised.value.fix
    report = take_in(small.ensure("notes"), folder)
    assert report.added == 4
    one, other = usual.find("notes"), small.find("notes")
    assert one.dense._name != other.dense._name
    assert len(passages_of(other, "long.txt")) > len(passages_of(one, "long.txt"))
    assert_in_step(one)
    assert_in_step(other)


# Progress


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve files, of which three fill a batch."""
    monkeypatch.setattr(ingestion, "BATCH", 3)
    return write(tmp_path / "many", {f"{n:02}.md": f"Stone number {n} lies in the river." for n in range(12)})


def test_progress_counts_files_and_passages(
    index: CorpusIndex, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[IngestProgress] = []
    take_in(index, many, on_progress=told.append)
    last = told[-1]
    assert (last.files_done, last.files_total, last.passages) == (12, 12, 12)
    assert last.passages_per_s > 0
    assert last.seconds_left == 0
    assert [each.files_done for each in told] == sorted(each.files_done for each in told)
    assert [each.passages for each in told] == sorted(each.passages for each in told)
    assert all(each.files_total == 12 for each in told)


def test_progress_of_an_ingestion_with_nothing_to_do_is_complete(index: CorpusIndex, many: Path) -> None:
    take_in(index, many)
    told: list[IngestProgress] = []
    take_in(index, many, on_progress=told.append)
    assert (told[-1].files_done, told[-1].files_total, told[-1].passages) == (12, 12, 0)
    assert told[-1].seconds_left in (None, 0)
