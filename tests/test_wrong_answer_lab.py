"""The handbook's lab of wrong answers: what the page says that its commands print is what they print."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from terminal import ROOT, call

from rag.workspace import Workspace

HANDBOOK = ROOT / "corpora" / "handbook"
SECTION = re.compile(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# The trace of an answer, or the newest one of a list.
TRACE = re.compile(r"· trace (\S+)$|^([0-9a-f]{8}) ", re.MULTILINE)
TREE = "│├└─ "
READ = ("Wrong passage", "Lost in fusion", "Document missing", "Follow-up misread")
WRITTEN = ("Prompt too vague", "Model invented")
COPYING = "cp -r corpora/handbook/lab lab"


@dataclass(frozen=True)
class Shown:
    """A command of the page without its prompt, and the lines of its output that the page shows."""

    command: str
    lines: tuple[str, ...]


def sections() -> dict[str, list[Shown]]:
    """The commands of the page by its headings."""
    found: dict[str, list[Shown]] = {}
    for title, text in SECTION.findall((HANDBOOK / "pages" / "wrong-answer-lab.md").read_text(encoding="utf-8")):
        blocks = "".join(BLOCK.findall(text))
        parts = [part.splitlines() for part in blocks.split("$ ")[1:]]
        found[title] = [Shown(command, tuple(map(bare, lines))) for command, *lines in parts]
    return found


def bare(line: str) -> str:
    """A line without the branches of a tree, and with single spaces."""
    return " ".join(line.lstrip(TREE).split())


def follow(home: Path, titles: tuple[str, ...]) -> None:
    """Do what the page says below these headings; the current folder has the lab's files."""
    page = sections()
    trace = ""
    for heading, shown in [(title, shown) for title in titles for shown in page[title]]:
        if shown.command == COPYING:
            shutil.copytree(HANDBOOK / "lab", "lab")
            continue
        program, *arguments = shlex.split(shown.command)
        assert program == "ragsmith"
        if (heading, arguments[0]) == ("Document missing", "ingest"):
            complete(Path("lab", "harbour.jsonl"))
        result = call(home, *(trace if argument == "ID" else argument for argument in arguments))
        assert result.exit_code == 0, (shown.command, result.output)
        printed = iter([bare(line) for line in result.output.splitlines()])
        for line in shown.lines:
            assert any(line in other for other in printed), (shown.command, line, result.output)
        if traces := TRACE.findall(result.stdout):
            trace = "".join(traces[0])


def complete(file: Path) -> None:
    """Add the brace that the page says is missing at the end of the last line."""
    file.write_text(file.read_text(encoding="utf-8").rstrip() + "}\n", encoding="utf-8")


def test_the_lab_has_the_six_causes() -> None:
    assert {title for title, commands in sections().items() if commands} == {"Preparation", *READ, *WRITTEN}


@pytest.mark.usefixtures("one_encoder")
def test_the_extractive_reader_prints_what_the_page_says(home: Path) -> None:
    follow(home, ("Preparation", *READ))


@pytest.mark.slow
@pytest.mark.usefixtures("one_encoder")
def test_smollm2_writes_what_the_page_says(home: Path, prepared_base: Workspace) -> None:
    converted = home / "models"
    folders = [*converted.iterdir(), *prepared_base.models.iterdir()]
    converted.unlink()
    converted.mkdir()
    for folder in folders:
        (converted / folder.name).symlink_to(folder.resolve())
    follow(home, ("Preparation", *WRITTEN))
