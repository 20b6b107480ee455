"""The small generator in the chain: as the model that answers, and as the one that rewrites follow-ups."""

from __future__ import annotations

from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from terminal import assert_one_line, call
from tiny import CORPUS, PRICES, QUESTION, ScriptedChat, assistant_with, settings_at

from rag.encoders.adapters import Adapter
from rag.models.generator.generator_chat import GeneratorChatModel
from rag.types import Answer, Ask, Done, Turn
from ui.app.app import App, open_app
from ui.pages.chat.answer_html import footer_html


@pytest.fixture(scope="module")
def adapter(babbler: Adapter) -> Adapter:
    return babbler


@pytest.fixture(scope="module")
def app(harbour: Path, adapter: Adapter) -> Iterator[App]:
    """The workbench with the generator of chance, which says nothing that its passages support."""
    made = open_app(
        settings_at(
            harbour,
            model="generator",
            prompt="answer-short",
            generator={"adapter": str(adapter.folder)},
            grounding={"min_support": 0.0},
        )
    )
    yield made
    made.close()


async def answered(app: App, ask: Ask) -> Answer:
    (done,) = [event async for event in app.releases.assistant().start(ask) if isinstance(event, Done)]
    return done.answer


async def test_the_workbench_answers_with_the_generator_of_the_settings(app: App, adapter: Adapter) -> None:
    answer = await answered(app, Ask(QUESTION))
    assert (answer.status, answer.model, answer.prompt) == ("answered", "generator", "answer-short@1")
    assert app.releases.pipeline().release.adapter == adapter.identity
    assert answer.usage.input_tokens
    assert answer.usage.output_tokens
    assert answer.cost_usd
    (llm,) = [span for span in app.stores.traces.get(answer.trace_id).spans if span.kind == "llm"]
    assert llm.output_tokens == answer.usage.output_tokens


async def test_a_follow_up_is_condensed_by_the_generator(app: App) -> None:
    history = (Turn(QUESTION, "In the harbour."),)
    answer = await answered(app, Ask("Since when?", history))
    spans = app.stores.traces.get(answer.trace_id).spans
    assert sum(span.kind == "llm" for span in spans) == 2
    assert answer.standalone


@pytest.mark.parametrize(("condenser", "calls"), [("generator", 1), ("auto", 0)])
async def test_the_generator_may_condense_for_the_embedded_reader(
    condenser: str, calls: int, harbour: Path, adapter: Adapter
) -> None:
    given = {"retrieval": {"condenser": condenser}, "generator": {"adapter": str(adapter.folder)}}
    reading = open_app(settings_at(harbour, **given))
    answer = await answered(reading, Ask("Since when was it there?", (Turn(QUESTION, "In the harbour."),)))
    spans = [span.name for span in reading.stores.traces.get(answer.trace_id).spans if span.kind == "llm"]
    assert spans.count("GeneratorChatModel") == calls
    assert spans.count("ExtractiveReader") == 1
    assert reading.releases.pipeline().release.condenser == (adapter.identity if calls else "")
    if not calls:
        assert answer.standalone.startswith("Since when was it there? (")
    reading.close()


async def test_words_are_carried_for_a_model_that_could_write_where_the_settings_say_so(
    harbour: Path, adapter: Adapter
) -> None:
    given = {"retrieval": {"condenser": "words"}, "generator": {"adapter": str(adapter.folder)}}
    writing = open_app(settings_at(harbour, model="generator", prompt="answer-short", **given))
    answer = await answered(writing, Ask("Since when was it there?", (Turn(QUESTION, "In the harbour."),)))
    assert answer.standalone.startswith("Since when was it there? (")
    writing.close()


async def test_condensing_here_costs_seconds_also_where_the_answer_costs_tokens(
    app: App,
) -> None:
    condenser = GeneratorChatModel(generator=app.models.generator(app.settings.generator.adapter), max_tokens=8)
    assistant = assistant_with(app, ScriptedChat(reply=("Nothing. [1]",)), condenser=condenser)
    events = [event async for event in assistant.start(Ask("Since when?", (Turn(QUESTION, "Here."),)))]
    (done,) = [event for event in events if isinstance(event, Done)]
    spans = {span.name: span for span in app.stores.traces.get(done.answer.trace_id).spans}
    span = spans["GeneratorChatModel"]
    assert span.input_tokens
    assert span.ended is not None
    # Seconds since 1970 leave a float a few millionths of a second.
    assert span.cost_usd == pytest.approx(PRICES.seconds_usd(span.ended - span.started), rel=1e-3)


async def test_the_generator_that_ships_puts_the_name_in_the_place_of_the_pronoun(harbour: Path) -> None:
    app = open_app(settings_at(harbour, retrieval={"condenser": "generator"}))
    for asked, answer, follow_up, name in (
        ("Who was Jane Jacobs?", "She wrote about cities.", "When was she born?", "jane jacobs"),
        ("What is the Chroma index for?", "It holds the vectors.", "Where is it stored?", "chroma"),
        ("Which album did The Verve record first?", "A Storm in Heaven.", "Did they go on tour?", "the verve"),
    ):
        standalone = (await answered(app, Ask(follow_up, (Turn(asked, answer),)))).standalone
        assert name in standalone.casefold()
        assert standalone.endswith("?")
        assert not {"she", "it", "they"} & set(standalone.casefold().split())
    app.close()


@pytest.mark.parametrize(
    ("unread", "cut", "notes"),
    [
        (0, False, ()),
        (1, False, ("1 passage found did not fit the model's window",)),
        (3, True, ("cut at the token limit", "3 passages found did not fit the model's window")),
    ],
)
def test_whoever_reads_an_answer_is_told_what_was_not_read(unread: int, cut: bool, notes: tuple[str, ...]) -> None:
    answer = Answer("Yes.", "answered", unread=unread, cut=cut)
    assert answer.notes == notes
    shown = unescape(footer_html(answer))
    assert all(note in shown for note in notes)
    assert ("window" in shown) == bool(unread)


@pytest.mark.usefixtures("one_encoder")
def test_the_doctor_knows_the_generator(harbour: Path, adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSMITH_MODEL", "generator")
    monkeypatch.setenv("RAGSMITH_GENERATOR__ADAPTER", str(adapter.folder))
    assert f"generator, adapter {adapter.identity}, no server needed" in call(harbour, "doctor").stdout
    monkeypatch.setenv("RAGSMITH_GENERATOR__ADAPTER", "reader")
    assert "must be a generator, not a reader." in " ".join(call(harbour, "doctor").stdout.split())


@pytest.mark.usefixtures("one_encoder")
def test_a_generator_that_is_not_there_is_told_in_one_line(harbour: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSMITH_MODEL", "generator")
    monkeypatch.setenv("RAGSMITH_GENERATOR__ADAPTER", "riddles")
    result = call(harbour, "ask", QUESTION, "--corpus", CORPUS)
    assert_one_line(result, "There is no adapter riddles.", "Name a folder with a card.json, or one of:")
