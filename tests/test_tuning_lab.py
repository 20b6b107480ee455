"""The handbook's lab on tuning: its commands, in their order, in a shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import ROOT, call, one_object
from tiny_lm import make_model

from rag.workspace import open_workspace

pytestmark = pytest.mark.slow

PAGE = ROOT / "corpora" / "handbook" / "pages" / "tuning-lab.md"
FENCE = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(base: Path) -> list[tuple[str, str]]:
    """Language and text of the blocks of the page, with fewer rows and steps, and a tiny model for smollm2."""
    text = PAGE.read_text(encoding="utf-8")
    changes = {
        "sed -n 41,166p": "sed -n 41,56p",
        "--epochs 3": "--epochs 0.5",
        "--epochs 2": "--epochs 0.5",
        "tune predict smollm2": f"tune predict 'local:{base}'",
        "--model smollm2": "--model extractive",
        # What takes smollm2 unless it is told otherwise.
        "data explore rows.jsonl": f"data explore rows.jsonl --base '{base}'",
        "data prepare rows.jsonl": f"data prepare rows.jsonl --base '{base}'",
        "--data answers": f"--data answers --base '{base}'",
        "--data pairs": f"--data pairs --base '{base}'",
    }
    for wanted, changed in changes.items():
        assert wanted in text
        text = text.replace(wanted, changed)
    return FENCE.findall(text)


@pytest.fixture
def home(tmp_path: Path, converted_models: Path) -> Path:
    """A workspace below a folder with the handbook, as a clone has it."""
    workspace = open_workspace(tmp_path / ".ragsmith")
    workspace.models.mkdir()
    for folder in converted_models.iterdir():
        (workspace.models / folder.name).symlink_to(folder)
    (tmp_path / "corpora").symlink_to(ROOT / "corpora")
    return workspace.root


def test_every_command_of_the_lab_works_in_its_order(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "programs" / "ragsmith"
    program.parent.mkdir()
    line = f'PYTHONPATH="{ROOT}" exec "{sys.executable}" -m ui.cli "$@"'
    program.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("RAGSMITH_TRACKING__WANDB", "off")
    base = make_model(tmp_path / "tiny-llama", hidden_size=32, intermediate_size=64, num_hidden_layers=2)
    printed = []
    for language, text in blocks(base):
        shell = ["bash", "-e", "-c"] if language == "sh" else [sys.executable, "-c"]
        done = subprocess.run([*shell, text], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (text, done.stderr)
        printed.append(done.stdout)
    # What the page says of retrieval does not depend on the language model.
    assert "antivy" in printed[2]
    assert "Samples at answers" in printed[3]
    assert "validation/preferred" in printed[5]
    shown = one_object(call(home, "tune", "show", "sentences", "--json"))
    assert shown["status"]["state"] == "done"
    assert shown["card"]["recipe"]["start"].startswith(str(home / "runs" / "answers-"))
