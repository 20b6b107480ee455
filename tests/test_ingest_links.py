"""A link in a folder chooses what is read only as long as it stays in the folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus_stores import assert_in_step, passages_of, take_in, write

from rag.indexing.corpus_index import CorpusIndex
from rag.indexing.ingest_report import IngestReport


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "docs", {"mill.md": "# Mill\n\nIt grinds.", "deep/river.md": "# River\n\nIt flows."})


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    return write(tmp_path / "elsewhere", {"secret.md": "# Secret\n\nNot for you."}) / "secret.md"


def named(report: IngestReport) -> dict[str, str]:
    return {Path(problem.path).name: problem.reason for problem in report.problems}


def test_a_link_to_a_file_outside_is_named_and_not_read(index: CorpusIndex, folder: Path, secret: Path) -> None:
    (folder / "link.md").symlink_to(secret)
    (folder / "deep" / "chain.md").symlink_to(folder / "link.md")
    (folder / "gone.md").symlink_to(secret.parent / "gone.md")
    report = take_in(index, folder)
    assert named(report).keys() == {"link.md", "chain.md", "gone.md"}
    assert all("leads out of the folder" in reason for reason in named(report).values())
    assert report.added == 2
    assert not passages_of(index, "link.md")
    assert_in_step(index)


def test_a_link_to_a_folder_outside_is_named_and_not_followed(
    index: CorpusIndex, folder: Path, secret: Path
) -> None:
    (folder / "away").symlink_to(secret.parent)
    report = take_in(index, folder)
    assert "leads out of the folder" in named(report)["away"]
    assert report.added == 2


def test_a_folder_beside_this_one_whose_name_begins_alike_is_outside(
    index: CorpusIndex, folder: Path, tmp_path: Path
) -> None:
    other = write(tmp_path / "docs-more", {"more.md": "# More\n\nMore."})
    (folder / "more.md").symlink_to(other / "more.md")
    (folder / "up.md").symlink_to(Path("..") / "docs-more" / "more.md")
    assert named(take_in(index, folder)).keys() == {"more.md", "up.md"}


def test_links_inside_of_the_folder_work_for_files_and_are_not_followed_for_folders(
    index: CorpusIndex, folder: Path
) -> None:
    (folder / "same.md").symlink_to(folder / "deep" / "river.md")
    (folder / "deep" / "up").symlink_to(folder)
    report = take_in(index, folder)
    assert report.problems == ()
    assert report.added == 3
    assert passages_of(index, "same.md")


def test_what_a_person_names_may_be_a_link(index: CorpusIndex, folder: Path, secret: Path, tmp_path: Path) -> None:
    (tmp_path / "named").symlink_to(folder)
    (tmp_path / "named.md").symlink_to(secret)
    report = take_in(index, tmp_path / "named", tmp_path / "named.md")
    assert report.problems == ()
    assert report.added == 3


def test_what_came_through_a_link_before_leaves_the_corpus(index: CorpusIndex, folder: Path, secret: Path) -> None:
    link = folder / "link.md"
    write(folder, {"link.md": "# Secret\n\nNot for you."})
    take_in(index, folder)
    assert passages_of(index, "link.md")
    link.unlink()
    link.symlink_to(secret)
    report = take_in(index, folder)
    assert report.deleted == 1
    assert not passages_of(index, "link.md")
    assert_in_step(index)


def test_a_link_of_a_format_that_is_not_read_is_not_worth_a_word(
    index: CorpusIndex, folder: Path, tmp_path: Path
) -> None:
    (folder / "tool.so").symlink_to(tmp_path / "tool.so")
    report = take_in(index, folder)
    assert (report.problems, report.skipped) == ((), 1)
