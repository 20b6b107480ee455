"""Calling commands as a person at a terminal does: in this process, or in one of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from ui.cli import cli

ROOT = Path(__file__).resolve().parent.parent
QUIET = {"RAGSMITH_TRACKING__WANDB": "off"}
# What a terminal would obey: nothing of it may come from a document, a question or an answer.
OBEYED = [chr(code) for code in (*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F))]


def call(home: Path, *arguments: str | Path, charset: str = "utf-8", **given: Any) -> Result:
    """Call a command on a workspace, without tracking."""
    told = ["--home", str(home), *map(str, arguments)]
    return CliRunner(charset=charset).invoke(cli, told, prog_name="ragsmith", env=QUIET, **given)


def start(home: Path, *arguments: str | Path, before: str = "", **variables: str) -> subprocess.Popen[str]:
    """Start a command in a process of its own; ``before`` is Python that runs first."""
    # What `nohup` starts ignores the end of its terminal, and so would the command.
    heard = "import signal, sys\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)"
    code = f"{heard}\n{before}\nfrom ui.cli import main\nsys.argv[0] = 'ragsmith'\nmain()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "--home", str(home), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **QUIET, **variables},
    )


def objects(result: Result) -> list[dict[str, Any]]:
    """The JSON lines on stdout, where nothing else may be."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def one_object(result: Result) -> Any:
    """The JSON on stdout, where nothing else may be."""
    return json.loads(result.stdout)


def jsonl(path: Path, records: Sequence[object]) -> Path:
    """Write a file with one record on each line."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def assert_one_line(result: Result, *parts: str, status: int = 1) -> None:
    """Whether a command ended with one line on stderr that has these parts, and nothing on stdout."""
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("Error: ")
    for part in parts:
        assert part in result.stderr


def assert_harmless(text: str) -> None:
    """Whether a terminal may print a text."""
    found = [character for character in OBEYED if character in text]
    assert not found, [hex(ord(character)) for character in found]
