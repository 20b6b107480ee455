"""``ragsmith datasets``: what a person does with questions in a terminal, and one clear line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from sqlalchemy import Engine
from terminal import assert_harmless, assert_one_line, call, jsonl, one_object

from rag.evaluation.candidates import CandidateStore
from rag.evaluation.case_files import read_cases
from rag.evaluation.cases import Case, make_id
from rag.evaluation.dataset_store import DatasetStore
from rag.tracing.trace_store import Span, Trace, TraceStore
from rag.workspace import Workspace


@pytest.fixture
def root(workspace: Workspace) -> Path:
    """The folder of a workspace without an encoder: these commands need none."""
    return workspace.root


@pytest.fixture
def some(tmp_path: Path) -> Path:
    """A file of three cases."""
    return jsonl(
        tmp_path / "faq.jsonl",
        [
            {
                "id": "a",
                "question": "Why rye?",
                "answers": ["It keeps."],
                "sources": ["bread.md"],
                "tags": ["bread"],
            },
            {"id": "b", "question": "When?", "history": [{"question": "Is it open?", "answer": "Yes."}]},
            {"id": "c", "question": "Who won?", "must_refuse": True},
        ],
    )


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A file with one case, and two lines that are none."""
    return jsonl(tmp_path / "mixed.jsonl", [{"question": "Good?"}, {"question": "\x1b[31m\x00"}, {"x\x1b[2J": 1}])


def test_a_file_is_imported_shown_and_exported_again(root: Path, some: Path, tmp_path: Path) -> None:
    made = call(root, "datasets", "import", "faq", some, "--by", "ida", "-m", "begun")
    assert (made.exit_code, made.stdout) == (0, "faq@1 has 3 cases.\n")
    shown = call(root, "datasets", "show", "faq").stdout
    assert shown.startswith("faq@1  3 cases  ")
    for part in ("ida: begun", "Why rye?", "It keeps.", "bread.md", "must be refused"):
        assert part in shown
    told = one_object(call(root, "datasets", "show", "faq@1", "--json", "--start", "1", "--limit", "1"))
    assert (told["name"], told["version"], told["size"], told["by"]) == ("faq", 1, 3, "ida")
    assert [each["id"] for each in told["cases"]] == ["b"]
    for ending in ("jsonl", "csv"):
        out = tmp_path / f"out.{ending}"
        assert call(root, "datasets", "export", "faq@1", out).stdout == f"Wrote 3 cases of faq@1 to {out}.\n"
        assert read_cases(out) == read_cases(some)


def test_the_list_shows_the_newest_versions(root: Path, some: Path, tmp_path: Path) -> None:
    assert "There is no dataset yet" in call(root, "datasets", "list").stdout
    assert one_object(call(root, "datasets", "list", "--json")) == []
    call(root, "datasets", "import", "faq", some)
    one = jsonl(tmp_path / "one.jsonl", [{"question": "Only this?"}])
    call(root, "datasets", "import", "faq", one, "-m", "smaller")
    (told,) = one_object(call(root, "datasets", "list", "--json"))
    assert (told["name"], told["version"], told["size"], told["message"]) == ("faq", 2, 1, "smaller")
    assert call(root, "datasets", "list").stdout.splitlines()[1].split()[:3] == ["faq", "2", "1"]
    log = call(root, "datasets", "show", "faq").stdout
    assert "imported from faq.jsonl" in log
    assert "smaller" in log


def test_a_preview_names_the_bad_rows_and_saves_nothing(root: Path, mixed: Path, engine: Engine) -> None:
    seen = call(root, "datasets", "import", "faq", mixed, "--preview")
    assert seen.stdout == "1 valid row, 2 invalid.\n"
    first, second, left_out = seen.stderr.splitlines()
    assert (first.partition(":")[0], second.partition(":")[0]) == ("line 2", "line 3")
    assert left_out.startswith("Left out, because cases have no such field: ")
    assert_harmless(seen.stderr)
    told = one_object(call(root, "datasets", "import", "faq", mixed, "--preview", "--json"))
    assert (told["valid"], [each["line"] for each in told["invalid"]]) == (1, [2, 3])
    assert len(told["left_out"]) == 1
    assert DatasetStore(engine).list() == ()


def test_a_file_with_bad_rows_is_saved_only_when_they_are_skipped(root: Path, mixed: Path, engine: Engine) -> None:
    refused = call(root, "datasets", "import", "faq", mixed)
    assert refused.exit_code == 1
    assert refused.stderr.splitlines()[-1].startswith("Error: Nothing was saved: 2 invalid rows in ")
    assert DatasetStore(engine).list() == ()
    told = one_object(call(root, "datasets", "import", "faq", mixed, "--skip-bad", "--json"))
    assert (told["version"], told["size"], len(told["invalid"])) == (1, 1, 2)


def test_an_import_can_add_to_what_is_there(root: Path, some: Path, tmp_path: Path) -> None:
    call(root, "datasets", "import", "faq", some)
    more = jsonl(tmp_path / "more.jsonl", [{"id": "a", "question": "Why not?"}, {"id": "d", "question": "New?"}])
    assert call(root, "datasets", "import", "faq", more, "--add").stdout == "faq@2 has 4 cases.\n"
    told = one_object(call(root, "datasets", "show", "faq", "--json"))
    assert [each["question"] for each in told["cases"]] == ["Why not?", "When?", "Who won?", "New?"]


def test_cases_are_removed_from_the_next_version_only(root: Path, some: Path) -> None:
    call(root, "datasets", "import", "faq", some)
    assert call(root, "datasets", "remove", "faq", "a", "c").stdout == "faq@2 has 1 case.\n"
    assert one_object(call(root, "datasets", "show", "faq@1", "--json"))["size"] == 3
    assert_one_line(call(root, "datasets", "remove", "faq", "a"), "faq@2 has no case a")


def test_the_question_of_a_trace_becomes_a_case(root: Path, engine: Engine) -> None:
    cited = {"hit": {"passage": {"name": "tides.md", "page": None}}}
    asked = {"question": "And then?", "history": [{"question": "First?", "answer": "This."}]}
    span = Span("s", None, 0, "answer", "chain", "ok", 1.0, input=asked, output={"citations": [cited]})
    TraceStore(engine).save(Trace("12345678-trace", 1.0, "ok", question="And then?", spans=(span,)))

    added = call(root, "datasets", "add", "faq", "--trace", "12345678", "--answer", "That.", "--by", "bo")

    assert added.stdout.splitlines()[-1] == "faq@1 has 1 case."
    store = DatasetStore(engine)
    (case,) = store.cases(store.resolve("faq"))
    assert (case.question, case.answers, case.sources) == ("And then?", ("That.",), ("tides.md",))
    assert case.history[0].question == "First?"
    assert store.resolve("faq").message == "from trace 12345678-trace"
    again = call(root, "datasets", "add", "faq", "--trace", "12345678", "--answer", "That.")
    assert again.stdout == f"faq@1 contains it already, as {case.id}.\n"
    other = call(root, "datasets", "add", "faq", "--trace", "12345678", "--refuse")
    assert other.stdout.startswith(f"Replaced {case.id}: And then?\n")
    both = call(root, "datasets", "add", "faq", "--trace", "12345678", "--refuse", "--answer", "x")
    assert_one_line(both, "cannot become a case: it must not have answers if it must be refused")
    assert_one_line(call(root, "datasets", "add", "faq", "--trace", "nothere"), "No trace has the id")


def test_a_dataset_is_parted_into_three(root: Path, tmp_path: Path) -> None:
    rows = [{"id": f"{n}", "question": f"Q {n}?", "source": f"{n // 2}.md"} for n in range(40)]
    call(root, "datasets", "import", "faq", jsonl(tmp_path / "faq.jsonl", rows))
    told = one_object(call(root, "datasets", "split", "faq", "--json"))
    assert (told["groups"], told["largest"]) == (20, 2)
    sizes = {part: (each["name"], each["size"], each["share"]) for part, each in told["parts"].items()}
    assert sizes == {
        "train": ("faq-train", 32, 0.8),
        "validation": ("faq-validation", 4, 0.1),
        "test": ("faq-test", 4, 0.1),
    }
    halves = call(root, "datasets", "split", "faq@1", "--shares", "0.5", "0", "0.5", "--seed", "3").stdout
    assert halves.splitlines() == [
        "faq-train@2: 20 cases, 50.0 % (wanted: 50 %)",
        "faq-test@2: 20 cases, 50.0 % (wanted: 50 %)",
    ]
    listed = one_object(call(root, "datasets", "list", "--json"))
    assert {each["message"] for each in listed if each["version"] == 2} == {"part of faq@1, seed 3"}


def test_what_cannot_be_parted_is_told_and_nothing_saved(root: Path, some: Path) -> None:
    call(root, "datasets", "import", "faq", some)
    assert_one_line(
        call(root, "datasets", "split", "faq", "--shares", "0.4", "0.3", "0.4"),
        "Shares must be 0 to 1 with a sum of 1: train 0.4",
    )
    rows = [{"question": f"Q {n}?", "source": "same.md"} for n in range(9)]
    call(root, "datasets", "import", "one", jsonl(some.with_name("one.jsonl"), rows))
    parted = call(root, "datasets", "split", "one")
    assert_one_line(parted, "no case is left for validation and test", "9 cases in 1 group", "the largest of 9")
    assert [each["name"] for each in one_object(call(root, "datasets", "list", "--json"))] == ["faq", "one"]


def test_candidates_are_shown_accepted_and_rejected(root: Path, engine: Engine) -> None:
    assert "No candidates are waiting for faq" in call(root, "datasets", "candidates", "faq").stdout
    CandidateStore(engine).put("faq", [Case(id=f"c{n}", question=f"Is it {n}?") for n in range(4)])
    assert "Is it 3?" in call(root, "datasets", "candidates", "faq").stdout
    assert call(root, "datasets", "accept", "faq", "c1").stdout == "faq@1 has 1 case.\n"
    assert call(root, "datasets", "reject", "faq", "c0").stdout == "Rejected 1 candidate.\n"
    waiting = one_object(call(root, "datasets", "candidates", "faq", "--json"))
    assert [each["id"] for each in waiting] == ["c2", "c3"]
    assert_one_line(call(root, "datasets", "accept", "faq", "c0"), "There is no undecided candidate c0 of faq")
    assert call(root, "datasets", "accept", "faq", "--all").stdout == "faq@2 has 3 cases.\n"
    assert_one_line(call(root, "datasets", "reject", "faq", "--all"), "No candidates are waiting")
    for arguments in ((), ("c2", "--all")):
        assert call(root, "datasets", "accept", "faq", *arguments).exit_code == 2


@pytest.mark.usefixtures("one_encoder")
def test_questions_about_a_corpus_are_written_as_candidates(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = FakeListChatModel(responses=["When was the tide gauge installed?"])
    monkeypatch.setattr("ui.commands.datasets_command.question_model", lambda *_: model)
    page = tmp_path / "tides.md"
    page.write_text("# Tides\n\nThe tide gauge was installed in 1871 by Ida Brandt of Norden.\n", encoding="utf-8")
    assert call(home, "ingest", page, "--corpus", "harbour").exit_code == 0
    made = call(home, "datasets", "candidates", "tides", "--corpus", "harbour", "--count", "5", "--json")
    assert made.exit_code == 0, made.output
    (candidate,) = waiting = json.loads(made.stdout)
    assert candidate["id"] == make_id(candidate["question"])
    assert candidate["sources"] == ["tides.md"]
    assert candidate["answers"] == ["The tide gauge was installed in 1871 by Ida Brandt of Norden."]
    assert candidate["tags"] == ["candidate"]
    assert "1 new candidate for tides" in made.stderr
    again = call(home, "datasets", "candidates", "tides", "--corpus", "harbour", "--count", "5", "--json")
    assert "0 new candidates for tides" in again.stderr
    assert json.loads(again.stdout) == waiting


def test_what_strangers_wrote_is_harmless_in_a_terminal(root: Path, tmp_path: Path) -> None:
    odd = {"id": "\x1b[2Jid", "question": "\x1b]0;owned\x07\u202e?", "answers": ["a\rb"], "sources": ["\x9b31m"]}
    call(root, "datasets", "import", "odd", jsonl(tmp_path / "odd.jsonl", [odd]), "-m", "\x1b[31m", "--by", "\x07")
    for arguments in (("show", "odd"), ("list",), ("show", "odd", "--json")):
        told = call(root, "datasets", *arguments)
        assert told.exit_code == 0
        assert_harmless(told.stdout)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("show", "none"), "There is no dataset none. `ragsmith datasets list` shows them."),
        (("show", "\udcff"), "There is no dataset"),
        (("export", "none", "out.csv"), "There is no dataset none"),
        (("remove", "none", "a"), "There is no dataset none"),
        (("remove", "\udcff", "\udcff"), "There is no dataset"),
        (("split", "none@3"), "There is no dataset none"),
        (("import", "Bad Name", "faq.jsonl"), "is not a valid name of a dataset"),
        (("import", "\udcff", "faq.jsonl"), "is not a valid name of a dataset"),
        (("import", "faq", "none.jsonl"), "none.jsonl cannot be read: No such file"),
        (("import", "faq", "none"), "none cannot be read: No such file"),
        (("import", "faq", "faq.docx"), "its format is unknown"),
        (("import", "faq", "empty.jsonl"), "contains no cases"),
        (("accept", "none", "a"), "no undecided candidate a of none"),
        (("accept", "\udcff", "\udcff"), "There is no undecided candidate"),
        (("reject", "none", "a"), "no undecided candidate a of none"),
    ],
)
@pytest.mark.usefixtures("some")
def test_a_mistake_is_one_line(root: Path, tmp_path: Path, arguments: tuple[str, ...], part: str) -> None:
    for name in ("empty.jsonl", "faq.docx"):
        (tmp_path / name).touch()
    assert_one_line(call(root, "datasets", *arguments), part)


def test_an_export_to_nowhere_is_one_line(root: Path, some: Path) -> None:
    call(root, "datasets", "import", "faq", some)
    assert_one_line(call(root, "datasets", "export", "faq", "none/out.csv"), "cannot be written: No such file")
    assert_one_line(call(root, "datasets", "export", "faq", "out.docx"), "its format is unknown")
