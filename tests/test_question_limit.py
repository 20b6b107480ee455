"""A question has a limit, whoever asks it, and what came before it in a conversation takes little time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from terminal import assert_one_line, call, jsonl, objects
from tiny import CORPUS, QUESTION, SENTENCE, ScriptedChat, answered, assistant_of, steps_of

from rag.answering.assistant import ANSWER_TIMES, LATEST_TURNS, Assistant
from rag.answering.condense import carry_topic, points_back
from rag.answering.grounding import ground, moved, with_citations
from rag.encoders import Encoder
from rag.errors import QuestionTooLong
from rag.retrieval.question_limit import check_question
from rag.retrieval.retriever import Retriever
from rag.settings import RetrievalSettings, Settings
from rag.types import Hit, Passage, Turn
from ui.app.app import App
from ui.pages.prompts.lab_answers import LabQuestion, ask_all
from ui.pages.prompts.lab_columns import Column

LIMIT = 60
LONG = f"{QUESTION} {'x' * LIMIT}"
DEFAULT = Settings().limits.question_chars
TOLD = f"{len(LONG)} characters, but at most {LIMIT} are allowed"


def limited(app: App, model: ScriptedChat, **changes: Any) -> Assistant:
    steps = steps_of(app, model, **changes)
    retriever = Retriever(app.stores.index(), RetrievalSettings(), question_chars=LIMIT)
    return replace(assistant_of(replace(steps, retriever=retriever), app.stores.traces), question_chars=LIMIT)


async def test_a_question_that_is_too_long_fails_before_anything_is_kept_or_asked(app: App) -> None:
    before = app.stores.traces.list(limit=1).total
    model = ScriptedChat()
    answer = await answered(limited(app, model), LONG)
    assert (answer.status, answer.trace_id) == ("failed", "")
    assert TOLD in answer.error
    assert "limits.question_chars" in answer.error
    assert model.sent == []
    assert app.stores.traces.list(limit=1).total == before


async def test_a_question_of_exactly_the_limit_is_answered(app: App) -> None:
    question = QUESTION.ljust(LIMIT, "?")
    answer = await answered(limited(app, ScriptedChat(reply=(f"{SENTENCE} [1]",))), question)
    assert (answer.status, answer.error) == ("answered", "")


def test_the_limit_is_checked_in_one_place() -> None:
    check_question("x" * LIMIT, LIMIT)
    with pytest.raises(QuestionTooLong, match="The question has 61 characters, but at most 60 are allowed"):
        check_question("x" * (LIMIT + 1), LIMIT)


def test_a_search_has_the_same_limit(app: App) -> None:
    with pytest.raises(QuestionTooLong, match="are allowed"):
        app.releases.retriever().search("x " * DEFAULT)
    other = app.releases.retriever().using(RetrievalSettings(), None)  # type: ignore[arg-type]
    assert other.question_chars == DEFAULT


@pytest.mark.parametrize("fixed", [False, True])
async def test_a_column_of_the_lab_says_so(app: App, fixed: bool) -> None:
    work = ask_all(app.releases, app.models, [Column()], LabQuestion("x" * (DEFAULT + 1), fixed=fixed))
    async for _ in work.changes(0.01):
        pass
    (lane,) = work.lanes
    told = str(lane.problem) if lane.draft.answer is None else lane.draft.answer.error
    assert f"{DEFAULT:,} are allowed" in told


def test_the_commands_say_so_in_one_line(harbour: Path, tmp_path: Path) -> None:
    long = "x" * (DEFAULT + 1)
    for verb in ("ask", "search"):
        result = call(harbour, verb, long, "--corpus", CORPUS)
        assert_one_line(result, f"The question has {DEFAULT + 1:,} characters", "limits.question_chars")
    records = [{"id": 1, "text": long}, {"id": 2, "text": QUESTION}]
    for verb, option in (("ask", "--questions"), ("search", "--queries")):
        result = call(harbour, verb, option, jsonl(tmp_path / "many.jsonl", records), "--corpus", CORPUS, "--json")
        assert result.exit_code == 1
        assert objects(result)[-1]["id"] == 2
        assert result.stderr.count("\n") == 1
        assert "1 failed: The question has" in result.stderr


# What came before


async def test_earlier_turns_are_shortened_and_never_fail(app: App) -> None:
    condenser = ScriptedChat(reply=(LONG,))
    turns = tuple(Turn(f"{at} {'q' * 1000}", f"{at} {'a' * 1000}") for at in range(LATEST_TURNS + 30))
    model = ScriptedChat(reply=(f"{SENTENCE} [1]",))
    answer = await answered(limited(app, model, condenser=condenser), QUESTION, history=turns)
    assert answer.status == "answered"
    # What a model writes in place of a question is searched for, as far as it may be.
    assert answer.standalone == LONG[:LIMIT]
    told = str(condenser.sent[0][-1].content)
    assert "q" * (LIMIT - 5) in told
    assert "q" * LIMIT not in told
    assert "a" * (ANSWER_TIMES * LIMIT - 5) in told
    assert "a" * ANSWER_TIMES * LIMIT not in told
    trace = app.stores.traces.get(answer.trace_id)
    (root,) = (span for span in trace.spans if span.parent_id is None)
    assert isinstance(root.input, dict)
    assert len(root.input["history"]) == LATEST_TURNS  # type: ignore[arg-type]


async def test_words_that_are_carried_over_do_not_make_a_question_too_long(app: App) -> None:
    history = (Turn("What is the extraordinarily remarkable tide gauge of Norderney?", "An instrument."),)
    question = "And who installed it, and why, and when, and how, and where?"
    assert len(question) == LIMIT
    answer = await answered(
        limited(app, ScriptedChat(reply=(f"{SENTENCE} [1]",)), condenser=None), question, history=history
    )
    assert answer.error == ""
    assert answer.standalone == question


def test_a_word_without_an_end_is_no_topic() -> None:
    assert carry_topic("And when?", (Turn(f"What is {'k' * 500} of Norderney?", ""),)) == "And when? (Norderney)"


# Time


def seconds(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


SHAPES = {
    "possessives": "its " * 50_000,
    "words": "gauge " * 40_000,
    "one word": "a" * 200_000,
    "hyphens": "a" + "-" * 200_000,
    "spaces": " " * 200_000,
    "dots": "a. " * 60_000,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_finding_out_whether_a_question_points_back_takes_linear_time(shape: str) -> None:
    text = SHAPES[shape]
    points_back("warm up")
    assert seconds(lambda: points_back(text)) < 1
    assert seconds(lambda: carry_topic(text, (Turn(text, text),))) < 3


ANSWERS = {
    "spaces": " " * 100_000,
    "lines": "\n" * 100_000 + "x",
    "markers": "x [1]  " * 14_000,
    "backticks": "`a" * 50_000,
    "one word": "a" * 100_000,
    "sentences": " ".join(
        f"The ferry number {at} leaves pier {at % 7} at dawn. [{at % 3 + 1}]" for at in range(1800)
    ),
    "brackets": "[" * 100_000,
    "list": "[1" + ",1" * 49_000,
}


@pytest.mark.parametrize("shape", ANSWERS)
def test_a_long_answer_is_checked_in_little_time(encoder: Encoder, shape: str) -> None:
    page = "The ferry to Norderney leaves every 40 minutes from pier two. " * 12
    hits = [Hit(Passage(at, at, "a", "a", "A", page, 0, len(page)), 1.0) for at in range(5)]
    encoder.embed(["warm up"])
    found = []
    text = ANSWERS[shape]
    assert seconds(lambda: found.append(ground(text, hits, encoder))) < 4
    (checked,) = found
    assert seconds(lambda: moved(checked.claims, checked.text, "end")) < 1
    assert seconds(lambda: with_citations(text, "end")) < 1
