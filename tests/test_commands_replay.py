"""``ragsmith traces replay``."""

from __future__ import annotations

from pathlib import Path

import pytest
from terminal import assert_one_line, call, objects, one_object
from tiny import CORPUS, QUESTION, SENTENCE

pytestmark = pytest.mark.usefixtures("one_encoder")


@pytest.fixture(scope="module")
def trace_id(harbour: Path) -> str:
    (answer,) = objects(call(harbour, "ask", QUESTION, "--corpus", CORPUS, "--json"))
    return str(answer["trace_id"])


def test_both_answers_are_shown(harbour: Path, trace_id: str) -> None:
    result = call(harbour, "traces", "replay", trace_id)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.count(f"{SENTENCE} [1]") == 2
    assert result.stdout.endswith("The answers are equal; no step changed.\n")


def test_parts_are_swapped_by_options(harbour: Path, trace_id: str) -> None:
    wanted = ("-k", "2", "--mode", "lexical", "--set", "answer.style=brief")
    found = one_object(call(harbour, "traces", "replay", trace_id[-8:], *wanted, "--json"))
    assert found["swapped"] == {"retrieval.k": 2, "retrieval.mode": "lexical", "answer.style": "brief"}
    assert found["changed_steps"] == ["retrieve", "prompt", "generate", "ground"]
    assert (found["before"]["trace_id"], found["as_it_was"]) == (trace_id, False)
    (shown,) = (one_object(call(harbour, "traces", "show", found["after"]["trace_id"], "--json")),)
    assert (shown["replay_of"], shown["purpose"]) == (trace_id, "lab")


def test_what_cannot_be_had_is_one_line(harbour: Path, trace_id: str) -> None:
    refused = call(harbour, "traces", "replay", trace_id, "--prompt", "nowhere")
    assert_one_line(refused, "There is no prompt nowhere")
    assert_one_line(call(harbour, "traces", "replay", trace_id, "--set", "corpus=x"), "cannot change 'corpus'")


def test_listed_traces_are_replayed_as_an_evaluation_run(home: Path, harbour: Path) -> None:
    pages = harbour / "pages"
    assert call(home, "ingest", pages, "--corpus", CORPUS).exit_code == 0
    for question in (QUESTION, "What does a crossing cost?", QUESTION):
        assert call(home, "ask", question, "--corpus", CORPUS).exit_code == 0
    variants = ("--variant", "as it is:", "--variant", "one: retrieval.k=1")
    first = call(home, "eval", "replay", *variants, "--json")
    assert first.exit_code == 0, first.output
    assert "2 questions of 3 traces: replayed@1" in first.stderr
    assert [one["name"] for one in one_object(first)["variants"]] == ["as it is", "one"]
    # The run's own traces are not replayed, and equal questions are no new version.
    again = call(home, "eval", "replay", "--json")
    assert "2 questions of 3 traces: replayed@1" in again.stderr
    only = call(home, "eval", "replay", "--filter", "crossing", "--json")
    assert "1 question of 1 trace: replayed@2" in only.stderr


def test_a_replay_of_nothing_is_refused(home: Path) -> None:
    result = call(home, "eval", "replay", "--filter", "nothing like this")
    assert result.exit_code == 2
    assert "No trace matches" in result.stderr
