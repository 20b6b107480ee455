"""``ragsmith traces``: a list with a filter, two traces side by side, and traces as files."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine
from stored_traces import BAD, store_days
from terminal import assert_harmless, assert_one_line, call, one_object

from rag.tracing.trace_store import Span, Trace, TraceStore
from rag.workspace import Workspace, open_workspace


@pytest.fixture
def root(workspace: Workspace, engine: Engine) -> Path:
    """The folder of a workspace with traces, and without an encoder: these commands need none."""
    store_days(TraceStore(engine))
    return workspace.root


def listed(root: Path, *options: str) -> list[str]:
    return [each["id"] for each in one_object(call(root, "traces", "list", "--json", *options))]


def test_a_list_is_filtered_and_sorted_and_says_what_it_leaves_out(root: Path) -> None:
    assert listed(root, "--filter", "feedback = down and latency > 2s") == [BAD]
    slowest = call(root, "traces", "list", "--sort", "latency", "--limit", "3")
    assert BAD[-8:] in slowest.stdout.splitlines()[1]
    assert slowest.stderr == (
        "Showing the first 3 of 56; --limit shows more.\n"
        '6 hidden: evaluation and lab; --filter "purpose = any" shows them.\n'
    )
    assert listed(root, "--sort", "latency:asc", "--limit", "1") == ["trace-0000"]
    named = call(root, "traces", "list", "--filter", "purpose = evaluation")
    assert (len(named.stdout.splitlines()), named.stderr) == (7, "")


def test_status_and_text_narrow_a_filter(root: Path) -> None:
    errors = listed(root, "--status", "error")
    assert errors == listed(root, "--filter", "status = error")
    assert listed(root, "--status", "error", "--filter", "latency > 700ms", "--text", "or timeout") == []
    assert set(listed(root, "--filter", "latency > 700ms or feedback = up", "--status", "error")) < set(errors)


def test_what_is_not_understood_is_said_in_one_line(root: Path) -> None:
    assert_one_line(call(root, "traces", "list", "--filter", "latncy > 2"), "latncy", "Did you mean latency?")
    assert_one_line(call(root, "traces", "list", "--sort", "colour"), "'colour'", "started")
    assert_one_line(call(root, "traces", "compare", BAD, "no-such-trace"), "no-such-trace")


def test_two_traces_are_compared(root: Path) -> None:
    shown = call(root, "traces", "compare", "trace-0004", BAD)
    assert shown.exit_code == 0
    assert "time: 800 ms → 9.40 s" in shown.stdout
    assert "prompt: answer@1 → answer@2" in shown.stdout
    assert "  retrieve  equal" in shown.stdout
    assert "  generate  changed (output)" in shown.stdout
    assert "[-200-]{+300+}" in shown.stdout
    told = one_object(call(root, "traces", "compare", "trace-0004", BAD, "--json"))
    assert [step["name"] for step in told["steps"] if step["verdict"] != "equal"] == [
        "generate",
        "ChatOpenAI",
        "ground",
    ]
    assert {passage["move"] for passage in told["passages"]} == {"kept"}


def test_traces_move_to_another_workspace_under_their_ids(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl.gz"
    wrote = call(root, "traces", "export", file, "--filter", "feedback = down")
    assert wrote.stdout == f"Wrote 6 traces to {file}.\n"
    other = open_workspace(tmp_path / "other").root
    first = call(other, "traces", "import", file)
    assert (first.stdout, first.stderr) == (f"Stored 6 traces of {file}.\n", "")
    again = call(other, "traces", "import", file)
    assert (again.stdout, again.stderr) == (
        f"Stored 0 traces of {file}.\n",
        "6 traces had been stored before.\n",
    )
    before, after = (one_object(call(home, "traces", "show", BAD, "--json")) for home in (root, other))
    assert after | {"tracked": None} == before | {"tracked": None}
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"id": 3}\n')
    assert_one_line(call(other, "traces", "import", broken), "line 1")


def test_hostile_traces_are_compared_harmlessly(root: Path, engine: Engine) -> None:
    nasty = "\x1b[2J\u202e\x07"
    TraceStore(engine).save(Trace("nasty-trace", 1.0, "ok", nasty, nasty, prompt=nasty))
    shown = call(root, "traces", "compare", "nasty-trace", BAD)
    assert shown.exit_code == 0
    assert_harmless(shown.stdout)


def test_a_trace_names_the_passages_it_found_and_the_faults_of_its_answer(root: Path, engine: Engine) -> None:
    nasty = "\x1b[2J\u202e\x07"
    hits = [{"passage": {"name": f"tides.md{nasty}", "title": "Tides"}}, {"passage": None}]
    faults = [{"sentence": nasty, "kind": "number", "words": ["5"], "quotation": None}, nasty]
    spans = (
        Span("answer", None, 0, "answer", "chain", "ok", 1.0, 2.0),
        Span("retrieve", "answer", 1, "retrieve", "chain", "ok", 1.0, 2.0, output={"hits": hits}),
        Span("ground", "answer", 2, "ground", "chain", "ok", 1.0, 2.0, output={"replaced": faults}),
    )
    TraceStore(engine).save(Trace("faulty-trace", 1.0, "ok", "When?", spans=spans))
    shown = call(root, "traces", "show", "faulty-trace").stdout
    assert_harmless(shown)
    assert ", Tides\n" in shown
    assert "(number: 5), not replaced\n" in shown
    assert "a passage in another form" in shown
    assert "a sentence in another form" in shown
