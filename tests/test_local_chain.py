"""A local model behind the whole way of a question: the workbench, the traces, and the HTTP API."""

from __future__ import annotations

import asyncio
import gc
import json
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_server import running
from tiny import QUESTION, answered, only_llm, settings_at, stopped_after, told
from tiny_lm import MESSAGES, chat, make_model, watch

from rag.encoders import Encoder
from rag.errors import ModelUnavailable
from rag.types import Ask, Done, Token, Turn
from ui.app.app import App, open_app

COMPLETIONS = "/v1/chat/completions"


@pytest.fixture(scope="module")
def local_app(harbour: Path, encoder: Encoder, tiny_lm: Path) -> Iterator[App]:
    """The workbench with the tiny model, whose nonsense counts as an answer."""
    made = with_model(harbour, encoder, tiny_lm, decoding={"max_tokens": 30, "context_tokens": 150})
    yield made
    made.close()


def with_model(home: Path, encoder: Encoder, model: Path | str, **changes: Any) -> App:
    given = {
        "model": f"local:{model}",
        "local": {"device": "cpu", "dtype": "f32"},
        "grounding": {"min_support": 0},
        "cost": {"machine_usd_per_hour": 36.0},
    }
    made = open_app(settings_at(home, **given | changes))
    made.stores.encoder = encoder
    return made


async def test_an_answer_is_streamed_traced_and_costed_by_the_seconds(local_app: App) -> None:
    events = await told(local_app.releases.assistant().start(Ask(QUESTION)))
    written = [event.text for event in events if isinstance(event, Token)]
    assert len(written) > 10
    assert isinstance(events[-1], Done)
    answer = events[-1].answer
    assert answer.error == ""
    assert answer.status == "answered"
    assert answer.model == local_app.settings.model
    assert answer.usage.output_tokens == 30
    trace = local_app.stores.traces.get(answer.trace_id)
    llm = only_llm(trace)
    assert (llm.input_tokens, llm.output_tokens) == (answer.usage.input_tokens, 30)
    assert llm.ended is not None
    # 36 dollars an hour are a cent a second.
    assert llm.cost_usd == pytest.approx((llm.ended - llm.started) * 0.01, rel=0.01)
    assert answer.cost_usd is not None
    assert answer.cost_usd >= llm.cost_usd > 0
    assert llm.attributes["model_name"] == local_app.models.engine(local_app.settings).name


async def test_a_follow_up_is_condensed_by_the_model(local_app: App) -> None:
    history = (Turn("What is the tide gauge?", "A thing."),)
    answer = await answered(local_app, "Since when?", history=history)
    trace = local_app.stores.traces.get(answer.trace_id)
    assert sum(span.kind == "llm" for span in trace.spans) == 2
    assert trace.output_tokens == 60


async def test_a_person_who_stops_stops_the_work_and_the_trace_keeps_the_count(
    harbour: Path, encoder: Encoder, tiny_lm: Path
) -> None:
    app = with_model(harbour, encoder, tiny_lm, decoding={"max_tokens": 1200, "context_tokens": 150})
    try:
        steps = watch(app.models.engine(app.settings), before=lambda _: time.sleep(0.01))
        trace_id = await stopped_after(5, app.releases.assistant().start(Ask(QUESTION)))
        # The steps of a pipeline of OpenVINO are counted when its loop ends.
        while not steps.shapes:
            await asyncio.sleep(0.01)
        made = len(steps.shapes)
        await asyncio.sleep(0.2)
        assert len(steps.shapes) == made < 600
        trace = app.stores.traces.get(trace_id)
    finally:
        app.close()
    assert trace.status == "cancelled"
    llm = only_llm(trace)
    assert llm.input_tokens is not None
    assert llm.input_tokens > 50
    assert llm.output_tokens is not None
    assert 5 <= llm.output_tokens <= made
    assert trace.cost_usd is not None


async def test_a_prompt_that_does_not_fit_is_told_in_the_answer(
    harbour: Path, encoder: Encoder, tiny_lm: Path, tmp_path: Path
) -> None:
    small = make_model(tmp_path / "small", max_position_embeddings=128)
    app = with_model(harbour, encoder, small)
    try:
        answer = await answered(app, QUESTION)
    finally:
        app.close()
    assert answer.status == "failed"
    assert "reads at most 128. Lower decoding.context_tokens by" in answer.error


async def test_a_missing_model_is_told_in_the_answer_and_in_the_strip(harbour: Path, encoder: Encoder) -> None:
    app = with_model(harbour, encoder, "org/tiny")
    try:
        answer = await answered(app, QUESTION)
        health = app.health.check()
    finally:
        app.close()
    assert answer.status == "failed"
    assert "hf download org/tiny" in answer.error
    assert not health.model_ok
    assert "hf download org/tiny" in health.notices[0]


def test_an_adapter_makes_another_release(harbour: Path, encoder: Encoder, tiny_lm: Path) -> None:
    local = {"device": "cpu", "dtype": "f32"}
    adapter = str(tiny_lm.parent / "adapters" / "citer")
    names = set()
    for section in (local, local | {"adapter": adapter}):
        app = with_model(harbour, encoder, tiny_lm, local=section)
        try:
            names.add((app.releases.pipeline().release.name, app.releases.pipeline().release.adapter))
        finally:
            app.close()
    assert {adapter for _, adapter in names} == {"", adapter}
    assert len({name for name, _ in names}) == 2


def test_closing_the_workbench_closes_the_model(harbour: Path, encoder: Encoder, tiny_lm: Path) -> None:
    app = with_model(harbour, encoder, tiny_lm)
    engine = app.models.engine(app.settings)
    app.close()
    assert not engine._batches._thread.is_alive()
    with pytest.raises(ModelUnavailable, match="has been closed"):
        chat(engine).invoke(MESSAGES)


def test_a_closed_app_frees_its_models_and_chains_at_once(harbour: Path) -> None:
    app = open_app(settings_at(harbour))
    asyncio.run(answered(app, QUESTION))
    parts = [
        weakref.ref(part)
        for part in (
            app.stores.encoder,
            app.stores.corpora,
            app.models.reader(app.settings.reader.adapter),
            app.releases.retriever(),
            app.releases.pipeline(),
        )
    ]
    gc.disable()
    try:
        app.close()
        assert [part() for part in parts] == [None] * len(parts)
    finally:
        gc.enable()


def test_the_http_api_serves_it_to_several_at_once(local_app: App) -> None:
    def ask(stream: bool) -> tuple[str, int]:
        body = {
            "model": "ragsmith",
            "messages": [{"role": "user", "content": QUESTION}],
            "stream": stream,
            "stream_options": {"include_usage": True},
        }
        with httpx.Client(base_url=address, timeout=60) as client:
            if not stream:
                reply = client.post(COMPLETIONS, json=body).json()
                return reply["choices"][0]["message"]["content"], reply["usage"]["completion_tokens"]
            with client.stream("POST", COMPLETIONS, json=body) as response:
                lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
        pieces = [json.loads(line) for line in lines[:-1]]
        text = "".join(piece["choices"][0]["delta"].get("content", "") for piece in pieces if piece["choices"])
        assert len(pieces) > 3
        return text, pieces[-1]["usage"]["completion_tokens"]

    with running(local_app) as address, ThreadPoolExecutor(3) as people:
        told = list(people.map(ask, (True, False, True)))
    assert {tokens for _, tokens in told} == {30}
    # What this model writes is replaced by a quotation, which a stream can only add.
    checked = told[1][0]
    assert all(text.endswith(checked) for text, _ in told)
