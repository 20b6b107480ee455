from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.errors import CorpusError
from rag.workspace import Workspace
from ui.pages.uploads import keep_uploads, safe_name


def upload(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / name
    path.write_text(text)
    return path


def test_an_upload_is_kept_with_its_corpus(workspace: Workspace, tmp_path: Path) -> None:
    file = upload(tmp_path / "u", "notes.md", "hello")
    (kept,) = keep_uploads(workspace, "mine", [file])
    assert kept == workspace.uploads / "mine" / "notes.md"
    assert kept.read_text() == "hello"
    assert not file.exists()


def test_no_other_file_is_overwritten(workspace: Workspace, tmp_path: Path) -> None:
    files = [upload(tmp_path / str(number), "notes.md", f"text {number}") for number in range(3)]
    kept = [keep_uploads(workspace, "mine", [file])[0] for file in files]
    assert [path.name for path in kept] == ["notes.md", "notes (2).md", "notes (3).md"]
    assert [path.read_text() for path in kept] == ["text 0", "text 1", "text 2"]


def test_the_same_file_again_is_the_same_file(workspace: Workspace, tmp_path: Path) -> None:
    first = keep_uploads(workspace, "mine", [upload(tmp_path / "1", "a.txt", "same")])
    second = upload(tmp_path / "2", "a.txt", "same")
    again = keep_uploads(workspace, "mine", [second])
    assert first == again
    assert not second.exists()
    assert len(list((workspace.uploads / "mine").iterdir())) == 1


@pytest.mark.parametrize("corpus", ["", "..", "../up", "a/b", "A B", ".hidden", "x" * 61, "a\x00b", "-"])
def test_a_corpus_cannot_lead_out_of_the_workspace(workspace: Workspace, tmp_path: Path, corpus: str) -> None:
    file = upload(tmp_path / "u", "a.txt", "x")
    with pytest.raises(CorpusError):
        keep_uploads(workspace, corpus, [file])
    assert file.exists()


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
