"""Two traces side by side: which steps are marked, and what else differs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rag.tracing.trace_comparison import compare_traces, text_pieces
from rag.tracing.trace_store import Span, Trace


def hit(number: int, score: float = 0.5) -> dict[str, Any]:
    return {"passage": {"id": number, "name": f"file{number}.md", "page": None, "text": "…"}, "score": score}


def chain(trace_id: str, *, hits: list[dict[str, Any]], message: str, answer: str, model: str = "gpt-4o") -> Trace:
    """A trace of the usual steps, with ids and times of its own."""

    def span(name: str, position: int, given: Any, found: Any, parent: str = "root", **more: Any) -> Span:
        began = 10.0 + position
        ids = (f"{trace_id}-{name}", None if name == "answer" else f"{trace_id}-{parent}")
        name = more.pop("shown", name)
        return Span(*ids, position, name, more.pop("kind", "chain"), "ok", began, began + 1, given, found, **more)

    done = {"text": answer, "trace_id": trace_id, "latency_s": float(len(trace_id)), "usage": {"input_tokens": 3}}
    spans = (
        replace(span("answer", 0, {"question": "Why?"}, done), id=f"{trace_id}-root"),
        span("condense", 1, {"question": "Why?", "conversation_id": trace_id}, {"standalone": "Why?"}),
        span("retrieve", 2, {"standalone": "Why?"}, {"hits": hits}),
        span("prompt", 3, {"hits": hits}, {"messages": [{"role": "human", "content": message}], "hits": hits}),
        span("generate", 4, {"messages": [message]}, {"text": answer}),
        span(
            "model", 5, {"messages": [message]}, {"content": answer}, "generate",
            kind="llm", shown=f"Chat{model}", attributes={"model_name": model, "temperature": 0.0},
        ),
        span("ground", 6, {"reply": answer}, done),
    )  # fmt: skip
    return Trace(
        trace_id,
        10.0,
        "ok",
        "Why?",
        answer,
        latency_s=2.0,
        cost_usd=0.01,
        prompt="answer@1",
        model=model,
        spans=spans,
    )


OLD = chain("old", hits=[hit(1), hit(2), hit(3)], message="Say why.", answer="Because of rain.")


def test_a_repeat_is_equal_whatever_its_ids_and_times() -> None:
    again = chain(
        "again", hits=[hit(1, 0.50000001), hit(2), hit(3)], message="Say why.", answer="Because of rain."
    )
    found = compare_traces(OLD, again)
    assert [step.verdict for step in found.steps] == ["equal"] * 6
    assert (found.changed, found.texts, found.settings) == ((), (), ())
    assert {passage.move for passage in found.passages} == {"kept"}


def test_another_prompt_changes_the_steps_from_the_prompt_on() -> None:
    new = replace(
        chain("new", hits=[hit(1), hit(2), hit(3)], message="Say why, briefly.", answer="Rain."), prompt="answer@2"
    )
    found = compare_traces(OLD, new)
    assert [step.name for step in found.changed] == ["prompt", "generate", "Chatgpt-4o", "ground"]
    assert {step.name: step.changes for step in found.changed}["prompt"] == ("output",)
    assert [text.where for text in found.texts] == ["prompt: 1 human", "answer"]
    added = "".join(piece.text for piece in found.texts[0].pieces if piece.kind == "added")
    assert added == ", briefly"
    (setting,) = found.settings
    assert (setting.name, setting.left, setting.right) == ("prompt", "answer@1", "answer@2")


def test_passages_are_gained_lost_and_moved() -> None:
    new = chain("new", hits=[hit(2), hit(4), hit(3)], message="Say why.", answer="Because of rain.")
    found = compare_traces(OLD, new)
    moves = {passage.id: (passage.move, passage.left, passage.right) for passage in found.passages}
    assert moves == {
        1: ("lost", 1, None),
        2: ("moved", 2, 1),
        4: ("gained", None, 2),
        3: ("kept", 3, 3),
    }


def test_another_model_is_the_same_step_with_other_settings() -> None:
    new = chain("new", hits=[hit(1), hit(2), hit(3)], message="Say why.", answer="Because of rain.", model="o5")
    found = compare_traces(OLD, new)
    assert [(step.name, step.changes) for step in found.changed] == [("Chatgpt-4o", ("attributes",))]
    assert [setting.name for setting in found.settings] == ["model", "model name"]


def test_a_step_of_one_trace_only_is_marked() -> None:
    spans = tuple(span for span in OLD.spans if span.name != "retrieve")
    found = compare_traces(OLD, replace(OLD, spans=spans))
    assert [(step.name, step.verdict) for step in found.changed] == [("retrieve", "left")]
    found = compare_traces(replace(OLD, spans=spans), OLD)
    assert [(step.name, step.verdict) for step in found.changed] == [("retrieve", "right")]


def test_figures_are_compared_where_both_are_known() -> None:
    slower = replace(OLD, latency_s=3.5, cost_usd=None)
    found = {measure.name: measure.difference for measure in compare_traces(OLD, slower).measures}
    assert found["latency_s"] == pytest.approx(1.5)
    assert found["cost_usd"] is None


def test_a_trace_of_any_form_is_compared() -> None:
    odd = Span("s", "gone", 0, "prompt", "chain", "ok", 1.0, None, "text", {"messages": [3, {"role": "x"}]})
    looped = Span("a", "a", 1, "retrieve", "chain", "ok", 1.0, None, None, {"hits": [None, {"passage": 3}]})
    assert compare_traces(Trace("t", 1.0, "error", spans=(odd, looped)), OLD).passages


def test_long_texts_are_compared_by_lines() -> None:
    lines = [f"line {number}\n" for number in range(4_000)]
    other = [*lines[:10], "new\n", *lines[11:]]
    pieces = text_pieces("".join(lines), "".join(other))
    assert [(piece.kind, piece.text) for piece in pieces if piece.kind != "same"] == [
        ("removed", "line 10\n"),
        ("added", "new\n"),
    ]
