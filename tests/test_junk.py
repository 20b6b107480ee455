"""What a careless, unlucky or hostile world puts before the commands: one clear line each, and nothing lost."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from nasty import BLANK, STRINGS, UNPAIRED
from terminal import ROOT, assert_harmless, assert_one_line, call, jsonl, objects, one_object
from tiny import written

from rag.workspace import open_workspace

EARLIER = {"fish.md": "# Fish\n\nThe herring swims in the North Sea and is eaten with onions.\n"}
QUESTION = "What is the herring eaten with?"
NOBODY = "http://127.0.0.1:1"
pytestmark = pytest.mark.usefixtures("one_encoder")

# Bytes in one line: what is not done in linear time takes minutes with them.
SOLID = 15_000_000
TEXT_FORMATS = ("txt", "md", "rst", "html", "csv", "tsv", "json", "jsonl", "ipynb", "py", "js", "log")


@pytest.fixture(scope="module")
def earlier(converted_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a workspace with a corpus: tests work in copies of it."""
    folder = open_workspace(tmp_path_factory.mktemp("earlier") / "home").root
    (folder / "models").symlink_to(converted_models)
    pages = written(folder.parent / "earlier", EARLIER)
    assert call(folder, "ingest", pages, "--corpus", "earlier").exit_code == 0
    return folder


@pytest.fixture
def home(earlier: Path, tmp_path: Path) -> Path:
    """A workspace with a corpus that has to outlive whatever comes."""
    return shutil.copytree(earlier, tmp_path / "home", symlinks=True)


@pytest.fixture
def bread(tmp_path: Path) -> Path:
    """A folder that is ingested when something goes wrong."""
    return written(tmp_path / "later", {"bread.md": "# Bread\n\nRye bread is baked at five in the morning.\n"})


def assert_earlier_answers(home: Path) -> None:
    result = call(home, "ask", QUESTION, "--corpus", "earlier", "--json")
    assert result.exit_code == 0, result.output
    assert "onions" in objects(result)[0]["answer"]


def assert_later_is_made_good(home: Path, bread: Path) -> None:
    assert call(home, "ingest", bread, "--corpus", "later").exit_code == 0
    (found,) = objects(call(home, "search", "rye bread", "--corpus", "later", "--json"))
    assert [each["name"] for each in found["results"]] == ["later/bread.md"]


# Files


def test_each_bad_file_is_named_once_and_the_good_ones_are_in(home: Path, tmp_path: Path) -> None:
    folder = written(tmp_path / "junk", {"good.md": "The aardvark eats ants.", "good.txt": "Ants eat leaves."})
    reasons = {
        "empty.md": "is empty",
        "blank.txt": "is empty",
        "binary.txt": "is binary",
        "broken.pdf": "not a readable PDF",
        "cut.docx": "is not a readable Office file",
        "cut.pptx": "is an archive without ppt",
        "broken.json": "not valid JSON",
        "broken.ipynb": "not valid JSON",
        "legacy.txt": "not valid UTF-8",
        "damaged.txt": "invalid utf-8",
        "circle.md": "symbolic links",
        "dangling.md": "No such file",
        "pipe.txt": "pipe",
        "endless.txt": "leads out of the folder",
        "\udcff.txt": "must be valid UTF-8",
    }
    (folder / "empty.md").touch()
    (folder / "blank.txt").write_bytes(b" \n\t\r\n" * 1000)
    (folder / "binary.txt").write_bytes(bytes(range(256)) * 100)
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog")
    (folder / "cut.docx").write_bytes(b"PK\x03\x04" + b"\x00" * 60)
    (folder / "cut.pptx").write_bytes(b"PK\x05\x06" + b"\x00" * 18)
    (folder / "broken.json").write_bytes(b'{"id": 1, "text": "cut o')
    (folder / "broken.ipynb").write_bytes(b'{"cells": [')
    (folder / "legacy.txt").write_bytes("Grüße aus Köln, schönes Café".encode("cp1252"))
    (folder / "damaged.txt").write_bytes("Grüße aus Köln ".encode() * 40 + b"\xff\xfe and more words")
    (folder / "circle.md").symlink_to(folder / "circle.md")
    (folder / "dangling.md").symlink_to(folder / "nowhere.md")
    (folder / "round").symlink_to(folder)
    os.mkfifo(folder / "pipe.txt")
    (folder / "endless.txt").symlink_to("/dev/zero")
    (folder / "\udcff.txt").write_bytes(b"A name that is not UTF-8.")
    result = call(home, "ingest", folder, "--corpus", "junk", "--json")
    assert result.exit_code == 0
    assert result.stderr == ""
    report = one_object(result)
    told = {Path(each["path"]).name: each["reason"] for each in report["problems"]}
    assert len(told) == len(report["problems"])
    assert set(told) == set(reasons)
    for name, reason in reasons.items():
        assert reason in told[name], name
        assert name not in told[name]
        assert not re.search(r"[.:]\)?[.:]", told[name])
    # The two that only had to be repaired are in as well.
    assert report["added"] == 4
    people = call(home, "ingest", folder, "--corpus", "junk")
    assert people.exit_code == 0
    assert_harmless(people.output)
    assert len(people.stderr.splitlines()) == len(reasons) - 2
    assert_earlier_answers(home)


def test_a_file_that_may_not_be_read_is_named(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path / "junk", {"good.md": "The aardvark eats ants.", "secret.md": "Nobody reads this."})
    assert call(home, "ingest", folder, "--corpus", "junk").exit_code == 0
    if os.geteuid():
        (folder / "secret.md").chmod(0)
    else:
        # No permission stops root.
        real = Path.open

        def guarded(path: Path, *given: Any, **named: Any) -> Any:
            if path.name == "secret.md":
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return real(path, *given, **named)

        monkeypatch.setattr(Path, "open", guarded)
    result = call(home, "ingest", folder, "--corpus", "junk")
    assert result.exit_code == 0
    assert result.stderr == f"{folder / 'secret.md'}: Permission denied\n"


def test_a_time_that_no_calendar_has_is_no_obstacle(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = written(tmp_path / "far", {"far.md": "Written in the year thirty thousand."}) / "far.md"
    real = Path.stat

    class Far:
        def __init__(self, found: os.stat_result) -> None:
            self._found = found
            self.st_mtime = 9e11

        def __getattr__(self, name: str) -> Any:
            return getattr(self._found, name)

    monkeypatch.setattr(
        Path, "stat", lambda path, **k: Far(real(path, **k)) if path.name == "far.md" else real(path, **k)
    )
    assert one_object(call(home, "ingest", page, "--corpus", "far", "--json"))["added"] == 1


@pytest.mark.slow
def test_many_megabytes_in_one_line(home: Path, tmp_path: Path) -> None:
    solid = tmp_path / "solid.txt"
    solid.write_bytes(b"a" * SOLID)
    refused = call(home, "ingest", solid, "--corpus", "long")
    assert refused.exit_code == 1
    assert "without a space" in refused.stderr
    solid.unlink()
    # Long words, so that the passages are few and the test is quick; every byte goes the whole way all the same.
    word = "Donaudampfschifffahrtsgesellschaftskapitänskajütentürschlüsselloch" * 15
    words = tmp_path / "words.txt"
    words.write_text(" ".join([word] * (SOLID // len(f"{word} ".encode()))), encoding="utf-8")
    result = call(home, "ingest", words, "--corpus", "long", "--json")
    report = one_object(result)
    assert (report["added"], report["problems"]) == (1, [])
    assert report["passages"] > 60
    (found,) = objects(call(home, "search", "Schiff", "--corpus", "long", "--json", "--mode", "dense"))
    assert word in found["results"][0]["text"]
    assert_earlier_answers(home)


@pytest.mark.slow
def test_nasty_strings_as_contents_of_files(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "nasty"
    folder.mkdir()
    for number, text in enumerate((*STRINGS, *BLANK)):
        for suffix in TEXT_FORMATS:
            (folder / f"{number:02}.{suffix}").write_bytes(text.encode())
    fields = [
        {"id": text if text.strip() else number, "title": text, "text": f"Record {number}: {text}", text: text}
        for number, text in enumerate((*STRINGS, *BLANK, *UNPAIRED))
    ]
    jsonl(folder / "records.jsonl", fields)
    result = call(home, "ingest", folder, "--corpus", "nasty", "--json")
    assert result.exit_code == 0
    # On a slow machine, the progress is reported.
    assert [line for line in result.stderr.splitlines() if "passages/s" not in line] == []
    report = one_object(result)
    files = len((*STRINGS, *BLANK)) * len(TEXT_FORMATS) + 1
    named = {each["path"] for each in report["problems"]}
    assert report["added"] >= files - len(named)
    assert not any("bug" in each["reason"] or "Traceback" in each["reason"] for each in report["problems"])
    assert {str(folder / f"{STRINGS.index('*'):02}.txt")} & named == set()
    people = call(home, "ingest", folder, "--corpus", "nasty")
    assert people.exit_code == 0
    assert_harmless(people.output)
    # What was stored comes back without harm, and as it was stored.
    shown = call(home, "search", "owned record", "--corpus", "nasty", "-k", "200")
    assert shown.exit_code == 0
    assert_harmless(shown.output)
    (found,) = objects(call(home, "search", "owned record", "--corpus", "nasty", "-k", "200", "--json"))
    assert len(found["results"]) > 50
    assert_earlier_answers(home)


# Questions


@pytest.mark.slow
def test_nasty_strings_as_queries_and_questions_of_a_file(home: Path, tmp_path: Path) -> None:
    asked = (*STRINGS, *UNPAIRED)
    file = jsonl(tmp_path / "q.jsonl", [{"id": n, "text": text} for n, text in enumerate((*asked, *BLANK))])
    some = [text for text in asked if text.strip()][::3]
    few = jsonl(tmp_path / "few.jsonl", [{"id": n, "text": text} for n, text in enumerate(some)])
    for verb, option in (("search", "--queries"), ("ask", "--questions")):
        result = call(home, verb, option, file, "--corpus", "earlier", "--json")
        assert result.exit_code == 1
        told = objects(result)
        assert [each["id"] for each in told] == [n for n, text in enumerate(asked) if text.strip()]
        assert all(each.get("status", "answered") in ("answered", "abstained") for each in told)
        assert len(result.stderr.splitlines()) == len(asked) + len(BLANK) - len(told)
        people = call(home, verb, option, few, "--corpus", "earlier")
        assert_harmless(people.output)
    listed = call(home, "traces", "list", "--limit", "1000")
    assert_harmless(listed.output)
    assert len(listed.stdout.splitlines()) == 1 + len(told) + len(some)
    assert_earlier_answers(home)


def test_nasty_strings_as_arguments(home: Path) -> None:
    for text in STRINGS:
        if not text.strip() or "\x00" in text:
            continue
        narrowed = ["--source", text, "--title", text, "--glob", text]
        result = call(home, "search", "--corpus", "earlier", "--json", *narrowed, "--", text)
        assert result.exit_code == 0, result.output
        assert objects(result)[0]["results"] == []


@pytest.mark.parametrize("name", ["..", "a/b", "A", "", "-x", "a b", "a\x1b[31m", "é", "x" * 61, "../../etc"])
def test_a_nasty_name_of_a_corpus_is_refused(earlier: Path, bread: Path, name: str) -> None:
    for arguments in (["ingest", bread], ["search", "x"], ["ask", "x"]):
        if not name:
            continue
        result = call(earlier, *arguments, f"--corpus={name}")
        assert_one_line(result)
        assert_harmless(result.output)


# Stores that fail


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Another process in the middle of a write that does not end."""
    code = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('BEGIN EXCLUSIVE')\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        yield
        assert other.stdin is not None
        other.stdin.close()


def test_a_locked_database(home: Path, bread: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.database.BUSY_S", 0.2)
    with locked(home / "ragsmith.db"):
        assert_one_line(call(home, "ingest", bread, "--corpus", "later"), "database is locked", "Another process")
        assert_one_line(call(home, "corpora", "remove", "earlier", "--yes"), "database is locked")
        # Reading goes on beside a writer.
        assert call(home, "search", QUESTION, "--corpus", "earlier").exit_code == 0
        assert call(home, "corpora", "list").exit_code == 0
        assert "Traceback" not in call(home, "ask", QUESTION, "--corpus", "earlier").output
    assert_earlier_answers(home)
    assert_later_is_made_good(home, bread)


def test_a_database_that_is_none(home: Path) -> None:
    kept = (home / "ragsmith.db").read_bytes()
    for suffix in ("-wal", "-shm"):
        (home / f"ragsmith.db{suffix}").unlink(missing_ok=True)
    (home / "ragsmith.db").write_bytes(b"This is a letter to my aunt. " * 100)
    for arguments in (["ask", QUESTION], ["search", QUESTION], ["traces", "list"], ["corpora", "list"]):
        assert_one_line(call(home, *arguments), "ragsmith.db", "not a database")
    (home / "ragsmith.db").write_bytes(kept)
    assert_earlier_answers(home)


def test_a_chroma_server_that_is_down(home: Path, bread: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSMITH_CHROMA_URL", NOBODY)
    for arguments in (
        ["ingest", bread, "--corpus", "later"],
        ["search", QUESTION, "--corpus", "earlier"],
        ["ask", QUESTION, "--corpus", "earlier"],
        ["ask", QUESTION, "--corpus", "earlier", "--json"],
        ["corpora", "remove", "earlier", "--yes"],
    ):
        assert_one_line(call(home, *arguments), NOBODY, "does not answer", "chroma run")
    monkeypatch.delenv("RAGSMITH_CHROMA_URL")
    assert_earlier_answers(home)
    assert_later_is_made_good(home, bread)


def test_a_full_disk_as_sqlite_tells_it(home: Path, tmp_path: Path, bread: Path) -> None:
    from sqlalchemy import Engine, event

    many = written(tmp_path / "many", {f"{n}.md": f"Stone {n} lies in the river. " * 400 for n in range(20)})
    with closing(sqlite3.connect(home / "ragsmith.db")) as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()

    def limit(connection: Any, _record: object) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")

    event.listen(Engine, "connect", limit)
    try:
        assert_one_line(
            call(home, "ingest", many, "--corpus", "later"), "the disk is full", "run the command again"
        )
    finally:
        event.remove(Engine, "connect", limit)
    assert_earlier_answers(home)
    assert_later_is_made_good(home, bread)


@pytest.mark.parametrize(
    ("owner", "name"),
    [("rag.encoders.network_conversion.tempfile", "mkdtemp"), ("rag.workspace.Path", "write_bytes")],
)
def test_a_full_disk_as_the_system_tells_it(
    tmp_path: Path, bread: Path, owner: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rag.encoders.encoder_opening import open_encoder

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # The real one again: it is the conversion that finds the disk full.
    monkeypatch.setattr("rag.encoders.open_encoder", open_encoder)
    monkeypatch.setattr(f"{owner}.{name}", full)
    result = call(tmp_path / "new", "ingest", bread, "--corpus", "later")
    assert result.exit_code == 1
    assert "the disk is full" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.output


IN_A_SMALL_WORLD = """
import json, sys
from pathlib import Path
from click.testing import CliRunner
import rag.indexing.dense_index, rag.indexing.corpus_index, rag.indexing.lexical_index
from ui.cli import cli

stages = {
    "dense": (rag.indexing.dense_index.DenseIndex, "add"),
    "lexical": (rag.indexing.lexical_index.LexicalIndex, "write"),
    "database": (rag.indexing.corpus_index.CorpusIndex, "_set_state"),
}
disks, earlier, later = map(Path, sys.argv[1:])

def call(home, *arguments):
    result = CliRunner().invoke(cli, ["--home", str(home), *map(str, arguments)])
    return [result.exit_code, result.stdout, result.stderr]

def fill(filler):
    with filler.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 65_536)
        except OSError:
            pass

def fills_up(stage):
    home = disks / stage / "home"
    told = [call(home, "ingest", earlier, "--corpus", "earlier")]
    owner, name = stages[stage]
    real = getattr(owner, name)
    filler = home / "filler"
    setattr(owner, name, lambda *given, **named: (fill(filler), real(*given, **named))[1])
    told.append(call(home, "ingest", later, "--corpus", "later"))
    setattr(owner, name, real)
    filler.unlink()
    told.append(call(home, "ask", "What is the herring eaten with?", "--corpus", "earlier", "--json"))
    told.append(call(home, "ingest", later, "--corpus", "later", "--json"))
    told.append(call(home, "search", "rye bread", "--corpus", "later", "--json"))
    return told

print(json.dumps({stage: fills_up(stage) for stage in stages}))
"""
STAGES = ("dense", "lexical", "database")


def own_disks() -> bool:
    """Whether a process may have a small disk of its own here: Linux with user namespaces."""
    try:
        return not subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode
    except OSError:
        return False


@pytest.fixture(scope="module")
def full_disks(
    converted_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[tuple[int, str, str]]]:
    """What commands said in one process, for each stage on a small disk of its own that fills up there."""
    folder = tmp_path_factory.mktemp("disks")
    words = "amber basalt cedar dune ember fjord granite harbour island jungle kelp lagoon".split()
    filling = "\n\n".join(" ".join(words[(n * k) % 12] for k in range(1, 160)) + f" {n}." for n in range(60))
    earlier = written(folder / "earlier", EARLIER)
    later = written(folder / "later", {"bread.md": f"Rye bread is baked at five.\n\n{filling}"})
    prepared = [
        f'mkdir "{disk}" && mount -t tmpfs -o size=6m none "{disk}" && mkdir "{disk}/home" '
        f'&& ln -s "{converted_models}" "{disk}/home/models"'
        for disk in (folder / stage for stage in STAGES)
    ]
    inside = [sys.executable, "-c", IN_A_SMALL_WORLD, str(folder), str(earlier), str(later)]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f'{" && ".join(prepared)} && exec "$@"', "sh", *inside],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAGSMITH_TRACKING__WANDB": "off"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.skipif(not own_disks(), reason="needs user namespaces, to mount a small disk")
@pytest.mark.parametrize("stage", STAGES)
def test_a_disk_that_fills_up_in_the_middle(stage: str, full_disks: dict[str, list[tuple[int, str, str]]]) -> None:
    first, failed, answer, again, found = full_disks[stage]
    assert first[0] == 0
    assert failed[:2] == [1, ""]
    lines = [line for line in failed[2].splitlines() if not line.startswith(("0/1 ", "1/1 "))]
    assert len(lines) == 1, failed[2]
    assert "the disk is full" in lines[0]
    assert "onions" in json.loads(answer[1])["answer"]
    assert again[0] == 0
    assert json.loads(again[1])["added"] == 1
    assert json.loads(found[1])["results"][0]["text"].startswith("Rye bread")


def test_an_index_that_another_process_is_writing(home: Path, tmp_path: Path, bread: Path) -> None:
    import tantivy

    new = written(tmp_path / "new", {"new.md": "A new page about the seal."})
    (folder,) = (home / "lexical").iterdir()
    writer = tantivy.Index.open(str(folder)).writer()
    result = call(home, "ingest", new, "--corpus", "earlier")
    assert_one_line(result, "lexical index", "Another ragsmith process")
    writer.wait_merging_threads()
    assert_earlier_answers(home)
    assert one_object(call(home, "ingest", new, "--corpus", "earlier", "--json"))["added"] == 1
    assert_later_is_made_good(home, bread)


def test_a_workspace_that_cannot_be_one(tmp_path: Path, bread: Path) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    for home in (tmp_path / "file" / "below", Path("/proc/nowhere")):
        assert_one_line(call(home, "ingest", bread), "Cannot use the workspace", "RAGSMITH_HOME")


def test_an_index_whose_folder_is_gone(home: Path, earlier: Path) -> None:
    shutil.rmtree(home / "lexical")
    result = call(home, "ask", QUESTION, "--corpus", "earlier")
    assert "Traceback" not in result.output
    assert "bug" not in result.output
    again = call(home, "ingest", earlier.parent / "earlier", "--corpus", "earlier")
    assert again.exit_code == 0
