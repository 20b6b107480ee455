"""The commands ingest, traces, corpora and serve."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import _NamedTextIOWrapper
from terminal import assert_one_line, call, one_object
from tiny import CORPUS, OFF_TOPIC, PAGES, QUESTION, written
from web_site import site

from rag.indexing.ingest_report import IngestProgress
from rag.settings import Settings
from rag.tracing.trace_store import Status
from ui.app.app import App
from ui.commands import _progress
from ui.commands import traces_command as traces

pytestmark = pytest.mark.usefixtures("one_encoder")


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    return written(tmp_path / "pages", PAGES)


# ingest


def test_ingest_ends_with_a_summary(home: Path, pages: Path) -> None:
    (pages / "chart.xcf").write_bytes(b"\0\1")
    result = call(home, "ingest", pages, "--corpus", CORPUS)
    assert result.exit_code == 0
    rows = dict(line.rsplit(maxsplit=1) for line in result.stdout.splitlines())
    assert rows["Corpus"] == CORPUS
    assert (rows["files added"], rows["files of other formats"], rows["problems"]) == ("5", "1", "0")
    assert int(rows["passages embedded"]) >= 5
    assert result.stderr == "Files of other formats: chart.xcf\n"


def test_ingest_gives_its_report_as_json(home: Path, pages: Path) -> None:
    first = one_object(call(home, "ingest", pages, "--corpus", CORPUS, "--json"))
    again = one_object(call(home, "ingest", pages, "--corpus", CORPUS, "--json"))
    assert (first["corpus"], first["added"], first["unchanged"]) == (CORPUS, 5, 0)
    assert (again["added"], again["unchanged"], again["passages"]) == (0, 5, 0)
    assert first["problems"] == again["problems"] == []
    assert first["stopped"] is False


def test_where_nothing_can_be_read_the_status_says_so(home: Path, tmp_path: Path) -> None:
    (tmp_path / "a.md").touch()
    (tmp_path / "none").mkdir()
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "a.xcf").touch()
    for path, part in (("a.md", "1 problem"), ("none", "no files"), ("others", "unknown formats")):
        result = call(home, "ingest", tmp_path / path, "--corpus", CORPUS)
        assert result.exit_code == 1
        assert result.stderr.splitlines()[-1].startswith("Error: Nothing could be read")
        assert part in result.stderr.splitlines()[-1]
    assert one_object(call(home, "corpora", "list", "--json")) == []


def test_a_folder_that_was_emptied_is_no_failure(home: Path, pages: Path) -> None:
    call(home, "ingest", pages, "--corpus", CORPUS)
    for page in pages.iterdir():
        page.unlink()
    result = call(home, "ingest", pages, "--corpus", CORPUS, "--json")
    assert result.exit_code == 0
    assert one_object(result)["deleted"] == 5


def test_a_path_that_is_not_there_makes_no_corpus(home: Path) -> None:
    assert_one_line(call(home, "ingest", "nowhere", "--corpus", CORPUS), "The path nowhere does not exist")
    assert one_object(call(home, "corpora", "list", "--json")) == []


def test_without_a_name_the_settings_decide(home: Path, pages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSMITH_CORPUS", "pier")
    assert call(home, "ingest", pages).exit_code == 0
    assert [each["name"] for each in one_object(call(home, "corpora", "list", "--json"))] == ["pier"]


def test_a_second_concurrent_ingestion_is_refused(home: Path, pages: Path) -> None:
    from rag.workspace import open_workspace

    with open_workspace(home).writing("test"):
        assert_one_line(call(home, "ingest", pages), "another ragsmith process is writing")


def test_the_first_conversion_of_the_encoder_is_announced(tmp_path: Path, pages: Path) -> None:
    result = call(tmp_path / "bare", "ingest", pages, "--corpus", CORPUS)
    assert "Preparing the encoder for this machine" in result.stderr


def test_progress_in_words() -> None:
    assert _progress.describe(IngestProgress(12, 40, 1812, 96.4, 41.2)) == (
        "12/40 files, 1,812 passages, 96 passages/s, 0:41 left"
    )
    assert _progress.describe(IngestProgress(0, 3, 0, 0.0, None)) == "0/3 files, 0 passages"
    assert _progress.describe(IngestProgress(1, 3, 1, 0.4, 3725.0)).endswith(
        "1 passage, 0 passages/s, 1:02:05 left"
    )


def test_without_a_terminal_progress_is_printed_in_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_progress, "LINE_EVERY_S", 0.0)
    with _progress.ingest_progress() as show:
        show(IngestProgress(1, 3, 7, 2.0, None))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "1/3 files, 7 passages, 2 passages/s\n"


def test_the_last_line_of_progress_has_the_final_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_progress, "LINE_EVERY_S", 0.0)
    with _progress.ingest_progress() as show:
        show(IngestProgress(3, 3, 7, 2.0, 2.0))
        monkeypatch.setattr(_progress, "LINE_EVERY_S", 60.0)
        show(IngestProgress(3, 3, 9, 2.0, 1.0))
        show(IngestProgress(3, 3, 12, 2.0, 0.0))
    assert capsys.readouterr().err.splitlines()[1:] == ["3/3 files, 12 passages, 2 passages/s"]


def test_on_a_terminal_progress_is_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with _progress.ingest_progress() as show:
        show(IngestProgress(1, 3, 7, 2.0, 9.0))
        show(IngestProgress(2, 3, 9, 2.0, None))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "2/3 files, 9 passages" in captured.err


# traces


def asked_twice(home: Path, pages: Path) -> Path:
    call(home, "ingest", pages, "--corpus", CORPUS)
    for question in (QUESTION, OFF_TOPIC):
        assert call(home, "ask", question, "--corpus", CORPUS).exit_code == 0
    return home


def test_traces_are_listed_newest_first(home: Path, pages: Path) -> None:
    assert call(home, "traces", "list").stdout == "There are no traces.\n"
    asked_twice(home, pages)
    result = call(home, "traces", "list")
    rows = result.stdout.splitlines()[1:]
    assert [("abstained" in row, "ok" in row) for row in rows] == [(True, False), (False, True)]
    assert QUESTION in rows[1]
    assert result.stderr == ""
    limited = call(home, "traces", "list", "--limit", "1")
    assert len(limited.stdout.splitlines()) == 2
    assert limited.stderr == "Showing the newest 1 of 2; --limit shows more.\n"
    told = one_object(call(home, "traces", "list", "--json"))
    assert [each["question"] for each in told] == [OFF_TOPIC, QUESTION]
    assert "spans" not in told[0]
    for options in (["--status", "abstained"], ["--text", "VERDI"]):
        some = one_object(call(home, "traces", "list", "--json", *options))
        assert [each["question"] for each in some] == [OFF_TOPIC]


def test_a_trace_shows_its_steps(home: Path, pages: Path) -> None:
    asked_twice(home, pages)
    trace = one_object(call(home, "traces", "list", "--json"))[1]
    result = call(home, "traces", "show", trace["id"][-8:])
    assert result.exit_code == 0
    assert f"question {QUESTION}" in result.stdout
    steps = ["condense", "retrieve", "prompt", "generate", "ground"]
    places = [result.stdout.index(f"─ {step}  ") for step in steps]
    assert places == sorted(places)
    assert re.search(r"answer  [\d.]+ m?s · 100% · ", result.stdout)
    assert "tokens · " in result.stdout
    assert "more characters: --full)" in result.stdout
    assert all(len(line) < 300 for line in result.stdout.splitlines())
    full = call(home, "traces", "show", trace["id"], "--full").stdout
    assert "more characters" not in full
    assert "muzzle" in full
    told = one_object(call(home, "traces", "show", trace["id"], "--json"))
    assert told["id"] == trace["id"]
    assert {span["name"] for span in told["spans"]} >= set(steps)


def test_a_trace_that_is_not_there_is_named(harbour: Path) -> None:
    assert_one_line(call(harbour, "traces", "show", "0" * 12), "000000000000")
    assert_one_line(call(harbour, "traces", "show", "ab"), "6 characters")


def test_traces_can_be_filtered_by_every_status() -> None:
    assert set(traces.STATUSES) == set(get_args(Status))


# corpora


def test_a_list_does_not_prepare_the_encoder(tmp_path: Path) -> None:
    result = call(tmp_path / "bare", "corpora", "list")
    assert (result.exit_code, result.stderr) == (0, "")
    assert not (tmp_path / "bare" / "models").exists()


def test_corpora_are_listed_and_removed(home: Path, pages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no corpus yet" in call(home, "corpora", "list").stdout
    for name in ("one", "two", "three"):
        call(home, "ingest", pages, "--corpus", name)
    rows = call(home, "corpora", "list").stdout.splitlines()
    assert [row.split()[:3] for row in rows[1:]] == [[name, "5", "5"] for name in ("one", "three", "two")]
    assert_one_line(call(home, "corpora", "remove", "one"), "--yes")
    assert_one_line(call(home, "corpora", "remove", "four"), "no corpus four")
    assert call(home, "corpora", "remove", "one", "--yes").output == "Removed the corpus one.\n"
    monkeypatch.setattr(_NamedTextIOWrapper, "isatty", lambda _: True, raising=False)
    kept = call(home, "corpora", "remove", "two", input="n\n")
    assert (kept.exit_code, kept.stdout) == (1, "")
    assert "Nothing was removed." in kept.stderr
    removed = call(home, "corpora", "remove", "two", input="y\n")
    assert (removed.exit_code, removed.stdout) == (0, "Removed the corpus two.\n")
    left = one_object(call(home, "corpora", "list", "--json"))
    assert [(each["name"], each["files"], each["current"]) for each in left] == [("three", 5, True)]
    assert (pages / "tides.md").exists()


def test_the_files_of_a_corpus_are_shown_and_forgotten(home: Path, pages: Path) -> None:
    call(home, "ingest", pages, "--corpus", "one")
    moved = pages.rename(pages.with_name("moved"))
    call(home, "ingest", moved, "--corpus", "one")
    rows = call(home, "corpora", "show", "one").stdout.splitlines()[1:]
    gone = [row.split()[0] for row in rows if "no longer exists" in row]
    assert len(rows) == 10
    assert gone == [f"pages/{name}" for name in sorted(PAGES)]
    assert_one_line(call(home, "ingest", pages, "--corpus", "one"), "does not exist", "corpora forget")
    assert_one_line(call(home, "corpora", "forget", "one", pages), "--yes")
    assert (
        call(home, "corpora", "forget", "one", pages, "--yes").output == "Removed 5 files from the corpus one.\n"
    )
    assert call(home, "corpora", "forget", "one", "tides.md", "--yes").output.startswith("Removed 1 file from")
    left = one_object(call(home, "corpora", "show", "one", "--json"))
    assert {each["name"] for each in left} == {f"moved/{name}" for name in PAGES if name != "tides.md"}
    found = one_object(call(home, "search", "tide", "--corpus", "one", "-k", "20", "--json"))
    assert {each["name"] for each in found["results"]} == {each["name"] for each in left}
    assert (moved / "tides.md").exists()
    assert_one_line(call(home, "corpora", "forget", "one", "tides.md", "--yes"), "no file or folder tides.md")
    assert_one_line(call(home, "corpora", "show", "two"), "no corpus two")


def test_a_file_is_shown_with_what_of_it_could_not_be_read(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "gauges.jsonl"
    file.write_text('{"id": "g1", "text": "The gauge stands in the lock."}\n{"id": "g2", "text": \n')
    call(home, "ingest", file, "--corpus", "one")
    assert "gauges.jsonl: line 2: not valid JSON" in call(home, "corpora", "show", "one").stdout
    (shown,) = one_object(call(home, "corpora", "show", "one", "--json"))
    assert (shown["documents"], shown["passages"]) == (1, 1)
    assert [problem[:7] for problem in shown["problems"]] == ["line 2:"]


def test_a_page_is_cited_renewed_and_forgotten_by_its_address(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with site() as web:
        address = web.serve(
            "/ferry/fees", "text/html", "<title>Ferry</title><p>The ferry takes 12 euro a car.</p>"
        )
        assert_one_line(call(home, "ingest", address, "--corpus", "one"), "private address")
        monkeypatch.setenv("RAGSMITH_INGEST__PRIVATE_ADDRESSES", "true")
        assert one_object(call(home, "ingest", address, "--corpus", "one", "--json"))["added"] == 1
        web.serve("/ferry/fees", "text/plain", "The ferry takes 15 euro a car.")
        assert one_object(call(home, "ingest", address, "--corpus", "one", "--json"))["passages"] == 1
        web.serve("/ferry/fees", "text/plain", "")
        emptied = call(home, "ingest", address, "--corpus", "one")
        assert emptied.exit_code == 1
        assert f"{address}: is empty" in emptied.stderr
    found = one_object(call(home, "search", "ferry fee", "--corpus", "one", "--source", address, "--json"))
    assert [(each["name"], each["text"]) for each in found["results"]] == [
        (address, "The ferry takes 15 euro a car.")
    ]
    assert call(home, "corpora", "forget", "one", address, "--yes").exit_code == 0
    assert list((home / "uploads" / "one").iterdir()) == []


# serve


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Settings, bool, list[str]]]]:
    """What the server was started with: settings, whether to open a browser, and the corpora there were."""
    starts: list[tuple[Settings, bool, list[str]]] = []

    def serve(app: App, *, open_browser: bool) -> None:
        starts.append((app.settings, open_browser, app.stores.corpus_names()))

    monkeypatch.setattr("ui.server.serve", serve)
    return starts


def test_serve_adds_the_sample_and_starts(
    home: Path, pages: Path, served: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ui.app.stores.sample_pages", lambda: pages)
    result = call(home, "serve", "--host", "localhost", "--port", "0", "--open", "--corpus", "notes")
    assert result.exit_code == 0, result.output
    settings, open_browser, corpora = served[0]
    assert (settings.host, settings.port, settings.corpus) == ("localhost", 0, "notes")
    assert open_browser is True
    assert corpora == ["handbook"]
    assert "sample corpus" in result.stderr
    assert call(home, "serve", "--port", "0").stderr == ""
    assert served[1][1] is False


def test_a_port_that_is_taken_is_reported_before_any_work(home: Path, served: list[Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_one_line(call(home, "serve", "--port", str(port)), f"Port {port}", "taken")
    assert served == []
