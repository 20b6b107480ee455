"""The commands as a person uses them: what they print, where, and with which status they end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import _NamedTextIOWrapper
from scripted_openai import Received, Reply, chunk, scripted_openai
from terminal import assert_harmless, assert_one_line, call, jsonl, objects, one_object, start
from tiny import CORPUS, OFF_TOPIC, PAGES, QUESTION, SENTENCE, written

from rag.assistant import Ask
from rag.documents import Hit, Passage
from rag.encoder import Encoder
from rag.events import Answer, Citation, Done, Event, Retrieved, Started, Token
from rag.ingest import IngestProgress
from rag.settings import Settings
from rag.traces import Status
from ui.commands import _answers, _progress, _text, ingest, traces
from ui.wiring import Workbench

WARNING = "A red lamp on the pier warns of storm surges."


@pytest.fixture(autouse=True)
def _one_encoder(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real encoder, loaded once for all commands."""
    monkeypatch.setattr("rag.encoder.open_encoder", lambda *_: encoder)


def made_home(folder: Path, models: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "models").symlink_to(models)
    return folder


@pytest.fixture(scope="module")
def harbour(converted_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a corpus of a few pages; tests only read it, and ask."""
    folder = tmp_path_factory.mktemp("commands")
    home = made_home(folder / "home", converted_models)
    assert call(home, "ingest", written(folder / "pages", PAGES), "--corpus", CORPUS).exit_code == 0
    return home


@pytest.fixture
def home(tmp_path: Path, converted_models: Path) -> Path:
    """A workspace of the test's own."""
    return made_home(tmp_path / "home", converted_models)


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
    assert result.stderr == ""


def test_ingest_gives_its_report_as_json(home: Path, pages: Path) -> None:
    first = one_object(call(home, "ingest", pages, "--corpus", CORPUS, "--json"))
    again = one_object(call(home, "ingest", pages, "--corpus", CORPUS, "--json"))
    assert (first["corpus"], first["added"], first["unchanged"]) == (CORPUS, 5, 0)
    assert (again["added"], again["unchanged"], again["passages"]) == (0, 5, 0)
    assert first["problems"] == again["problems"] == []
    assert first["stopped"] is False


def test_every_file_that_cannot_be_read_is_named(home: Path, pages: Path) -> None:
    for number in range(40):
        (pages / f"empty-{number}.md").touch()
    result = call(home, "ingest", pages, "--corpus", CORPUS)
    assert result.exit_code == 0
    lines = result.stderr.splitlines()
    assert len(lines) == 40
    assert all("is empty" in line for line in lines)
    assert {Path(line.partition(":")[0]).name for line in lines} == {f"empty-{n}.md" for n in range(40)}


def test_where_nothing_can_be_read_the_status_says_so(home: Path, tmp_path: Path) -> None:
    (tmp_path / "a.md").touch()
    (tmp_path / "none").mkdir()
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "a.xcf").touch()
    for path, part in (("a.md", "1 problem"), ("none", "no file"), ("others", "formats that are not known")):
        result = call(home, "ingest", tmp_path / path, "--corpus", CORPUS)
        assert result.exit_code == 1
        assert result.stderr.splitlines()[-1].startswith("Error: Nothing could be read")
        assert part in result.stderr.splitlines()[-1]


def test_a_folder_that_was_emptied_is_no_failure(home: Path, pages: Path) -> None:
    call(home, "ingest", pages, "--corpus", CORPUS)
    for page in pages.iterdir():
        page.unlink()
    result = call(home, "ingest", pages, "--corpus", CORPUS, "--json")
    assert result.exit_code == 0
    assert one_object(result)["deleted"] == 5


def test_a_path_that_is_not_there_makes_no_corpus(home: Path) -> None:
    assert_one_line(call(home, "ingest", "nowhere", "--corpus", CORPUS), "no file or folder nowhere")
    assert one_object(call(home, "corpora", "list", "--json")) == []


def test_a_name_that_cannot_be_a_corpus_is_refused(home: Path, pages: Path) -> None:
    assert_one_line(call(home, "ingest", pages, "--corpus", "My Notes"), "'My Notes'", "lower-case")


def test_without_a_name_the_settings_decide(home: Path, pages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSMITH_CORPUS", "pier")
    assert call(home, "ingest", pages).exit_code == 0
    assert [each["name"] for each in one_object(call(home, "corpora", "list", "--json"))] == ["pier"]


def test_a_second_ingestion_at_once_is_told_to_wait(home: Path, pages: Path) -> None:
    from rag.workspace import open_workspace

    with open_workspace(home).writing("test"):
        assert_one_line(call(home, "ingest", pages), "another ragsmith process is writing")


def test_the_first_conversion_of_the_encoder_is_told(tmp_path: Path, pages: Path) -> None:
    result = call(tmp_path / "bare", "ingest", pages, "--corpus", CORPUS)
    assert "Preparing the encoder for this machine" in result.stderr


def test_progress_in_words() -> None:
    assert _progress.told(IngestProgress(12, 40, 1812, 96.4, 41.2)) == (
        "12/40 files, 1,812 passages, 96 passages/s, 0:41 left"
    )
    assert _progress.told(IngestProgress(0, 3, 0, 0.0, None)) == "0/3 files, 0 passages"
    assert _progress.told(IngestProgress(1, 3, 1, 0.4, 3725.0)).endswith("1 passage, 0 passages/s, 1:02:05 left")


def test_elsewhere_than_on_a_terminal_progress_comes_in_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_progress, "LINE_EVERY_S", 0.0)
    with _progress.progress() as show:
        show(IngestProgress(1, 3, 7, 2.0, None))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "1/3 files, 7 passages, 2 passages/s\n"


def test_on_a_terminal_progress_is_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with _progress.progress() as show:
        show(IngestProgress(1, 3, 7, 2.0, 9.0))
        show(IngestProgress(2, 3, 9, 2.0, None))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "2/3 files, 9 passages" in captured.err


# search


def test_search_shows_what_was_found_and_why(harbour: Path) -> None:
    result = call(harbour, "search", "storm surges", "--corpus", CORPUS, "-k", "2")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith(" 1  pages/tides.md")
    assert "Warnings" in lines[0]
    assert "dense: rank 1, cosine 0." in lines[1]
    assert "lexical: rank 1, BM25 " in lines[1]
    assert WARNING in result.stdout
    assert sum(line.startswith((" 1 ", " 2 ", " 3 ")) for line in lines) == 2
    assert result.stderr == ""


def test_a_snippet_marks_the_words_of_the_query_in_every_form(bench: Workbench) -> None:
    from ui.commands.search import _snippet

    lexical = bench.index().lexical
    text = (
        f"{'Nothing of interest stands here. ' * 40}A surge [bold]warned[/bold] of storms.{' More follows.' * 40}"
    )
    shown = _snippet(text, set(lexical.words("storm surges warning")), lexical)
    marked = [shown.plain[span.start : span.end] for span in shown.spans if "bold" in str(span.style)]
    assert marked == ["surge", "warned", "storms"]
    assert shown.plain.startswith("… ")
    assert shown.plain.endswith(" …")
    assert "[bold]warned[/bold]" in shown.plain
    assert len(shown.plain) < 400


def test_search_prints_one_object_for_a_query(harbour: Path, bench: Workbench) -> None:
    result = call(harbour, "search", QUESTION, "--corpus", CORPUS, "--json", "-k", "3")
    (found,) = objects(result)
    assert list(found) == ["id", "query", "results"]
    assert (found["id"], found["query"], len(found["results"])) == ("", QUESTION, 3)
    first = found["results"][0]
    assert {"source", "page", "score", "text", "start", "end", "metadata"} <= set(first)
    assert (first["name"], first["title"], first["page"]) == ("pages/tides.md", "Tides", None)
    assert (first["dense_rank"], first["lexical_rank"]) == (1, 1)
    assert Path(first["source"]).read_text(encoding="utf-8")[first["start"] : first["end"]] == first["text"]
    assert [each["score"] for each in found["results"]] == sorted(
        (each["score"] for each in found["results"]), reverse=True
    )


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--source", "ferries.md"], {"pages/ferries.md"}),
        (["--title", "the bakery"], {"pages/bread.md"}),
        (["--glob", "*/l*.md"], {"pages/library.md", "pages/letters.md"}),
        (["--page", "2"], set()),
        (["--before", "1999-12-31"], set()),
        (["--after", "2000-01-01", "--glob", "pages/t*"], {"pages/tides.md"}),
        (["--source", "ferries.md", "--title", "Tides"], set()),
    ],
)
def test_search_can_be_narrowed(harbour: Path, options: list[str], names: set[str]) -> None:
    result = call(harbour, "search", QUESTION, "--corpus", CORPUS, "--json", "-k", "50", *options)
    assert result.exit_code == 0
    assert {each["name"] for each in objects(result)[0]["results"]} == names


@pytest.mark.parametrize(("mode", "absent"), [("dense", "lexical_rank"), ("lexical", "dense_rank")])
def test_one_side_can_be_searched_alone(harbour: Path, mode: str, absent: str) -> None:
    (found,) = objects(call(harbour, "search", QUESTION, "--corpus", CORPUS, "--json", "--mode", mode))
    assert found["results"]
    assert all(each[absent] is None for each in found["results"])


def test_nothing_found_is_said(harbour: Path) -> None:
    result = call(harbour, "search", "xylophone", "--corpus", CORPUS, "--mode", "lexical")
    assert (result.exit_code, result.stdout) == (0, "Nothing was found.\n")


def test_many_queries_are_searched_in_one_run(harbour: Path, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "queries.jsonl", [{"id": "q1", "text": "tides"}, {"_id": 7, "text": "ferry"}])
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes() + b"\n   \n" + b'{"id": 0, "text": "bread", "x": [1]}')
    result = call(harbour, "search", "--queries", file, "--json", "--corpus", CORPUS)
    assert result.exit_code == 0
    assert [each["id"] for each in objects(result)] == ["q1", 7, 0]
    assert [each["results"][0]["name"] for each in objects(result)] == [
        "pages/tides.md",
        "pages/ferries.md",
        "pages/bread.md",
    ]
    people = call(harbour, "search", "--queries", file, "--corpus", CORPUS, "-k", "1")
    assert [line for line in people.stdout.splitlines() if line[:1].strip()] == [
        "q1: tides",
        "7: ferry",
        "0: bread",
    ]


def test_a_bad_line_is_named_and_the_others_go_on(harbour: Path, tmp_path: Path) -> None:
    bad = [
        (b"{", "not JSON"),
        (b"[1]", "no JSON object"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"text": "no id"}', "no id"),
        (b'{"id": true, "text": "no id"}', "no id"),
        (b'{"id": 1.5, "text": "no id"}', "no id"),
        (b'{"id": "a"}', "no text in text"),
        (b'{"id": "a", "text": "  "}', "no text in text"),
        (b'{"id": "a", "text": 5}', "no text in text"),
        (b"[" * 100_000, "not JSON"),
    ]
    good = b'{"id": "good", "text": "ferry"}'
    file = tmp_path / "queries.jsonl"
    file.write_bytes(b"\n".join([good, *(line for line, _ in bad), good]))
    result = call(harbour, "search", "--queries", file, "--json", "--corpus", CORPUS)
    assert result.exit_code == 1
    assert [each["id"] for each in objects(result)] == ["good", "good"]
    told = result.stderr.splitlines()
    assert len(told) == len(bad)
    for number, (line, (_, reason)) in enumerate(zip(told, bad, strict=True), 2):
        assert line.startswith(f"{file}, line {number} ")
        assert reason in line


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["search"], "Give either a query or --queries"),
        (["search", "a", "--queries", "f"], "Give either a query or --queries"),
        (["search", "  "], "The query is empty"),
        (["search", "--queries", "nowhere.jsonl"], "There is no file nowhere.jsonl"),
        (["search", "a", "-k", "0"], "-k"),
        (["search", "a", "--mode", "fuzzy"], "--mode"),
        (["search", "a", "--after", "yesterday"], "--after"),
        (["ask"], "Give either a question or --questions"),
        (["ask", "a", "--questions", "f"], "Give either a question or --questions"),
        (["ask", "\n"], "The question is empty"),
        (["ask", "--questions", "nowhere.jsonl"], "There is no file nowhere.jsonl"),
        (["ingest"], "PATH"),
        (["traces", "list", "--limit", "0"], "--limit"),
        (["traces", "list", "--status", "sad"], "--status"),
        (["serve", "--port", "70000"], "--port"),
    ],
)
def test_a_wrong_call_is_told_and_does_nothing(home: Path, arguments: list[str], part: str) -> None:
    result = call(home, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert part in result.stderr.splitlines()[-1]
    assert not (home / "ragsmith.db").exists()


@pytest.mark.parametrize("verb", ["search", "ask"])
def test_a_corpus_that_is_not_there_is_named_with_those_that_are(harbour: Path, verb: str) -> None:
    assert_one_line(call(harbour, verb, "tide", "--corpus", "harbor"), "no corpus harbor", CORPUS)


# ask


def test_ask_prints_answer_sources_and_a_footer(harbour: Path) -> None:
    result = call(harbour, "ask", QUESTION, "--corpus", CORPUS)
    assert result.exit_code == 0, result.output
    answer, _, rest = result.stdout.partition("\n\nSources\n")
    assert answer.startswith(f"{SENTENCE} [1]")
    sources, _, footer = rest.partition("\n\n")
    assert sources.splitlines()[:2] == ["[1] pages/tides.md", f"    “{SENTENCE}”"]
    assert sources.count("[1]") == 1
    seconds, tokens, cost, prompt, trace = footer.strip().split(" · ")
    assert seconds.endswith(" s")
    assert tokens.endswith(" tokens")
    assert "$" in cost
    assert prompt.startswith("answer@")
    assert call(harbour, "traces", "show", trace.removeprefix("trace ")).exit_code == 0
    assert result.stderr == ""


def test_a_refusal_is_no_failure_and_shows_the_nearest(harbour: Path) -> None:
    result = call(harbour, "ask", OFF_TOPIC, "--corpus", CORPUS)
    assert result.exit_code == 0
    assert "do not answer" in result.stdout
    assert "\nNearest passages\n  - pages/" in result.stdout
    assert "Sources" not in result.stdout


def test_ask_prints_one_object(harbour: Path) -> None:
    result = call(harbour, "ask", QUESTION, "--corpus", CORPUS, "--json")
    (told,) = objects(result)
    assert list(told) == [
        "id",
        "question",
        "answer",
        "status",
        "error",
        "citations",
        "sources",
        "support",
        "latency_s",
        "input_tokens",
        "output_tokens",
        "cost_usd",
        "trace_id",
        "prompt",
        "release",
        "model",
    ]
    assert (told["id"], told["question"], told["status"], told["model"]) == ("", QUESTION, "answered", "embedded")
    first = told["citations"][0]
    assert set(first) == {"marker", "source", "name", "page", "start", "end", "quote", "support"}
    assert (first["marker"], first["quote"]) == (1, SENTENCE)
    assert Path(first["source"]).read_text(encoding="utf-8")[first["start"] : first["end"]] == SENTENCE
    assert set(told["sources"][0]) == {"source", "name", "page", "score"}
    assert told["input_tokens"] > told["output_tokens"] > 0
    assert told["cost_usd"] > 0


def test_a_question_can_come_from_the_input(harbour: Path) -> None:
    result = call(harbour, "ask", "-", "--corpus", CORPUS, "--json", input=f"{QUESTION}\n")
    assert objects(result)[0]["question"] == QUESTION
    empty = call(harbour, "ask", "-", "--corpus", CORPUS, input="\n")
    assert "The question is empty" in empty.stderr


def test_many_questions_are_answered_in_one_run(harbour: Path, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "q.jsonl", [{"id": "a", "question": QUESTION}, {"id": 2, "text": OFF_TOPIC}])
    result = call(harbour, "ask", "--questions", file, "--corpus", CORPUS, "--json")
    assert result.exit_code == 0
    assert [(each["id"], each["status"]) for each in objects(result)] == [("a", "answered"), (2, "abstained")]
    people = call(harbour, "ask", "--questions", file, "--corpus", CORPUS)
    assert f"a: {QUESTION}\n{SENTENCE}" in people.stdout
    file.write_text(file.read_text(encoding="utf-8") + "{}\n", encoding="utf-8")
    assert call(harbour, "ask", "--questions", file, "--corpus", CORPUS, "--json").exit_code == 1


def answering(monkeypatch: pytest.MonkeyPatch, script: Callable[[str], list[Event]]) -> None:
    """Let the workbench answer by a script."""

    async def ask(_bench: Workbench, request: Ask) -> AsyncIterator[Event]:
        yield Started("0")
        for event in script(request.question):
            yield event

    monkeypatch.setattr(Workbench, "ask", ask)


def test_an_answer_that_was_withdrawn_is_not_left_standing(harbour: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = Answer("The documents do not say.", "abstained")
    answering(monkeypatch, lambda _: [Token("It was "), Token("Napoleon. [1]"), Done(refusal)])
    result = call(harbour, "ask", "Who?", "--corpus", CORPUS)
    assert result.stdout.startswith(
        "It was Napoleon. [1]\n\nThe passages do not support what is written above. The answer is:\n"
        "The documents do not say.\n"
    )


def test_a_dropped_marker_does_not_repeat_the_answer(harbour: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, lambda _: [Token("It rains. [9]"), Done(Answer("It rains.", "answered"))])
    result = call(harbour, "ask", "Does it?", "--corpus", CORPUS)
    assert result.stdout.count("It rains.") == 1


def test_an_answer_that_was_not_streamed_is_printed(harbour: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, lambda _: [Done(Answer("It rains.", "answered"))])
    assert call(harbour, "ask", "Does it?", "--corpus", CORPUS).stdout.startswith("It rains.\n")


def test_a_failure_is_one_line_and_a_status(harbour: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, lambda _: [Done(Answer("", "failed", error="The server\nis down. Start it."))])
    assert_one_line(call(harbour, "ask", "Who?", "--corpus", CORPUS), "The server is down. Start it.")


def test_of_many_questions_one_may_fail(harbour: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = Answer("Yes.", "answered"), Answer("", "failed", error="The server is down.")
    answering(monkeypatch, lambda question: [Done(bad if question == "bad" else good)])
    file = jsonl(tmp_path / "q.jsonl", [{"id": n, "text": t} for n, t in enumerate(("good", "bad", "good"))])
    result = call(harbour, "ask", "--questions", file, "--corpus", CORPUS, "--json")
    assert result.exit_code == 1
    assert [each["status"] for each in objects(result)] == ["answered", "failed", "answered"]
    assert objects(result)[1]["error"] == "The server is down."
    assert result.stderr == "Question 1 failed: The server is down.\n"


def test_pages_and_quotes_that_were_not_found_are_shown_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    hit = Hit(Passage(1, 1, "/a.pdf", "a.pdf", "A", "words", 0, 5, page=3), 0.5)
    answer = Answer("Words. [1]", "answered", (hit,), (Citation(1, hit, None, None, 0.6),))

    async def events() -> AsyncIterator[Event]:
        yield Retrieved((hit,))
        yield Done(answer)

    asyncio.run(_answers.show(events()))
    told = capsys.readouterr().out
    assert "[1] a.pdf, p. 3\n    The cited words are not in the passage.\n" in told
    assert "tokens unknown · cost unknown" in told


@pytest.mark.parametrize(
    ("usd", "told"),
    [
        (None, "cost unknown"),
        (0.0, "$0.0000"),
        (1.5, "$1.5000"),
        (0.00004, "$0.000040"),
        (1e-9, "under $0.000001"),
    ],
)
def test_costs_in_words(usd: float | None, told: str) -> None:
    assert _answers.cost_of(usd) == told


@pytest.mark.parametrize(("verb", "option"), [("ask", "--json"), ("search", "--json")])
def test_the_sample_is_brought_in_where_it_is_asked(
    home: Path, pages: Path, verb: str, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ui.wiring.sample_pages", lambda: pages)
    first = call(home, verb, QUESTION, option)
    assert first.exit_code == 0
    assert first.stderr.count("\n") == 1
    assert "sample corpus handbook" in first.stderr
    assert objects(first)
    assert call(home, verb, QUESTION, option).stderr == ""


def test_no_sample_is_brought_in_for_another_corpus(home: Path) -> None:
    assert_one_line(call(home, "ask", QUESTION, "--corpus", "notes"), "There is no corpus notes")


# traces


def asked_twice(home: Path, pages: Path) -> Path:
    call(home, "ingest", pages, "--corpus", CORPUS)
    for question in (QUESTION, OFF_TOPIC):
        assert call(home, "ask", question, "--corpus", CORPUS).exit_code == 0
    return home


def test_traces_are_listed_newest_first(home: Path, pages: Path) -> None:
    assert call(home, "traces", "list").stdout == "There is no trace.\n"
    asked_twice(home, pages)
    result = call(home, "traces", "list")
    rows = result.stdout.splitlines()[1:]
    assert [("abstained" in row, "ok" in row) for row in rows] == [(True, False), (False, True)]
    assert QUESTION in rows[1]
    assert result.stderr == ""
    cut = call(home, "traces", "list", "--limit", "1")
    assert len(cut.stdout.splitlines()) == 2
    assert cut.stderr == "These are the newest 1 of 2; --limit shows more.\n"
    told = one_object(call(home, "traces", "list", "--json"))
    assert told["total"] == 2
    assert [each["question"] for each in told["traces"]] == [OFF_TOPIC, QUESTION]
    assert "spans" not in told["traces"][0]
    for options in (["--status", "abstained"], ["--text", "VERDI"]):
        some = one_object(call(home, "traces", "list", "--json", *options))
        assert [each["question"] for each in some["traces"]] == [OFF_TOPIC]


def test_a_trace_shows_its_steps(home: Path, pages: Path) -> None:
    asked_twice(home, pages)
    trace = one_object(call(home, "traces", "list", "--json"))["traces"][1]
    result = call(home, "traces", "show", trace["id"][-8:])
    assert result.exit_code == 0
    assert f"question {QUESTION}" in result.stdout
    steps = ["condense", "retrieve", "prompt", "generate", "ground"]
    places = [result.stdout.index(f"─ {step}  ") for step in steps]
    assert places == sorted(places)
    assert "answer  0." in result.stdout
    assert " · 100% · $" in result.stdout
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


# serve


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Settings, bool, list[str]]]]:
    """What the server was started with: settings, whether to open a browser, and the corpora there were."""
    starts: list[tuple[Settings, bool, list[str]]] = []

    def serve(bench: Workbench, *, open_browser: bool) -> None:
        starts.append((bench.settings, open_browser, bench.corpora()))

    monkeypatch.setattr("ui.server.serve", serve)
    return starts


def test_serve_brings_the_sample_in_and_starts(
    home: Path, pages: Path, served: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ui.wiring.sample_pages", lambda: pages)
    result = call(home, "serve", "--host", "localhost", "--port", "0", "--open", "--corpus", "notes")
    assert result.exit_code == 0, result.output
    settings, open_browser, corpora = served[0]
    assert (settings.host, settings.port, settings.corpus) == ("localhost", 0, "notes")
    assert open_browser is True
    assert corpora == ["handbook"]
    assert "sample corpus" in result.stderr
    assert call(home, "serve", "--port", "0").stderr == ""
    assert served[1][1] is False


def test_a_port_that_is_taken_is_told_before_any_work(home: Path, served: list[Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_one_line(call(home, "serve", "--port", str(port)), f"Port {port}", "taken")
    assert served == []


# What a terminal may be sent


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb\x1b]0;title\x07", "a␛[31mb␛]0;title␇"),
        ("tab\tand\nline\r\nstay", "tab\tand\nline\nstay"),
        ("back\rover", "back␍over"),
        ("\x00\x7f\x9b31m", "␀␡�31m"),
        ("\u202egnp.exe\u2066", "�gnp.exe�"),
        ("\ud800 \u2028", "� �"),
        ("שלום [bold] 👩‍👩‍👧 é", "שלום [bold] 👩‍👩‍👧 é"),
    ],
)
def test_what_a_terminal_would_obey_is_made_visible(text: str, shown: str) -> None:
    assert _text.visible(text) == shown


def test_nothing_from_a_document_reaches_the_terminal_as_a_command(home: Path, tmp_path: Path) -> None:
    sly = "The gauge \x1b[31mwas\x1b[0m read\x07 in [bold]Ems[/bold] :smile: by \u202eadI."
    pages = written(
        tmp_path / "a\x1b[31mb", {"gau\x1b[1mge.md": f"# Gau\x1b]0;x\x07ge\n\n{sly}\n", "no\x1b[1m.md": ""}
    )
    for arguments in (
        ["ingest", pages, "--corpus", "sly"],
        ["search", "gauge\x1b[1m", "--corpus", "sly"],
        ["ask", "Where was the gauge read\x1b[1m?", "--corpus", "sly"],
        ["traces", "list"],
    ):
        result = call(home, *arguments)
        assert result.exit_code == 0, result.output
        assert_harmless(result.output)
    trace = one_object(call(home, "traces", "list", "--json"))["traces"][0]
    shown = call(home, "traces", "show", trace["id"], "--full")
    assert_harmless(shown.output)
    assert "[bold]Ems[/bold] :smile:" in shown.output
    (found,) = objects(call(home, "search", "gauge", "--corpus", "sly", "--json"))
    assert found["results"][0]["text"].endswith(sly)


def test_json_is_one_line_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"text": "a\u2028b\x85c\x9b\ud800 é\n\x1b"}
    _text.print_json(value)
    told = capsys.readouterr().out
    assert len(told.splitlines()) == 1
    assert "é" in told
    assert json.loads(told) == value


@pytest.mark.parametrize("charset", ["ascii", "latin-1"])
def test_a_terminal_without_utf8_is_no_obstacle(harbour: Path, charset: str) -> None:
    for arguments in (["ask", QUESTION, "--corpus", CORPUS], ["search", "Ebbe → 潮", "--corpus", CORPUS]):
        assert call(harbour, *arguments, charset=charset).exit_code == 0
    result = call(harbour, "search", "潮", "--corpus", CORPUS, "--json", charset=charset)
    assert objects(result)[0]["query"] == "潮"


def test_an_argument_that_is_not_utf8_is_searched_all_the_same(harbour: Path) -> None:
    for verb in ("search", "ask"):
        result = call(harbour, verb, "tide \udcff gauge", "--corpus", CORPUS, "--json")
        assert result.exit_code == 0, result.output


# Signals and pipes, in processes of their own


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def drips(reply: Reply, _: Received) -> None:
    reply.head()
    reply.event(chunk({"role": "assistant", "content": ""}))
    reply.drip("drop ", 0.02)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_stopped_answer_is_traced_and_delivered(harbour: Path, number: signal.Signals, status: int) -> None:
    with scripted_openai(drips) as server:
        process = start(
            harbour,
            *("--model", "openai:slow", "ask", QUESTION, "--corpus", CORPUS),
            RAGSMITH_OPENAI__BASE_URL=server.base_url,
            RAGSMITH_TRACKING__WANDB="offline",
        )
        assert process.stdout is not None
        assert process.stdout.read(5) == "drop "
        process.send_signal(number)
        code, _, err = ended(process)
        assert code == status
        assert "Traceback" not in err
    (trace, *_) = one_object(call(harbour, "traces", "list", "--json"))["traces"]
    assert trace["status"] == "cancelled"
    assert trace["answer"].startswith("drop ")
    assert trace["tracked"]


def test_a_stopped_ingestion_keeps_what_was_finished(home: Path, tmp_path: Path) -> None:
    many = {f"{n:03}.md": f"Stone number {n} lies in the river {n % 7}." for n in range(400)}
    pages = written(tmp_path / "many", many)
    # Small batches, so that there is something left to do after the first; each is announced.
    before = (
        "import rag.ingest as i; i.BATCH = 16\n"
        "import rag.index as x; add = x.CorpusIndex.add\n"
        "def told(*a, **k): print('batch', file=sys.stderr, flush=True); return add(*a, **k)\n"
        "x.CorpusIndex.add = told"
    )
    process = start(home, "ingest", pages, "--corpus", "stones", "--json", before=before)
    assert process.stderr is not None
    for _ in range(2):
        assert process.stderr.readline() == "batch\n"
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    assert code == 130
    assert err.splitlines()[-1] == ingest.STOPPED
    assert "Traceback" not in err
    report = json.loads(out)
    assert report["stopped"] is True
    assert 0 < report["added"] < 400
    again = one_object(call(home, "ingest", pages, "--corpus", "stones", "--json"))
    assert (again["unchanged"], again["added"]) == (report["added"], 400 - report["added"])


def test_a_second_ctrl_c_does_not_wait(home: Path, pages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(*_: object, **__: object) -> None:
        for _each in range(2):
            signal.raise_signal(signal.SIGINT)
        pytest.fail("the second Ctrl-C was not heard")

    monkeypatch.setattr(Workbench, "ingest", hangs)
    result = call(home, "ingest", pages, "--corpus", CORPUS)
    assert result.exit_code == 130
    assert "Ctrl-C again stops at once" in result.stderr
    assert result.stderr.splitlines()[-1] == ingest.STOPPED
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sigterm_ends_an_ingestion_in_order(home: Path, pages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    real = Workbench.close
    monkeypatch.setattr(Workbench, "close", lambda bench: (closed.append(True), real(bench)))
    monkeypatch.setattr(Workbench, "ingest", lambda *_: signal.raise_signal(signal.SIGTERM))
    result = call(home, "ingest", pages, "--corpus", CORPUS)
    assert result.exit_code == 143
    assert closed
    assert "Traceback" not in result.output
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_reader_that_goes_away_is_no_bug(harbour: Path, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "q.jsonl", [{"id": n, "text": QUESTION} for n in range(2000)])
    process = start(harbour, "search", "--queries", file, "--json", "--corpus", CORPUS)
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["id"] == 0
    process.stdout.close()
    started = time.monotonic()
    assert process.wait(30) == 1
    assert time.monotonic() - started < 20
    assert process.stderr.read() == ""
    process.stderr.close()


def test_results_come_as_they_are_found(harbour: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "q.jsonl"
    os.mkfifo(pipe)
    process = start(harbour, "search", "--queries", pipe, "--json", "--corpus", CORPUS)
    try:
        with pipe.open("w", encoding="utf-8") as queries:
            queries.write('{"id": 1, "text": "ferry"}\n')
            queries.flush()
            assert process.stdout is not None
            # Nothing more is written before this one has come.
            got: list[str] = []
            reader = threading.Thread(target=lambda: got.append(process.stdout.readline()))  # type: ignore[union-attr]
            reader.start()
            reader.join(30)
            assert json.loads(got[0])["id"] == 1
        assert ended(process)[0] == 0
    finally:
        process.kill()
