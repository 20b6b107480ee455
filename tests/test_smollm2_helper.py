"""smollm2 in its small jobs: it rewrites follow-ups and writes questions, each with an adapter of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from tiny import CORPUS, PRICES, QUESTION, ScriptedChat, answered, assistant_with, settings_at
from tiny_lm import make_adapter

from rag.encoders import Encoder
from rag.errors import SettingsError
from rag.models.local import shipped_base
from rag.models.local.local_chat import LocalChatModel
from rag.tracing.trace_store import Span
from rag.types import Answer, Ask, Done, Turn
from ui.app.app import App, open_app
from ui.app.models import CONDENSED_TOKENS, CONDENSER
from ui.app.proposing import QUESTIONER, propose_cases, question_model

FOLLOW_UP = "Since when was it there?"
HISTORY = (Turn(QUESTION, "In the harbour. [1]"),)
CARRIED = f"{FOLLOW_UP} (tide gauge installed)"


@pytest.fixture(scope="module")
def home(harbour: Path, tiny_lm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace ``harbour`` with the tiny model in place of smollm2, and adapters that fit it."""
    folder = tmp_path_factory.mktemp("helper") / "home"
    shutil.copytree(harbour, folder, symlinks=True)
    models = folder / "models"
    converted = models.resolve()
    models.unlink()
    models.mkdir()
    for each in converted.iterdir():
        (models / each.name).symlink_to(each)
    shutil.copytree(tiny_lm, shipped_base._folder(models))
    for seed, name in enumerate(("writer", CONDENSER, QUESTIONER), 3):
        make_adapter(tiny_lm, models / "adapters" / name, seed=seed)
    return folder


def app_with(home: Path, encoder: Encoder, **changes: Any) -> App:
    local = {"runtime": "torch", "device": "cpu", "dtype": "f32"}
    made = open_app(settings_at(home, **{"local": local, "grounding": {"min_support": 0}} | changes))
    made.stores.encoder = encoder
    return made


@pytest.fixture(scope="module")
def app(home: Path, encoder: Encoder) -> Iterator[App]:
    """The workbench with smollm2, which answers with the adapter ``writer``."""
    made = app_with(home, encoder, model="smollm2", decoding={"max_tokens": 8})
    yield made
    made.close()


def llm_spans(app: App, answer: Answer) -> list[Span]:
    return [span for span in app.stores.traces.get(answer.trace_id).spans if span.kind == "llm"]


def adapter_of(span: Span) -> str:
    assert isinstance(span.output, dict)
    metadata = span.output["response_metadata"]
    assert isinstance(metadata, dict)
    return str(metadata["adapter"])


async def test_one_engine_condenses_and_answers_with_two_adapters(app: App) -> None:
    answer = await answered(app, FOLLOW_UP, history=HISTORY)
    condensing, answering = llm_spans(app, answer)
    assert (adapter_of(condensing), adapter_of(answering)) == (CONDENSER, "writer")
    assert condensing.output_tokens == CONDENSED_TOKENS
    release = app.releases.pipeline().release
    assert release.adapter == "writer"
    assert release.condenser.startswith(f"{CONDENSER}@")
    # What it wrote has no meaning.
    assert answer.standalone == CARRIED


@pytest.mark.parametrize(("condenser", "calls"), [("smollm2", 1), ("auto", 0)])
async def test_it_condenses_for_another_model_where_the_settings_say_so(
    home: Path, encoder: Encoder, condenser: str, calls: int
) -> None:
    app = app_with(home, encoder, retrieval={"condenser": condenser})
    try:
        answer = await answered(app, FOLLOW_UP, history=HISTORY)
        names = [span.name for span in llm_spans(app, answer)]
        assert names == ["LocalChatModel"] * calls + ["ExtractiveReader"]
        assert bool(app.releases.pipeline().release.condenser) is bool(calls)
    finally:
        app.close()
    assert (answer.model, answer.standalone) == ("extractive", CARRIED)


async def test_it_can_answer_while_words_complete_the_follow_ups(home: Path, encoder: Encoder) -> None:
    given = {"retrieval": {"condenser": "words"}, "decoding": {"max_tokens": 8}}
    app = app_with(home, encoder, model="smollm2", **given)
    try:
        answer = await answered(app, FOLLOW_UP, history=HISTORY)
        assert [adapter_of(span) for span in llm_spans(app, answer)] == ["writer"]
    finally:
        app.close()
    assert answer.standalone == CARRIED


async def test_condensing_here_costs_seconds_where_the_answer_costs_tokens(app: App) -> None:
    condenser = app.models.helper(app.settings, CONDENSER, 8)
    assistant = assistant_with(app, ScriptedChat(reply=("Nothing. [1]",)), condenser=condenser)
    events = [event async for event in assistant.start(Ask(FOLLOW_UP, HISTORY))]
    (done,) = [event for event in events if isinstance(event, Done)]
    (span, _) = llm_spans(app, done.answer)
    assert span.ended is not None
    # Seconds since 1970 leave a float a few millionths of a second.
    assert span.cost_usd == pytest.approx(PRICES.seconds_usd(span.ended - span.started), rel=1e-3)


def test_a_process_with_another_language_model_says_that_it_can_load_only_one(
    home: Path, encoder: Encoder, tiny_lm: Path
) -> None:
    app = app_with(home, encoder, model=f"local:{tiny_lm}", retrieval={"condenser": "smollm2"})
    try:
        with pytest.raises(SettingsError, match="smollm2 cannot be loaded beside local:"):
            app.releases.pipeline()
    finally:
        app.close()


# Questions


def test_questions_are_written_with_their_own_adapter_for_several_sentences_at_once(app: App) -> None:
    model = question_model(app.models, app.settings)
    assert isinstance(model, LocalChatModel)
    assert (model.adapter, model.temperature) == (QUESTIONER, 0.0)
    # Without a question mark at its end, what it writes is no question.
    assert propose_cases(app.stores, model, "nothing", CORPUS, 2) == 0


def test_new_questions_become_candidates_with_their_sentences(app: App) -> None:
    model = FakeListChatModel(responses=["When was it?", "A mill.", "Who\nbuilt it?", "When was it?", "What?"])
    assert propose_cases(app.stores, model, "asked", CORPUS, 2) == 2
    cases = app.stores.candidates.waiting("asked")
    assert [case.question for case in cases] == ["When was it?", "Who built it?"]
    assert all(case.answers and case.sources and case.tags == ("candidate",) for case in cases)
