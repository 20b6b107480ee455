"""What a workspace holds is its owner's alone, also where an older version left it open to others."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from terminal import call, start

from rag.workspace import open_workspace
from ui.cli import cli

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def open_to_others(folder: Path) -> list[str]:
    """What other users may look at, links left out."""
    below = [folder, *folder.rglob("*")]
    return [f"{path}: {mode(path):o}" for path in below if not path.is_symlink() and mode(path) & 0o077]


def wide(folder: Path, names: dict[str, int]) -> Path:
    """Files below a folder with these modes; their folders are open to all."""
    for name, given in names.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x", encoding="utf-8")
        path.chmod(given)
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    return folder


OLD = {"ragsmith.db": 0o644, "chroma/a/b.bin": 0o664, "prompts/p/1.yaml": 0o644, "models/run.sh": 0o755}


def test_a_new_workspace_is_closed(tmp_path: Path) -> None:
    root = open_workspace(tmp_path / "a" / "home").root
    assert mode(root) == 0o700
    # The folders above it are no workspace.
    assert mode(root.parent) == 0o755


def test_an_older_workspace_is_closed_when_it_is_opened(tmp_path: Path) -> None:
    root = wide(tmp_path / "home", OLD)
    open_workspace(root)
    assert open_to_others(root) == [f"{root / '.gitignore'}: 644"]
    assert mode(root) == mode(root / "chroma" / "a") == 0o700
    assert mode(root / "models" / "run.sh") == 0o700


def test_a_closed_workspace_is_not_walked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = wide(tmp_path / "home", OLD)
    open_workspace(root)
    monkeypatch.setattr(os, "walk", lambda *_: pytest.fail("walked again"))
    open_workspace(root)


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = wide(tmp_path / "outside", {"shared/model.bin": 0o644, "file": 0o644})
    root = wide(tmp_path / "home", OLD)
    (root / "uploads").symlink_to(outside)
    (root / "models" / "shared").symlink_to(outside / "shared")
    (root / "models" / "file").symlink_to(outside / "file")
    open_workspace(root)
    assert mode(outside) == mode(outside / "shared") == 0o755
    assert mode(outside / "file") == mode(outside / "shared" / "model.bin") == 0o644


def test_a_folder_with_a_persons_own_files_stays_open_and_so_do_they(tmp_path: Path) -> None:
    root = wide(tmp_path / "project", {**OLD, "README.md": 0o644, "src/a.py": 0o644})
    open_workspace(root)
    assert mode(root) == mode(root / "src") == 0o755
    assert mode(root / "README.md") == mode(root / "src" / "a.py") == 0o644
    assert mode(root / "ragsmith.db") == 0o600
    assert mode(root / "chroma") == 0o700
    assert mode(root / "prompts" / "p" / "1.yaml") == 0o600


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root gives files away")
def test_what_somebody_else_owns_is_left(tmp_path: Path) -> None:
    root = wide(tmp_path / "home", OLD)
    os.chown(root / "chroma" / "a" / "b.bin", 12345, -1)
    open_workspace(root)
    assert mode(root / "chroma" / "a" / "b.bin") == 0o664
    assert mode(root / "ragsmith.db") == 0o600


def test_a_command_leaves_the_umask_as_it_was(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["--home", str(tmp_path / "home"), "prompts", "list"])
    assert result.exit_code == 0
    assert os.umask(0o022) == 0o022


@pytest.mark.slow
def test_nothing_that_commands_leave_is_open_to_others(converted_models: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    # A copy, not a link: the kernels that are compiled for it belong to what is looked at.
    (folder,) = converted_models.glob("encoder-*")
    shutil.copytree(folder, home / "models" / folder.name, ignore=shutil.ignore_patterns("cache"))
    notes = tmp_path / "notes.md"
    notes.write_text("# Mill\n\nThe mill grinds rye.", encoding="utf-8")
    prompt = tmp_path / "prompt.yaml"
    for arguments in (
        ("prompts", "export", "answer", "--to", prompt),
        ("prompts", "new", "mine", "--from", "answer", "--file", prompt, "-m", "Try.", "--by", "Ada"),
    ):
        assert call(home, *arguments).exit_code == 0
    for arguments in (
        ("ingest", notes, "--corpus", "notes"),
        ("ask", "What does the mill grind?", "--corpus", "notes"),
        ("sync",),
    ):
        with start(home, *arguments, RAGSMITH_TRACKING__WANDB="offline", RAGSMITH_READER__ADAPTER="") as process:
            _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert [path.name for path in home.glob("wandb/offline-run-*")]
    assert list(home.glob("models/*/cache/*"))
    assert open_to_others(home) == []
    assert mode(prompt) == 0o600
