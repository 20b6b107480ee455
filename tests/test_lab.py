from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_openai import Received, Reply, says, scripted_openai
from streams import stream_of
from tiny import CORPUS, OFF_TOPIC, QUESTION, SENTENCE, settings_at, told

from prompts import PromptSettings
from rag.answering.answer_stream import AnswerStream
from rag.errors import EvaluationError, PromptError, RagsmithError, SettingsError
from rag.evaluation.variants import Variant, parse_variant
from rag.types import Answer, Done, Event, Started, Token
from ui.app.app import App, open_app
from ui.pages.prompts.direct import run_prompt
from ui.pages.prompts.lab_answers import LabQuestion, SideBySide, ask_all
from ui.pages.prompts.lab_columns import (
    LETTERS,
    Column,
    begin_evaluation,
    column_of,
    prompt_choices,
    resolve,
    source_of_passages,
    variant_of,
    variants_of,
    write_column,
)

ASKED = LabQuestion(QUESTION, CORPUS)
VALUES = {"title": "Tides", "text": "The gauge is read twice a day."}

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
settings = st.sampled_from(("prompt", "model", "retrieval.k", "retrieval.mode", "decoding.stop", "answer.style"))


@pytest.fixture
def own(converted_models: Path, tmp_path: Path) -> Iterator[App]:
    """An app of the test's own, for saving prompts."""
    home = tmp_path / "own"
    home.mkdir()
    (home / "models").symlink_to(converted_models)
    made = open_app(settings_at(home))
    yield made
    made.close()


async def ended(work: SideBySide) -> SideBySide:
    async for _ in work.changes(0.01):
        pass
    return work


async def answers(app: App, *columns: Column, asked: LabQuestion = ASKED) -> list[Answer]:
    work = await ended(ask_all(app.releases, app.models, columns, asked))
    found = [lane.draft.answer for lane in work.lanes]
    assert all(lane.over for lane in work.lanes)
    assert None not in found
    return [each for each in found if each is not None]


@given(st.dictionaries(settings, values, max_size=5))
def test_what_an_address_says_is_what_was_written(changes: Mapping[str, Any]) -> None:
    variant = Variant(name="A", changes=dict(changes))
    given_back = parse_variant(write_column(column_of(variant), "A"))
    # An empty text in a field is as the settings say.
    kept = {name: value for name, value in changes.items() if value != "" or name not in _FIELDS}
    assert {name: _stripped(name, value) for name, value in kept.items()} == given_back.changes


_FIELDS = ("prompt", "model", "retrieval.mode")


def _stripped(name: str, value: Any) -> Any:
    return value.strip() if name in _FIELDS and isinstance(value, str) else value


@pytest.mark.parametrize("name", ["longer", "a=b: c", "x" * 300, "two\nlines", "A", ""])
def test_a_name_never_breaks_what_is_written(name: str) -> None:
    column = Column(name=name, passages="8", more='decoding.stop=["; "]')
    again = column_of(parse_variant(write_column(column, "B")))
    assert again.changes == column.changes
    assert len(again.name) <= 80


def test_what_has_a_field_goes_there_and_the_rest_to_more() -> None:
    column = column_of(parse_variant("mine: prompt=answer@1 model=openai:x retrieval.k=3 decoding.seed=7"))
    assert column == Column("mine", "answer@1", "openai:x", "3", "", "decoding.seed=7")


def test_more_wins_over_the_fields() -> None:
    assert Column(passages="5", more="retrieval.k=9").changes == {"retrieval.k": 9}


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (Column(passages="many"), "Passages must be a whole number from 1 to 1000, not 'many'."),
        (Column(passages="0"), "Passages must be a whole number from 1 to 1000, not '0'."),
        (Column(more="corpus=x"), "A variant cannot change 'corpus'."),
        (Column(more="temperature"), "'temperature' in Other settings must have the form SETTING=VALUE."),
        (Column(more="answer.style='brief"), "A quote in Other settings is not closed."),
    ],
)
def test_what_cannot_be_read_is_refused_by_the_label_of_its_field(column: Column, problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        _ = column.changes
    assert caught.value.message == problem
    assert "NAME" not in caught.value.fix


def test_columns_that_say_the_same_have_names_of_their_own() -> None:
    named = variants_of([Column(), Column(), Column(model="smollm2", passages="3"), Column(name="mine")])
    assert [each.name for each in named] == ["A default", "B default", "smollm2 k=3", "mine"]


def test_a_setting_tells_where_it_comes_from(own: App) -> None:
    draft = own.stores.prompt("answer").model_copy(update={"settings": PromptSettings(style="brief", passages=2)})
    own.stores.prompts.save(draft, by="me", message="Shorter.")
    resolved = resolve(own.releases, Column(prompt="answer@2", passages="4", more="decoding.temperature=0.7"))
    found = {setting.name: setting for setting in resolved.settings}
    assert (found["answer.style"].value, found["answer.style"].origin) == ("brief", "version")
    assert (found["retrieval.k"].value, found["retrieval.k"].origin) == ("4", "here")
    assert (found["retrieval.mode"].value, found["retrieval.mode"].origin) == ("hybrid", "process")
    assert found["prompt"].value == "answer@2"
    assert not found["decoding.temperature"].honoured
    assert found["answer.style"].honoured


def test_the_first_choice_of_a_prompt_is_its_name_and_then_its_newest_version(own: App) -> None:
    for _ in range(25):
        own.stores.prompts.save(own.stores.prompt("answer"), by="me", message="Again.")
    own.stores.prompts.move("answer", "staging", 3, by="me", message="Look.")
    listed = [each for each in prompt_choices(own.stores.prompts) if each.partition("@")[0] == "answer"]
    assert listed[:3] == ["answer", "answer@staging", "answer@26"]
    assert len(listed) == 22


async def test_columns_differ_in_what_they_were_told(app: App) -> None:
    full, brief = await answers(app, Column(), Column(more="answer.style=brief", passages="2"))
    assert SENTENCE in full.text
    assert "1871" in brief.text
    assert SENTENCE not in brief.text
    assert (len(full.hits), len(brief.hits)) == (5, 2)
    assert full.trace_id != brief.trace_id
    assert app.stores.traces.get(brief.trace_id).answer == brief.text


async def test_fixed_passages_are_those_of_the_first_column(app: App) -> None:
    columns = (Column(passages="3"), Column(passages="1"), Column(mode="lexical"))
    first, *others = await answers(app, *columns, asked=replace(ASKED, fixed=True))
    assert len(first.hits) == 3
    assert [each.hits for each in others] == [first.hits, first.hits]


async def test_passages_are_fixed_by_the_first_column_that_searches(app: App) -> None:
    columns = (Column(prompt="nowhere"), Column(prompt="split-question"), Column(passages="2"))
    assert source_of_passages(app.releases, columns)[0] == 2
    with pytest.raises(PromptError, match="nowhere"):
        source_of_passages(app.releases, columns[:1])
    with pytest.raises(SettingsError, match="No column searches"):
        source_of_passages(app.releases, columns[1:2])


async def test_a_column_that_fails_leaves_the_others_alone(app: App) -> None:
    columns = [Column(), Column(prompt="nowhere@7"), Column(more="retrieval.k=0"), Column(model="nonsense")]
    work = await ended(ask_all(app.releases, app.models, columns, replace(ASKED, fixed=True)))
    good, *bad = work.lanes
    assert good.draft.answer is not None
    assert good.draft.answer.status == "answered"
    assert all(isinstance(lane.problem, RagsmithError) for lane in bad)
    words = ("nowhere@7", "retrieval.k", "nonsense")
    assert all(word in str(lane.problem) for word, lane in zip(words, bad, strict=True))
    assert all(lane.over for lane in work.lanes)


async def test_a_corpus_that_is_missing_fails_in_every_column(app: App) -> None:
    for fixed in (False, True):
        work = await ended(
            ask_all(app.releases, app.models, [Column(), Column()], LabQuestion(QUESTION, "nowhere", fixed=fixed))
        )
        told_of = [str(lane.problem or (lane.draft.answer and lane.draft.answer.error)) for lane in work.lanes]
        assert all("nowhere" in each for each in told_of)


async def test_no_question_is_asked_of_nobody(app: App) -> None:
    work = await ended(ask_all(app.releases, app.models, [Column()], LabQuestion("  ", CORPUS)))
    assert isinstance(work.lanes[0].problem, PromptError)


async def test_what_is_off_topic_is_refused_side_by_side(app: App) -> None:
    found = await answers(app, Column(), Column(mode="lexical"), asked=replace(ASKED, text=OFF_TOPIC))
    assert [each.status for each in found] == ["abstained", "abstained"]


class Slow:
    """An answer without an end that notes when its work has ended."""

    ended = False

    async def events(self) -> AsyncGenerator[Event, None]:
        try:
            yield Started("t")
            while True:
                yield Token("more ")
                await asyncio.sleep(0.005)
        finally:
            await asyncio.sleep(0.02)
            self.ended = True


async def quick() -> AsyncGenerator[Event, None]:
    yield Started("q")
    yield Done(Answer("Done.", "answered"))


async def broken() -> AsyncGenerator[Event, None]:
    yield Started("b")
    raise ValueError("a fault")


def starting(events: AsyncGenerator[Event, None]) -> Callable[[], Awaitable[AnswerStream]]:
    async def start() -> AnswerStream:
        return stream_of(events)

    return start


async def test_stop_ends_the_work_of_all_columns_and_keeps_what_they_wrote() -> None:
    slow = [Slow(), Slow()]
    work = SideBySide([starting(events) for events in (*(each.events() for each in slow), quick())])
    async for _ in work.changes(0.01):
        if all("more more" in lane.draft.text for lane in work.lanes[:2]):
            work.stop()
    assert [each.ended for each in slow] == [True, True]
    assert [lane.draft.answer is None for lane in work.lanes] == [True, True, False]
    assert [lane.problem for lane in work.lanes] == [None] * 3


async def test_a_reader_that_goes_away_ends_the_work() -> None:
    slow = Slow()
    work = SideBySide([starting(slow.events()), starting(quick())])
    changes = work.changes(0.01)
    await anext(changes)
    await changes.aclose()  # type: ignore[attr-defined]
    assert slow.ended


async def test_one_that_breaks_is_told_and_the_others_go_on() -> None:
    work = await ended(SideBySide([starting(broken()), starting(quick())]))
    assert isinstance(work.lanes[0].problem, ValueError)
    assert work.lanes[1].draft.answer is not None


async def test_a_prompt_with_variables_of_its_own_is_sent_with_the_values(own: App) -> None:
    with scripted_openai(says("Read ", "twice.")) as server:
        here = open_app(own.settings.model_copy(update={"openai": _server(own, server.base_url)}))
        column = Column(prompt="summarise-source", model="openai:scripted-1", more="decoding.top_k=5")
        assert resolve(here.releases, column).free == ("title", "text")
        (answer,) = await answers(here, column, asked=LabQuestion("", values=VALUES))
        sent = server.only.body["messages"]
        traced = here.stores.traces.get(answer.trace_id)
        here.close()
    assert (answer.text, answer.status, answer.prompt) == ("Read twice.", "answered", "summarise-source@1")
    assert VALUES["text"] in sent[-1]["content"]
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (40, 3)
    assert traced.prompt == "summarise-source@1"
    assert "twice a day" in traced.question
    assert {"prompt", "generate"} <= {span.name for span in traced.spans}


async def test_the_question_is_a_value_where_the_prompt_has_it(own: App) -> None:
    def echo(reply: Reply, request: Received) -> None:
        says(str("tide gauge" in request.body["messages"][-1]["content"]))(reply, request)

    with scripted_openai(echo) as server:
        here = open_app(own.settings.model_copy(update={"openai": _server(own, server.base_url)}))
        (answer,) = await answers(here, Column(prompt="split-question", model="openai:scripted-1"))
        here.close()
    assert answer.text == "True"


async def test_the_embedded_reader_says_that_it_cannot_answer_such_a_prompt(app: App) -> None:
    (answer,) = await answers(app, Column(prompt="summarise-source"), asked=LabQuestion("", values=VALUES))
    assert answer.status == "failed"
    assert "extractive reader" in answer.error


async def test_values_that_do_not_fit_are_named(app: App) -> None:
    variant = variant_of(Column(prompt="summarise-source", model="openai:gpt-4o"))
    events = await told(run_prompt(app.releases, app.models, variant, {"title": "Tides"}))
    assert isinstance(events[-1], Done)
    assert "text" in events[-1].answer.error


def test_a_dataset_is_not_run_with_a_prompt_that_answers_no_questions(app: App) -> None:
    with pytest.raises(PromptError, match="Column B"):
        begin_evaluation(
            app.releases, app.evaluations, [Column(), Column(prompt="summarise-source")], "any", CORPUS
        )
    with pytest.raises(EvaluationError, match="any"):
        begin_evaluation(app.releases, app.evaluations, [Column()] * len(LETTERS), "any", CORPUS)


def _server(app: App, base_url: str) -> Any:
    return app.settings.openai.model_copy(update={"base_url": base_url, "max_retries": 0})
