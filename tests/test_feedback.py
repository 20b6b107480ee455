"""From thumbs and corrections to training rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import Engine
from terminal import call, one_object
from tiny import CORPUS

from finetune.data.chat_rows import read_chat_rows
from finetune.data.feedback_rows import feedback_rows
from finetune.data.preference_rows import read_preference_rows
from rag.answering.corrections import AnswerSources
from rag.database import open_database
from rag.errors import FeedbackError
from rag.redaction import JSON, MASK
from rag.tracing.ratings import rated_ids
from rag.tracing.trace_store import Feedback, Span, Trace, TraceStore
from rag.types import Hit, Passage
from rag.workspace import Workspace
from ui.commands import feedback_review_command

QUESTION = "When is the harbour open?"
PROMPT: JSON = [
    {"role": "system", "content": "Answer."},
    {"role": "human", "content": f"Open in summer.\n{QUESTION}"},
]


def trace(
    feedback: Feedback | None, *, messages: JSON = PROMPT, written: str = "Never.", model: str = "smollm2"
) -> Trace:
    """A trace of the chain, as far as its model is concerned."""
    root = Span("a", None, 0, "answer", "chain", "ok", 1.0, 2.0)
    step = Span("b", "a", 1, "generate", "chain", "ok", 1.0, 2.0)
    asked = Span(
        "c", "b", 2, "Chat", "llm", "ok", 1.0, 2.0, {"messages": messages}, {"role": "ai", "content": written}
    )
    return Trace("t", 1.0, "ok", QUESTION, written, model=model, spans=(root, step, asked), feedback=feedback)


@contextmanager
def opened(home: Path) -> Iterator[Engine]:
    engine = open_database(Workspace(home))
    yield engine
    engine.dispose()


def test_a_correction_is_a_reply_to_learn_and_is_preferred_to_the_answer() -> None:
    rows = feedback_rows([trace(Feedback("down", "", 1.0, "In summer."))], "smollm2")
    (answer,), (pair,) = map(json.loads, rows.answers), map(json.loads, rows.pairs)
    assert [turn["role"] for turn in answer["messages"]] == ["system", "user"]
    assert answer["messages"] == pair["messages"]
    assert answer["completion"] == pair["chosen"] == "In summer."
    assert pair["rejected"] == "Never."


def test_an_answer_with_a_thumb_up_is_a_reply_to_learn_and_no_pair() -> None:
    rows = feedback_rows([trace(Feedback("up", "", 1.0), written="In summer.")], "smollm2")
    assert json.loads(rows.answers[0])["completion"] == "In summer."
    assert rows.pairs == []


def test_a_thumb_down_alone_and_no_thumb_at_all_teach_nothing() -> None:
    rows = feedback_rows([trace(Feedback("down", "wrong", 1.0)), trace(None)], "smollm2")
    assert (rows.answers, rows.pairs, rows.without_prompt, rows.by_others) == ([], [], 0, 0)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        None,
        [{"role": "human", "content": "Long… [17 characters left out]"}],
        [{"role": "human", "content": ["a picture"]}],
        [*PROMPT, {"role": "ai", "content": "Already said."}],  # type: ignore[misc]
    ],
)
def test_what_the_model_was_given_must_be_known_whole(messages: JSON) -> None:
    rows = feedback_rows([trace(Feedback("up", "", 1.0), messages=messages)], "smollm2")
    assert (rows.answers, rows.without_prompt) == ([], 1)


def test_answers_of_other_models_are_left_out_and_counted() -> None:
    rows = feedback_rows([trace(Feedback("up", "", 1.0), model="openai:gpt-5")], "smollm2")
    assert (rows.answers, rows.by_others) == ([], 1)


def test_the_last_call_is_the_answer_where_a_reply_had_to_be_repaired() -> None:
    found = trace(Feedback("up", "", 1.0))
    again = Span("d", "b", 3, "Chat", "llm", "ok", 2.0, 3.0, {"messages": PROMPT}, {"role": "ai", "content": "{}"})
    repaired = Trace(**{name: getattr(found, name) for name in found.__slots__} | {"spans": (*found.spans, again)})
    assert json.loads(feedback_rows([repaired], "smollm2").answers[0])["completion"] == "{}"


def test_a_correction_is_kept_with_the_rating_and_hides_its_secrets(store: TraceStore, engine: Engine) -> None:
    for name in ("one", "two", "three"):
        store.save(Trace(name, 1.0, "ok", QUESTION))
    store.rate("one", "down", "wrong", "password = hunter2hunter2")
    store.rate("two", "up")
    found = store.get("one").feedback
    assert found is not None
    assert (found.comment, MASK in found.correction, "hunter2" in found.correction) == ("wrong", True, False)
    assert rated_ids(engine) == ("two", "one")
    assert rated_ids(engine, corrected=True) == rated_ids(engine, "down") == ("one",)
    store.rate("one", "up")
    assert rated_ids(engine, corrected=True) == ()


def test_the_command_writes_rows_of_what_the_chat_was_given(harbour: Path, tmp_path: Path) -> None:
    home = shutil.copytree(harbour, tmp_path / "home", symlinks=True)
    assert call(home, "ask", QUESTION, "--corpus", CORPUS).exit_code == 0
    with opened(home) as engine:
        store = TraceStore(engine)
        store.rate(store.list(limit=1).traces[0].id, "down", "too short", "It is open in summer only.")
    (listed,) = json.loads(call(home, "feedback", "list", "--corrected", "--json").stdout)
    assert (listed["question"], listed["correction"]) == (QUESTION, "It is open in summer only.")
    assert "too short" in call(home, "feedback", "list").stdout
    rows = tmp_path / "rows"
    counted = one_object(call(home, "feedback", "export", "--to", rows, "--json"))
    assert counted == {
        "model": "extractive",
        "answers": 1,
        "pairs": 1,
        "without_prompt": 0,
        "by_others": 0,
        "not_accepted": 0,
    }
    (answer,), (pair,) = read_chat_rows(rows, "answers"), read_preference_rows(rows, "pairs")
    assert answer.turns == pair.chosen.turns
    assert QUESTION in answer.turns[-1].content
    assert pair.chosen.completion == "It is open in summer only."
    other = call(home, "--model", "smollm2", "feedback", "export", "--to", rows)
    assert "0 rows" in other.stdout
    assert "Left out 1 answer of models other than smollm2." in other.stderr
    assert json.loads(call(home, "feedback", "list", "--rating", "up", "--json").stdout) == []


# Reviews


def test_a_thumbs_down_waits_until_a_person_decides(store: TraceStore, engine: Engine) -> None:
    for name, rating in (("one", "down"), ("two", "up"), ("three", "down")):
        store.save(Trace(name, 1.0, "ok", QUESTION))
        store.rate(name, "up" if rating == "up" else "down", "", "In summer." if name == "one" else "")
    assert set(rated_ids(engine, review="pending")) == {"one", "three"}
    assert store.review("one", "accepted", by="Ada").correction == "In summer."
    with pytest.raises(FeedbackError, match="has no correction to accept"):
        store.review("three", "accepted", by="Ada")
    assert store.review("three", "accepted", by="Ada", correction=" In June. ").correction == "In June."
    with pytest.raises(FeedbackError, match="has no thumbs-down"):
        store.review("two", "rejected", by="Ada")
    assert rated_ids(engine, review="pending") == ()
    # What is said anew has to be reviewed anew.
    store.rate("one", "down", "", "Always.")
    said = store.get("one").feedback
    assert said is not None
    assert (said.review, said.reviewer) == ("pending", "")


def test_rejected_corrections_teach_nothing_and_pending_ones_only_if_wanted() -> None:
    traces = [trace(Feedback("down", "", 1.0, "In summer.", review)) for review in ("pending", "rejected")]
    assert len(feedback_rows(traces, "smollm2").answers) == 1
    rows = feedback_rows(traces, "smollm2", accepted=True)
    assert (rows.answers, rows.not_accepted) == ([], 2)


PASSAGES = (("Opening hours", "The harbour is open in summer."), ("Tides", "The gauge was installed in 1871."))
SOURCES = AnswerSources(
    QUESTION,
    tuple(
        Hit(Passage(number, number, name, name, name, text, 0, len(text)), 1.0)
        for number, (name, text) in enumerate(PASSAGES, 1)
    ),
)


@pytest.mark.parametrize(
    ("correction", "target"),
    [
        ("It is open in summer.", "It is open in summer. [1]"),
        ("The gauge is from 1871. It is open in summer.", "The gauge is from 1871. [2] It is open in summer. [1]"),
        ("It is open in summer. [2]", "It is open in summer. [2]"),
        ("It is open in summer. [7]", "It is open in summer. [1]"),
        ("Open in summer [1]. (Opening hours)", "Open in summer [1]. (Opening hours) [1]"),
    ],
)
def test_every_sentence_of_a_correction_gets_the_marker_of_its_passage(correction: str, target: str) -> None:
    assert SOURCES.cited(correction) == target
    assert SOURCES.cited(target) == target


def test_a_correction_that_its_sources_do_not_support_is_noticed() -> None:
    assert SOURCES.faults_of("It is open in summer. (Opening hours)") == ()
    (fault,) = SOURCES.faults_of("It is open in summer. The gauge was installed in 1949.")
    assert (fault.kind, fault.words) == ("number", ("1949",))


def test_the_command_goes_through_the_queue(harbour: Path, tmp_path: Path) -> None:
    home = shutil.copytree(harbour, tmp_path / "home", symlinks=True)
    assert call(home, "ask", QUESTION, "--corpus", CORPUS).exit_code == 0
    with opened(home) as engine:
        store = TraceStore(engine)
        asked = store.list(limit=1).traces[0].id
        store.rate(asked, "down", "too short", "It is open since 1749.")
    listed = call(home, "feedback", "review")
    assert "It is open since 1749." in listed.stdout
    assert "Careful: its sources do not support this sentence (number: 1749)" in listed.stderr
    (waiting,) = one_object(call(home, "feedback", "review", "--json"))
    assert (waiting["trace_id"], waiting["unsupported"][0]["kind"]) == (asked, "number")
    assert call(home, "feedback", "review", "--accept").exit_code == 2
    assert call(home, "feedback", "review", asked, "--accept", "--reject").exit_code == 2
    assert call(home, "feedback", "review", asked, "--correct", "In summer.").stdout == "Accepted.\n"
    assert call(home, "feedback", "review").stderr == "No correction waits for a review.\n"
    (kept,) = json.loads(call(home, "feedback", "list", "--review", "accepted", "--json").stdout)
    assert (kept["correction"], kept["review"]) == ("In summer.", "accepted")
    assert call(home, "feedback", "review", asked[-8:], "--reject").stdout == "Rejected.\n"
    rows = one_object(call(home, "feedback", "export", "--to", tmp_path / "rows", "--accepted", "--json"))
    assert (rows["answers"], rows["not_accepted"]) == (0, 1)


def test_at_a_terminal_the_queue_is_gone_through_one_by_one(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(workspace.root) as engine:
        store = TraceStore(engine)
        for at, name in enumerate(("first", "second", "third", "fourth"), 1):
            store.save(Trace(f"the-{name}", 1.0, "ok", f"The {name} question?"))
            # The newest comes first.
            store.rate(f"the-{name}", "down", "", "" if name == "third" else "In summer.", at=10.0 - at)
    terminal = SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr(feedback_review_command, "sys", SimpleNamespace(stdin=terminal, stdout=terminal))
    # Skips the first, rejects the second, writes what the third lacks, corrects the fourth.
    result = call(workspace.root, "feedback", "review", input="s\nr\na\nIn June.\nc\nIn July.\n")
    assert result.exit_code == 0, result.stderr
    assert "4 of 4 answers" in result.stdout
    with opened(workspace.root) as engine:
        said = [trace.feedback for trace in TraceStore(engine).brief(["the-second", "the-third", "the-fourth"])]
        assert rated_ids(engine, review="pending") == ("the-first",)
    assert [(one.review, one.correction) for one in said if one] == [
        ("rejected", "In summer."),
        ("accepted", "In June."),
        ("accepted", "In July."),
    ]
    assert call(workspace.root, "feedback", "review", input="q\n").exit_code == 0
