"""The workspace: its single writer, and folders and disks that refuse."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rag.errors import RagsmithError, StorageFull, WorkspaceBusy, WorkspaceError
from rag.workspace import Workspace, disk_errors, open_workspace

ROOT = Path(__file__).resolve().parent.parent

HOLDER = """
import sys, time
from pathlib import Path
from rag.workspace import open_workspace
with open_workspace(Path(sys.argv[1])).writing("hold the lock"):
    print("held", flush=True)
    time.sleep(600)
"""

# Root may write anywhere: the child gives that up once everything is imported.
UNPRIVILEGED = """
import os, sys
from pathlib import Path
from rag.errors import WorkspaceError
from rag.workspace import open_workspace
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    open_workspace(Path(sys.argv[1]))
except WorkspaceError as error:
    print(error)
"""


def python(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@contextmanager
def another_writer(workspace: Workspace) -> Iterator[subprocess.Popen[str]]:
    """Start another process that owns the write lock until it is killed."""
    with python(HOLDER, workspace.root) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline().strip() == "held"
            yield process
        finally:
            process.kill()


def test_opening_makes_the_folder_and_keeps_its_data_out_of_git(tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path / "a" / "b")
    assert workspace.root == tmp_path / "a" / "b"
    assert [path.name for path in workspace.root.iterdir()] == [".gitignore"]
    rules = (workspace.root / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert rules[0] == "*"


def test_opening_again_changes_nothing(workspace: Workspace) -> None:
    (workspace.root / ".gitignore").write_text("mine\n", encoding="utf-8")
    assert open_workspace(workspace.root) == workspace
    assert (workspace.root / ".gitignore").read_text(encoding="utf-8") == "mine\n"


def test_the_home_sign_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_workspace(Path("~/notes")).root == tmp_path / "notes"


def test_only_one_process_writes(workspace: Workspace) -> None:
    with (
        another_writer(workspace),
        pytest.raises(WorkspaceBusy, match=r"Cannot ingest: another ragsmith process"),
        workspace.writing("ingest"),
    ):
        pass


def test_the_lock_dies_with_a_killed_process(workspace: Workspace) -> None:
    with another_writer(workspace) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
        with workspace.writing("ingest", wait_s=5):
            pass


def test_the_lock_is_free_after_an_error(workspace: Workspace) -> None:
    with pytest.raises(ZeroDivisionError), workspace.writing("fail"):
        raise ZeroDivisionError
    with workspace.writing("ingest"):
        pass


def test_a_folder_without_permission(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with python(UNPRIVILEGED, locked) as process:
        said, _ = process.communicate(timeout=60)
    assert said.startswith(f"Cannot use the workspace {locked}: Permission denied.")
    assert "RAGSMITH_HOME" in said


@pytest.mark.parametrize("name", ["taken", "taken/below"])
def test_a_file_in_the_place_of_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "taken").write_text("here first", encoding="utf-8")
    with pytest.raises(WorkspaceError, match="Cannot use the workspace"):
        open_workspace(tmp_path / name)
    assert (tmp_path / "taken").read_text(encoding="utf-8") == "here first"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(_path: Path, _data: bytes) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(StorageFull, match="the disk is full") as caught:
        open_workspace(tmp_path / "home")
    assert "Free some space" in caught.value.fix


def test_errors_of_ours_pass_through_unchanged() -> None:
    with pytest.raises(RagsmithError) as caught, disk_errors("do a thing"):
        raise RagsmithError("as it was")
    assert type(caught.value) is RagsmithError
