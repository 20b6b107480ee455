"""Traces that are asked again, with everything behind them real but for the language models."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import (
    CORPUS,
    FOLLOW_UP,
    OFF_TOPIC,
    QUESTION,
    SENTENCE,
    answered,
    keep,
    open_tiny,
    written,
)

from prompts.archive import PromptArchive
from prompts.draft import read_draft
from prompts.files import as_draft
from rag.answering.replay import answer_of, changed_steps, passages_of, question_of
from rag.errors import ReplayError
from rag.evaluation.variants import Variant
from rag.tracing.trace_store import Span, Trace
from rag.types import Answer, Ask, Filters, Turn
from rag.workspace import Workspace
from ui.app.app import App, open_app
from ui.app.replaying import Replay, Replaying, Swaps


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, converted_models: Path) -> Iterator[App]:
    made = open_tiny(tmp_path_factory.mktemp("replay"), converted_models)
    yield made
    made.close()


@pytest.fixture
def own(tmp_path: Path, converted_models: Path) -> Iterator[App]:
    """An app of the test's own, for one that changes its corpus."""
    home = tmp_path / "own"
    home.mkdir()
    made = open_tiny(home, converted_models)
    yield made
    made.close()


def asked(app: App, question: str = QUESTION, variant: Variant | None = None, **fields: Any) -> Trace:
    """The trace of a question that was just answered."""
    answer = asyncio.run(answered(app.releases.assistant(variant), question, **fields))
    return app.stores.traces.get(answer.trace_id)


def replayed(app: App, trace: Trace, swaps: Swaps | None = None) -> tuple[Replay, Answer, Trace]:
    async def again(prepared: Replay) -> Answer:
        return await app.replaying.start(prepared).answer()

    prepared = app.replaying.prepare(trace, swaps)
    answer = asyncio.run(again(prepared))
    return prepared, answer, app.stores.traces.get(answer.trace_id)


def with_settings(app: App, **changes: Any) -> Replaying:
    """The replays of a process with other settings on the same workspace."""
    other = app.settings.model_copy(update=changes)
    opened = open_app(other)
    return opened.replaying


def questions() -> Iterator[Ask]:
    plain = [
        "When was the tide gauge installed?",
        "Who installed the tide gauge?",
        "How often is the tide gauge read?",
        "What was the highest water?",
        "What does the red lamp warn of?",
        "Who switches on the lamp?",
        "How often does the ferry to Norderney leave?",
        "What does a crossing cost?",
        "Do bicycles travel free of charge?",
        "When does the last boat leave in winter?",
        "Why is rye dough never kneaded?",
        "How hot must the oven be?",
        "When is fresh bread sold?",
        "How long may books be borrowed?",
        "What do members pay a year?",
        OFF_TOPIC,
    ]
    for question in plain:
        yield Ask(question)
        yield Ask(f"Please tell me: {question}")
    for question in plain[:14]:
        yield Ask(question, history=FOLLOW_UP)
    yield Ask("And how often is it read?", history=FOLLOW_UP)
    yield Ask("What does it cost?", history=(Turn("When does the ferry leave?", "Every 40 minutes. [1]"),))
    yield Ask(QUESTION, filters=Filters(source="bread.md"))
    yield Ask(QUESTION, filters=Filters(glob="*/tides.md", page=None))


@pytest.mark.slow
def test_fifty_traces_get_equal_answers_again(app: App) -> None:
    asks = list(questions())
    assert len(asks) == 50
    for ask in asks:
        before = asked(app, ask.question, history=ask.history, filters=ask.filters)
        prepared, _, after = replayed(app, before)
        assert prepared.is_as_it_was, prepared.notes
        assert (after.answer, after.status) == (before.answer, before.status)
        assert (after.release, after.replay_of, after.purpose) == (before.release, before.id, "lab")
        assert changed_steps(before, after) == ()


def test_what_its_release_said_is_replayed_and_not_the_settings_of_today(app: App) -> None:
    odd = {"retrieval.k": 2, "retrieval.mode": "lexical", "answer.style": "brief", "decoding.seed": 7}
    before = asked(app, variant=Variant(name="odd", changes=odd))
    prepared, _, after = replayed(app, before)
    assert prepared.is_as_it_was
    assert (after.answer, after.release) == (before.answer, before.release)
    assert before.release != app.releases.pipeline().release.name


def test_the_version_is_replayed_that_answered_and_not_the_one_in_production(app: App) -> None:
    label = keep(app, "moving", max_tokens=300)
    before = asked(app, variant=Variant(name="old", changes={"prompt": label}))
    newer = keep(app, "moving", passages=1)
    app.stores.prompts.move("moving", "production", 2, by="Ada", message="")
    _, _, after = replayed(app, before)
    assert newer == "moving@2"
    assert (after.prompt, after.release) == ("moving@1", before.release)


def test_a_swapped_prompt_version_changes_only_the_steps_from_the_prompt_on(app: App) -> None:
    draft = as_draft(app.stores.prompts.load("answer")).replace("You answer questions", "You reply to questions")
    label = app.stores.prompts.save(read_draft(draft, "reply"), by="Ada", message="").label
    before = asked(app)
    prepared, _, after = replayed(app, before, Swaps({"prompt": label}))
    assert after.prompt == label
    assert not prepared.is_as_it_was
    # The extractive reader reads no instructions, so its reply stays.
    assert changed_steps(before, after) == ("prompt",)


def test_the_settings_of_a_swapped_version_go_with_it(app: App) -> None:
    brief = keep(app, "brief", style="brief", passages=2)
    before = asked(app, variant=Variant(name="brief", changes={"prompt": brief}))
    _, back, _ = replayed(app, before, Swaps({"prompt": "answer@1"}))
    assert (len(back.hits), back.text) == (5, f"{SENTENCE} [1]")
    _, answer, _ = replayed(app, asked(app), Swaps({"prompt": brief}))
    assert len(answer.hits) == 2
    assert SENTENCE not in answer.text


def test_swapped_retrieval_settings_change_the_search(app: App) -> None:
    before = asked(app)
    _, answer, after = replayed(app, before, Swaps({"retrieval.k": 1}))
    assert len(answer.hits) == 1
    assert changed_steps(before, after)[0] == "retrieve"
    assert "condense" not in changed_steps(before, after)


def test_passages_can_be_kept_fixed(app: App) -> None:
    before = asked(app)
    _, answer, after = replayed(app, before, Swaps({"retrieval.mode": "dense"}, fixed=True))
    assert [hit.passage for hit in answer.hits] == [hit.passage for hit in passages_of(before)]
    assert "retrieve" not in {span.name for span in after.spans}
    # A replay of the replay has them from the first step.
    assert passages_of(after) == passages_of(before)


def test_the_prompt_of_an_unsaved_draft_is_replayed(app: App) -> None:
    text = as_draft(app.stores.prompts.load("answer")).replace("You answer", "You answer all")
    draft = read_draft(text, "answer")
    answer = asyncio.run(answered(app.releases.assistant(draft=draft), QUESTION))
    before = app.stores.traces.get(answer.trace_id)
    assert before.prompt == f"answer@draft-{draft.sha256[:8]}"
    prepared, _, after = replayed(app, before)
    assert prepared.is_as_it_was
    assert (after.prompt, after.release, after.answer) == (before.prompt, before.release, before.answer)


def test_an_archived_prompt_is_refused_unless_it_is_swapped(app: App) -> None:
    label = keep(app, "passing", max_tokens=200)
    before = asked(app, variant=Variant(name="old", changes={"prompt": label}))
    PromptArchive(app.workspace.prompts).archive("passing", [1])
    with pytest.raises(
        ReplayError, match=r"The prompt passing@1 of the trace .* is archived: `ragsmith prompts res"
    ):
        app.replaying.prepare(before)
    _, _, after = replayed(app, before, Swaps({"prompt": "answer@1"}))
    assert after.prompt == "answer@1"


def test_a_prompt_whose_include_has_changed_is_noted(app: App) -> None:
    def manners(text: str) -> None:
        draft = f"description: Manners\nvariables: []\nmessages:\n- role: system\n  content: {text}\n"
        app.stores.prompts.save(read_draft(draft, "manners"), by="Ada", message="")
        app.stores.prompts.move("manners", "staging", None if text == "x" else 1, by="Ada", message="")

    manners("Be brief.")
    text = as_draft(app.stores.prompts.load("answer")).replace("You answer", "{{> manners@latest}} You answer")
    label = app.stores.prompts.save(read_draft(text, "including"), by="Ada", message="").label
    before = asked(app, variant=Variant(name="old", changes={"prompt": label}))
    manners("Be verbose.")
    assert app.replaying.prepare(before).notes == (
        "The prompt including@1 includes another prompt, which has changed since.",
    )


def test_files_that_came_later_and_passages_that_went_are_noted(own: App, tmp_path: Path) -> None:
    before = asked(own)
    folder = own.settings.home / "pages"
    written(
        folder, {"tides.md": "# Tides\n\nThe tide gauge was installed in 1901.\n", "new.md": "# New\n\nMore.\n"}
    )
    own.stores.ingest(CORPUS, [folder])
    prepared, answer, _ = replayed(own, before)
    assert "1901" in answer.text
    assert prepared.notes == (
        f"2 files of the corpus {CORPUS} were added or replaced since; the search may find others.",
        f"1 passage that the trace found is no longer in the corpus {CORPUS}.",
    )
    prepared, answer, _ = replayed(own, before, Swaps(fixed=True))
    assert answer.text == before.answer
    assert prepared.notes == ()


def test_an_index_of_another_fingerprint_is_refused_unless_the_passages_are_fixed(own: App) -> None:
    before = asked(own)
    chunking = own.settings.chunking.model_copy(update={"tokens": 64})
    other = open_app(own.settings.model_copy(update={"chunking": chunking}))
    try:
        other.stores.ingest(CORPUS, [own.settings.home / "pages"])
        with pytest.raises(
            ReplayError, match=r"The index of the trace .* has the fingerprint .* Set encoder.model"
        ):
            other.replaying.prepare(before)
        _, answer, _ = replayed(other, before, Swaps(fixed=True))
        assert answer.text == before.answer
    finally:
        other.close()


def test_a_missing_adapter_is_refused_unless_it_is_swapped(app: App) -> None:
    before = asked(app)
    stored = app.stores.releases.find(before.release).release
    gone = replace(stored, adapter="reader@00000000")
    app.stores.releases.keep(gone)
    with pytest.raises(ReplayError, match=r"The adapter reader@00000000 of the trace .* can no longer be had"):
        app.replaying.prepare(replace(before, release=gone.name))
    _, answer, _ = replayed(app, replace(before, release=gone.name), Swaps({"reader.adapter": "reader"}))
    assert answer.text == before.answer


def test_an_adapter_is_found_under_another_name(app: App) -> None:
    before = asked(app)
    reader = app.settings.reader.model_copy(update={"adapter": ""})
    other = open_app(app.settings.model_copy(update={"reader": reader}))
    try:
        prepared, answer, _ = replayed(other, before)
        assert prepared.is_as_it_was
        assert answer.text == before.answer
        assert answer.release == before.release
    finally:
        other.close()


def test_a_trace_of_an_older_version_is_replayed_with_the_settings_of_today(app: App) -> None:
    before = replace(asked(app, variant=Variant(name="two", changes={"retrieval.k": 2})), release="r-00000000")
    prepared, answer, _ = replayed(app, before)
    assert len(answer.hits) == 5
    assert not prepared.is_as_it_was
    assert prepared.notes == (
        "The release r-00000000 was not stored. Only its prompt and its model are known; all other settings are "
        "those of today.",
    )


def test_a_masked_secret_is_noted(app: App) -> None:
    before = asked(app, 'With password="hunter2hunter2", when was the tide gauge installed?')
    prepared, _, after = replayed(app, before)
    assert "hunter2" not in after.question
    assert prepared.notes == (
        "Personal data or a secret of the question or of an earlier turn was masked, so [redacted] is asked in "
        "its place.",
    )


def trace_with(root: Any, **fields: Any) -> Trace:
    spans = () if root is None else (Span("s", None, 0, "answer", "chain", "ok", 0.0, 1.0, input=root),)
    return Trace("t-1", 0.0, "ok", "Why?", spans=spans, **fields)


def test_a_truncated_question_is_refused() -> None:
    with pytest.raises(ReplayError, match="its question was truncated"):
        question_of(trace_with({"question": "Why? … [17 characters left out]"}))


def test_truncated_turns_are_noted() -> None:
    turn = {"question": "Who?", "answer": "She… [9 characters left out]"}
    found = question_of(trace_with({"question": "Why?", "history": [turn]}))
    assert found.notes == ("An earlier turn was truncated.",)


def test_truncated_passages_are_not_kept_fixed(app: App) -> None:
    before = asked(app)
    cut: Any = {"hits": ["… 3 more left out"]}
    spans = tuple(replace(span, output=cut) if span.name == "retrieve" else span for span in before.spans)
    with pytest.raises(ReplayError, match="cannot be read"):
        passages_of(replace(before, spans=spans))
    with pytest.raises(ReplayError, match="has no passages"):
        passages_of(replace(before, spans=()))


def test_a_question_without_its_first_step_is_asked_alone() -> None:
    found = question_of(trace_with(None, corpus="harbour"))
    assert (found.ask.question, found.ask.corpus, found.ask.replay_of) == ("Why?", "harbour", "t-1")
    assert found.notes == ("The trace has no first step, so earlier turns and filters are unknown.",)


def test_a_prompt_that_was_filled_by_hand_is_refused() -> None:
    trace = trace_with({"question": "title: x"})
    filled = Span("p", "s", 1, "prompt", "chain", "ok", 0.0, 1.0)
    with pytest.raises(ReplayError, match="filled by hand"):
        question_of(replace(trace, spans=(*trace.spans, filled)))


def test_the_whole_answer_of_a_trace_is_read_back(app: App) -> None:
    answer = asyncio.run(answered(app, QUESTION))
    found = answer_of(app.stores.traces.get(answer.trace_id))
    assert (found.text, found.hits, found.citations) == (answer.text, answer.hits, answer.citations)
    assert answer_of(trace_with({"question": "x"}, answer="Old.")).text == "Old."


@pytest.mark.slow
def test_twenty_traces_of_a_greedy_language_model_get_equal_answers_again(
    tmp_path: Path, converted_models: Path, prepared_base: Workspace
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    for folder in (*converted_models.iterdir(), *prepared_base.models.iterdir()):
        (models / folder.name).symlink_to(folder)
    home = tmp_path / "home"
    home.mkdir()
    app = open_tiny(home, models, model="smollm2", local={"device": "cpu"}, decoding={"max_tokens": 40})
    try:
        for ask in list(questions())[:44:2][:20]:
            before = asked(app, ask.question, history=ask.history)
            prepared, _, after = replayed(app, before)
            assert prepared.is_as_it_was, prepared.notes
            assert (after.answer, after.status) == (before.answer, before.status)
            assert changed_steps(before, after) == ()
    finally:
        app.close()
