"""The steps of a running chain are saved as they finish."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from scripted_chain import (
    PRICES,
    STEPS,
    Kept,
    PacedModel,
    Question,
    ScriptedModel,
    chain_of,
    config_with,
    run_ainvoke,
    run_astream,
)

from rag.errors import StorageFull
from rag.tracing.trace_store import Span
from rag.tracing.tracer import TraceTracer


async def test_steps_are_saved_as_they_finish_and_equal_those_of_the_trace() -> None:
    kept = Kept()
    steps: list[tuple[str, Span]] = []
    tracer = TraceTracer(kept.saved.append, PRICES, lambda trace_id, span: steps.append((trace_id, span)))
    found: list[list[str]] = []
    model = PacedModel(between=lambda: found.append([span.name for _, span in steps]))
    await chain_of(model).ainvoke(Question("q"), config_with(tracer))
    assert found[0] == ["retrieve", "prompt"]
    assert [trace_id for trace_id, _ in steps] == [kept.only.id] * 4
    assert tuple(span for _, span in steps) == kept.only.spans[1:]
    assert not tracer._open


@pytest.mark.parametrize(("run", "early"), [(run_ainvoke, True), (run_astream, False)])
async def test_a_step_is_saved_early_only_if_the_secrets_of_its_question_are_known(
    run: Callable[..., Any], early: bool
) -> None:
    steps: list[Span] = []
    kept = Kept()
    tracer = TraceTracer(kept.saved.append, PRICES, lambda _, span: steps.append(span))
    # Without the word before it, nothing tells that it is a password.
    model = ScriptedModel(pieces=("hunter2hunter2",))
    await run(chain_of(model), Question("password: hunter2hunter2"), config_with(tracer))
    assert bool(steps) == early
    assert "hunter2" not in repr(steps)
    assert "hunter2" not in repr(kept.only)


async def test_a_step_that_cannot_be_saved_early_is_saved_with_its_trace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(_trace_id: str, _span: Span) -> None:
        raise StorageFull("The disk is full.")

    kept = Kept()
    await chain_of(ScriptedModel()).ainvoke(
        Question("q"), config_with(TraceTracer(kept.saved.append, PRICES, refuse))
    )
    assert [span.name for span in kept.only.spans] == STEPS
    assert "not stored as it finishes" in caplog.text
