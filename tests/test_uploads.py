from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.documents.fetching import FetchedPage
from rag.errors import CorpusError
from rag.workspace import Workspace
from ui.app.upload_folder import UploadFolder, delete_stored, safe_name

NAMES = ("rates.txt", "same.txt", "new.txt")


def upload(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / name
    path.write_text(text)
    return path


def test_an_upload_is_kept_with_its_corpus(workspace: Workspace, tmp_path: Path) -> None:
    file = upload(tmp_path / "u", "notes.md", "hello")
    (kept,) = UploadFolder(workspace, "mine").keep([file])
    assert kept == workspace.uploads / "mine" / "notes.md"
    assert kept.read_text() == "hello"
    assert not file.exists()


def test_a_name_with_other_content_is_reported_before_anything_is_kept(
    workspace: Workspace, tmp_path: Path
) -> None:
    folder = UploadFolder(workspace, "mine")
    folder.keep([upload(tmp_path / "1", "rates.txt", "85 euro"), upload(tmp_path / "1", "same.txt", "same")])
    again = [upload(tmp_path / "2", name, "97 euro" if name == "rates.txt" else "same") for name in NAMES]
    assert folder.taken(again) == ["rates.txt"]
    assert all(file.exists() for file in again)
    assert UploadFolder(workspace, "other").taken(again) == []


def test_a_replaced_file_leaves_one_of_its_name(workspace: Workspace, tmp_path: Path) -> None:
    folder = UploadFolder(workspace, "mine")
    (first,) = folder.keep([upload(tmp_path / "1", "rates.txt", "85 euro")])
    (second,) = folder.keep([upload(tmp_path / "2", "rates.txt", "97 euro")], replace=True)
    assert first == second
    assert first.read_text() == "97 euro"
    assert list(first.parent.iterdir()) == [first]


def test_files_that_are_both_kept_get_numbers(workspace: Workspace, tmp_path: Path) -> None:
    files = [upload(tmp_path / str(number), "notes.md", f"text {number}") for number in range(3)]
    kept = [UploadFolder(workspace, "mine").keep([file])[0] for file in files]
    assert [path.name for path in kept] == ["notes.md", "notes (2).md", "notes (3).md"]
    assert [path.read_text() for path in kept] == ["text 0", "text 1", "text 2"]


@pytest.mark.parametrize("replace", [False, True])
def test_the_same_file_again_is_the_same_file(workspace: Workspace, tmp_path: Path, replace: bool) -> None:
    folder = UploadFolder(workspace, "mine")
    folder.keep([upload(tmp_path / "1", "a.txt", "one")])
    (numbered,) = folder.keep([upload(tmp_path / "2", "a.txt", "two")])
    again = upload(tmp_path / "3", "a.txt", "two")
    assert folder.taken([again]) == []
    assert folder.keep([again], replace=replace) == [numbered]
    assert not again.exists()
    assert len(list(numbered.parent.iterdir())) == 2


def test_a_name_is_one_however_its_accents_are_written(workspace: Workspace, tmp_path: Path) -> None:
    folder = UploadFolder(workspace, "mine")
    folder.keep([upload(tmp_path / "1", unicodedata.normalize("NFC", "Übersicht.txt"), "old")])
    apart = upload(tmp_path / "2", unicodedata.normalize("NFD", "Übersicht.txt"), "new")
    assert folder.taken([apart]) == [unicodedata.normalize("NFC", "Übersicht.txt")]


@pytest.mark.parametrize("corpus", ["", "..", "../up", "a/b", "A B", ".hidden", "x" * 61, "a\x00b", "-"])
def test_a_corpus_cannot_lead_out_of_the_workspace(workspace: Workspace, corpus: str) -> None:
    with pytest.raises(CorpusError):
        UploadFolder(workspace, corpus)


def test_an_address_has_one_file_whatever_it_gives(workspace: Workspace) -> None:
    folder = UploadFolder(workspace, "mine")
    address = "https://example.org/a/rates.html?year=2024"
    first = folder.keep_page(FetchedPage(address, b"<p>85 euro</p>", ".html"))
    other = folder.keep_page(FetchedPage(f"{address}5", b"<p>97 euro</p>", ".html"))
    again = folder.keep_page(FetchedPage(address, b"%PDF-1.7", ".pdf"))
    assert first.name.startswith("example.org_a_rates.html-")
    assert {path.name for path in first.parent.iterdir()} == {other.name, again.name}
    assert (again.stem, again.suffix, again.read_bytes()) == (first.stem, ".pdf", b"%PDF-1.7")


def test_only_files_of_the_workspace_are_deleted(workspace: Workspace, tmp_path: Path) -> None:
    theirs = upload(tmp_path / "theirs", "a.txt", "theirs")
    (ours,) = UploadFolder(workspace, "mine").keep([upload(tmp_path / "u", "a.txt", "ours")])
    link = ours.with_name("link.txt")
    link.symlink_to(theirs)
    outside = str(ours.parent / ".." / ".." / ".." / "theirs" / "a.txt")
    delete_stored(workspace, [str(theirs), outside, str(ours), str(link), str(ours)])
    assert theirs.exists()
    assert list(ours.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("report.pdf", "report.pdf"),
        ("../../etc/passwd", "_.._etc_passwd"),
        (".bashrc", "bashrc"),
        ("a\x00b\n.md", "a_b_.md"),
        ("...", "file"),
        ("", "file"),
        ("\u202egpj.exe", "_gpj.exe"),
        ("x" * 300 + ".pdf", "x" * 196 + ".pdf"),
        ("Überblick 2024.md", "Überblick 2024.md"),
    ],
)
def test_names_are_made_safe(name: str, kept: str) -> None:
    assert safe_name(name) == kept


@given(st.text())
def test_any_name_stays_in_its_folder(name: str) -> None:
    safe = safe_name(name)
    assert Path("/folder", safe).parent == Path("/folder")
    assert safe not in ("", ".", "..")
    assert not safe.startswith(".")
    assert len(safe.encode()) <= 255
