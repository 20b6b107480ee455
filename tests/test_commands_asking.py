"""The commands that ask: search and ask, one question or many."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
from scripted_openai import says, scripted_openai
from streams import stream_of
from terminal import assert_one_line, call, jsonl, objects, one_object
from tiny import CORPUS, OFF_TOPIC, PAGES, QUESTION, SENTENCE, written

from prompts import PromptLibrary, PromptTemplate, find_prompt
from rag.answering.answer_stream import AnswerStream
from rag.types import Answer, Ask, Citation, Done, Event, Hit, Passage, Retrieved, Started, Token
from ui.app.app import App
from ui.app.releases import Releases
from ui.commands import _answers

pytestmark = pytest.mark.usefixtures("one_encoder")

WARNING = "A red lamp on the pier warns of storm surges."


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    return written(tmp_path / "pages", PAGES)


# search


def test_search_shows_what_was_found_and_why(harbour: Path) -> None:
    result = call(harbour, "search", "storm surges", "--corpus", CORPUS, "-k", "2")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith(" 1  pages/tides.md")
    assert "Tides" in lines[0]
    assert "dense: rank 1, cosine 0." in lines[1]
    assert "lexical: rank 1, BM25 " in lines[1]
    assert WARNING in result.stdout
    assert sum(line.startswith((" 1 ", " 2 ", " 3 ")) for line in lines) == 2
    assert result.stderr == ""


def test_a_snippet_marks_the_words_of_the_query_in_every_form(app: App) -> None:
    from ui.commands.search_command import _snippet

    lexical = app.stores.index().lexical
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


def test_search_prints_one_object_for_a_query(harbour: Path, app: App) -> None:
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


def test_an_invalid_line_is_reported_and_skipped(harbour: Path, tmp_path: Path) -> None:
    bad = [
        (b"{", "must be JSON"),
        (b"[1]", "must be a JSON object"),
        (b"\xff\xfe", "must be UTF-8"),
        (b'{"text": "no id"}', "its id must be"),
        (b'{"id": true, "text": "no id"}', "its id must be"),
        (b'{"id": 1.5, "text": "no id"}', "its id must be"),
        (b'{"id": "a"}', "must have text in text"),
        (b'{"id": "a", "text": "  "}', "must have text in text"),
        (b'{"id": "a", "text": 5}', "must have text in text"),
        (b"[" * 100_000, "must be JSON"),
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
        (["search", "--queries", "nowhere.jsonl"], "The file nowhere.jsonl does not exist"),
        (["search", "a", "-k", "0"], "-k"),
        (["search", "a", "--mode", "fuzzy"], "--mode"),
        (["search", "a", "--after", "yesterday"], "--after"),
        (["search", "a", "--where", "author"], "--where author is not FIELD=VALUE"),
        (["ask"], "Give either a question or --questions"),
        (["ask", "a", "--questions", "f"], "Give either a question or --questions"),
        (["ask", "\n"], "The question is empty"),
        (["ask", "--questions", "nowhere.jsonl"], "The file nowhere.jsonl does not exist"),
        (["ingest"], "PATH"),
        (["traces", "list", "--limit", "0"], "--limit"),
        (["traces", "list", "--status", "sad"], "--status"),
        (["serve", "--port", "70000"], "--port"),
    ],
)
def test_a_wrong_call_is_refused_and_does_nothing(home: Path, arguments: list[str], part: str) -> None:
    result = call(home, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert part in result.stderr.splitlines()[-1]
    assert not (home / "ragsmith.db").exists()


@pytest.mark.parametrize("verb", ["search", "ask"])
def test_a_corpus_that_is_not_there_is_named_with_those_that_are(harbour: Path, verb: str) -> None:
    assert_one_line(call(harbour, verb, "tide", "--corpus", "harbor"), "no corpus harbor", CORPUS)


# ask


def test_ask_answers_only_from_the_documents_that_filters_keep(home: Path, tmp_path: Path) -> None:
    rates = [("Bremen", 85), ("Kiel", 97)]
    lines = [{"id": port, "text": f"The crane costs {rate} euro an hour.", "port": port} for port, rate in rates]
    call(home, "ingest", jsonl(tmp_path / "rates.jsonl", lines), "--corpus", CORPUS)
    asking = ("ask", "What does the crane cost an hour?", "--corpus", CORPUS)
    (answer,) = objects(call(home, *asking, "--where", "port=kiel", "--source", "rates.jsonl", "--json"))
    assert "97 euro" in answer["answer"]
    assert len(answer["sources"]) == 1
    trace = one_object(call(home, "traces", "show", answer["trace_id"], "--json"))
    told = {span["name"]: span["input"] for span in trace["spans"]}
    assert told["answer"]["filters"]["where"] == told["retrieve"]["filters"]["where"] == [["port", "kiel"]]
    assert_one_line(
        call(home, *asking, "--where", "port=Emden"),
        "No document of the corpus",
        "one of these fields: title, name",
    )


def test_ask_prints_answer_sources_and_a_footer(harbour: Path) -> None:
    result = call(harbour, "ask", QUESTION, "--corpus", CORPUS)
    assert result.exit_code == 0, result.output
    answer, _, rest = result.stdout.partition("\n\nSources\n")
    assert answer.startswith(f"{SENTENCE} [1]")
    sources, _, footer = rest.partition("\n\n")
    assert sources.splitlines()[:2] == ["[1] pages/tides.md", f"    “{SENTENCE}”"]
    assert sources.count("[1]") == 1
    seconds, tokens, cost, prompt, trace = footer.strip().split(" · ")
    assert seconds.endswith((" s", " ms"))
    assert tokens.endswith(" tok")
    assert "$" in cost
    assert prompt.startswith("answer@")
    assert call(harbour, "traces", "show", trace.removeprefix("trace ")).exit_code == 0
    assert result.stderr == ""


@pytest.mark.parametrize("behind", [True, False])
def test_what_changes_an_answer_may_be_typed_before_and_behind_the_command(
    harbour: Path, monkeypatch: pytest.MonkeyPatch, behind: bool
) -> None:
    with scripted_openai(says("The tide gauge was installed in 1871 by Ida Brandt. [1]")) as server:
        monkeypatch.setenv("RAGSMITH_OPENAI__BASE_URL", server.base_url)
        options = ["--model", "openai:scripted-1", "--prompt", "answer-quotes", "-k", "2"]
        before, after = ([], options) if behind else (options, [])
        (told,) = objects(call(harbour, *before, "ask", QUESTION, "--corpus", CORPUS, "--json", *after))
        assert len(server.received) == 1
    assert (told["model"], told["prompt"], len(told["sources"])) == ("openai:scripted-1", "answer-quotes@1", 2)


def test_what_is_typed_behind_the_command_counts(harbour: Path) -> None:
    before = ["-k", "1", "--prompt", "answer-short"]
    (told,) = objects(call(harbour, *before, "ask", QUESTION, "--corpus", CORPUS, "--json", "-k", "3"))
    assert (told["prompt"], len(told["sources"])) == ("answer-short@1", 3)


def test_a_number_of_passages_that_is_typed_overrides_that_of_the_prompt(harbour: Path, tmp_path: Path) -> None:
    home = shutil.copytree(harbour, tmp_path / "own", symlinks=True)
    library = PromptLibrary(home / "prompts")
    wanted = {**find_prompt("answer").model_dump(), "name": "two", "settings": {"passages": 2}}
    library.save(PromptTemplate.model_validate(wanted), by="ida", message="")
    counts = []
    for typed in ([], ["-k", "4"]):
        (told,) = objects(call(home, "ask", QUESTION, "--corpus", CORPUS, "--json", "--prompt", "two", *typed))
        counts.append(len(told["sources"]))
    assert counts == [2, 4]


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
        "spans",
        "cut",
        "filtered",
        "support",
        "claims",
        "latency_s",
        "input_tokens",
        "output_tokens",
        "cost_usd",
        "trace_id",
        "prompt",
        "release",
        "model",
    ]
    assert (told["id"], told["question"], told["status"], told["model"]) == (
        "",
        QUESTION,
        "answered",
        "extractive",
    )
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


def test_a_file_without_questions_is_an_error(harbour: Path, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text("\n", encoding="utf-8")
    for verb, option in (("ask", "--questions"), ("search", "--queries")):
        result = call(harbour, verb, option, tmp_path / "q.jsonl", "--corpus", CORPUS)
        assert result.exit_code == 2
        assert "q.jsonl is empty: it must have an object with id and " in result.stderr


def answering(monkeypatch: pytest.MonkeyPatch, script: Callable[[str], list[Event]]) -> None:
    """Answer every question by a script."""

    async def answered(request: Ask) -> AsyncGenerator[Event, None]:
        yield Started("0")
        for event in script(request.question):
            yield event

    class ScriptedAssistant:
        def start(self, request: Ask) -> AnswerStream:
            return stream_of(answered(request))

    monkeypatch.setattr(Releases, "assistant", lambda *_arguments, **_options: ScriptedAssistant())


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

    async def events() -> AsyncGenerator[Event, None]:
        yield Retrieved((hit,))
        yield Done(answer)

    async def shown() -> None:
        await _answers.show(stream_of(events()))

    asyncio.run(shown())
    told = capsys.readouterr().out
    assert "[1] a.pdf p. 3\n    The cited words are not in the passage.\n" in told
    assert "tokens unknown · cost unknown" in told


@pytest.mark.parametrize(("verb", "option"), [("ask", "--json"), ("search", "--json")])
def test_the_sample_is_added_when_it_is_asked(
    home: Path, pages: Path, verb: str, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ui.app.stores.sample_pages", lambda: pages)
    first = call(home, verb, QUESTION, option)
    assert first.exit_code == 0
    assert first.stderr.count("\n") == 1
    assert "sample corpus handbook" in first.stderr
    assert objects(first)
    assert call(home, verb, QUESTION, option).stderr == ""


def test_no_sample_is_added_for_another_corpus(home: Path) -> None:
    assert_one_line(call(home, "ask", QUESTION, "--corpus", "notes"), "There is no corpus notes")
