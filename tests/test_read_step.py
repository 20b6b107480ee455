"""A prompt that is given sentences: the reader marks them first, and decides whether there is an answer."""

from __future__ import annotations

from typing import Any

from tiny import CORPUS, OFF_TOPIC, QUESTION, SENTENCE, ScriptedChat, answered, assistant_with, spans_of

from rag.models.decoding_support import unsupported
from rag.settings import Settings
from ui.app.app import App


def writer(app: App, model: ScriptedChat, **fields: Any) -> Any:
    """An assistant whose model writes from the sentences that the app's reader marks."""
    return assistant_with(
        app,
        model,
        answer_prompt=app.stores.prompt("answer-from-evidence"),
        ranking=app.models.ranking(app.settings, app.stores.index(CORPUS).lexical),
        **fields,
    )


async def test_the_model_is_given_marked_sentences_and_no_passages(app: App) -> None:
    model = ScriptedChat(reply=(f"{SENTENCE} [1]",))
    answer = await answered(writer(app, model), QUESTION)
    assert (answer.status, answer.text) == ("answered", f"{SENTENCE} [1]")
    (sent,) = model.sent
    evidence = str(sent[-1].content)
    assert "**" in evidence
    assert SENTENCE in evidence.replace("**", "")
    assert len(evidence) < sum(len(hit.passage.text) for hit in answer.hits)
    spans = spans_of(app.stores.traces.get(answer.trace_id))
    assert list(spans)[1:5] == ["condense", "retrieve", "read", "prompt"]
    assert set(spans["read"].output) == {"lines", "confidence"}


async def test_below_the_minimum_probability_the_model_is_not_asked(app: App) -> None:
    model = ScriptedChat(reply=(f"{SENTENCE} [1]",))
    answer = await answered(writer(app, model, min_confidence=0.9), OFF_TOPIC)
    assert answer.status == "abstained"
    assert answer.support is not None
    assert model.sent == []


async def test_without_a_sentence_that_answers_the_model_may_refuse(app: App) -> None:
    prompt = app.stores.prompt("answer-from-evidence")
    model = ScriptedChat(reply=(prompt.fragments["refusal"],))
    assert (await answered(writer(app, model), OFF_TOPIC)).status == "abstained"
    assert len(model.sent) == 1


def test_the_probability_is_honoured_by_a_model_for_which_the_reader_reads() -> None:
    settings = Settings(model="smollm2", grounding={"min_confidence": 0.9})
    assert unsupported(settings) == ("grounding.min_confidence",)
    assert unsupported(settings, reads_first=True) == ()
    assert unsupported(Settings(model="smollm2", answer={"style": "brief"}), reads_first=True) == ()
