"""A model server that never ends: its answer does, in time, in pieces and in bytes, and is traced."""

from __future__ import annotations

import gzip
import json
import time
from typing import Any

import pytest
from scripted_openai import (
    Received,
    Reply,
    Script,
    ScriptedOpenAI,
    chunk,
    reply_of,
    says,
    scripted_openai,
    settings_for,
)
from tiny import QUESTION, SENTENCE, answered, assistant_for

from rag.errors import ModelError, ModelProtocolError, ModelTimeout
from rag.models import bounded_stream
from rag.models import remote_model as remote
from rag.settings import CostSettings
from rag.tracing.cost import MOST_TOKENS, load_prices, read_usage, token_count
from rag.types import Answer, Usage
from ui.app.app import App

TOTAL_S = 0.6


def forever(piece: bytes, pause_s: float = 0.0, first: bytes = b"") -> Script:
    """Send a piece again and again until the client hangs up."""

    def script(reply: Reply, _: Received) -> None:
        reply.head()
        if first:
            reply.send(first)
        end = time.monotonic() + 20
        # An OSError is a client that has gone, and ends the script.
        while time.monotonic() < end:
            reply.send(piece)
            time.sleep(pause_s)

    return script


def event(delta: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk(delta)).encode() + b"\n\n"


EMPTY = forever(event({"content": ""}), 0.02)
THINKING = forever(event({"reasoning_content": "x" * 1000}))
DRIPPING = forever(event({"content": "a "}), 0.1)
COMMENTS = forever(b": ping\n\n", 0.02)
FAST_COMMENTS = forever(b": ping\n\n" * 1000)
ONE_LINE = forever(b"A" * 65_536, first=b'data: {"choices":[{"delta":{"content":"')
LINES = forever(b"data: x\n" * 8000)


async def failure(script: Script, **openai: Any) -> tuple[ModelError, float, ScriptedOpenAI]:
    """What becomes of a reply, after how many seconds, and the server."""
    with scripted_openai(script) as server:
        begun = time.monotonic()
        with pytest.raises(ModelError) as caught:
            await reply_of(settings_for(server.base_url, **openai))
        took = time.monotonic() - begun
        # The connection is closed: the script notices.
        assert server.gone.wait(5)
        return caught.value, took, server


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (EMPTY, "thought for 0.6 s without writing an answer"),
        (THINKING, "thought for 0.6 s without writing an answer"),
        (DRIPPING, "did not finish its answer in 0.6 s"),
        (COMMENTS, "did not answer in time"),
        (FAST_COMMENTS, "did not answer in time"),
    ],
    ids=["empty", "thinking", "dripping", "comments", "fast comments"],
)
async def test_a_whole_answer_has_a_time(script: Script, told: str) -> None:
    error, took, server = await failure(script, total_timeout_s=TOTAL_S)
    assert isinstance(error, ModelTimeout)
    assert told in error.message
    assert TOTAL_S <= took < TOTAL_S + 3
    assert len(server.received) == 1


async def test_without_a_setting_it_is_five_times_the_time_of_a_piece() -> None:
    error, took, _ = await failure(DRIPPING, timeout_s=0.3)
    assert "did not finish its answer in 1.5 s" in error.message
    assert 1.5 <= took < 4


async def test_an_answer_within_its_time_is_whole() -> None:
    with scripted_openai(says("Blue", ".")) as server:
        text, usage = await reply_of(settings_for(server.base_url, total_timeout_s=5.0))
    assert text == "Blue."
    assert read_usage(usage) == Usage(40, 3)


@pytest.mark.parametrize("script", [EMPTY, THINKING, DRIPPING], ids=["empty", "thinking", "dripping"])
async def test_pieces_are_counted_also_without_text(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "MOST_PIECES", 5)
    error, _, _ = await failure(script)
    assert isinstance(error, ModelProtocolError)
    assert "does not stop writing" in error.message


@pytest.mark.parametrize("script", [ONE_LINE, LINES], ids=["one line", "no blank line"])
async def test_an_event_without_an_end_does_not_take_the_memory(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_stream, "LONGEST_EVENT", 1_000_000)
    error, took, server = await failure(script, timeout_s=30.0)
    assert isinstance(error, ModelProtocolError)
    assert "more data than an answer may have" in error.message
    assert took < 5
    assert len(server.received) == 1


@pytest.mark.parametrize("script", [THINKING, FAST_COMMENTS], ids=["thinking", "comments"])
async def test_all_bytes_of_an_answer_are_counted(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_stream, "MOST_BYTES", 300_000)
    error, _, _ = await failure(script, timeout_s=30.0)
    assert "more data than an answer may have" in error.message


def errs(reply: Reply, _: Received) -> None:
    reply.head(400, "application/json")
    while True:
        reply.send(b" " * 65_536)


async def test_the_body_of_an_error_is_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_stream, "LONGEST_EVENT", 300_000)
    error, _, _ = await failure(errs, timeout_s=30.0)
    assert "more data than an answer may have" in error.message


async def test_what_is_packed_could_unpack_to_anything_and_is_refused() -> None:
    def packed(reply: Reply, _: Received) -> None:
        reply.head(200, Content_Encoding="gzip")
        reply.send(gzip.compress(b"data: " + b"A" * 10_000_000))
        reply.end()

    with scripted_openai(packed) as server:
        with pytest.raises(ModelProtocolError, match="compressed"):
            await reply_of(settings_for(server.base_url))
        assert server.only.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
async def test_the_end_of_an_event_is_seen_wherever_a_piece_ends(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_stream, "LONGEST_EVENT", 400)
    for mark in (b"\n\n", b"\r\n\r\n", b"\r\r"):
        whole = b"".join(event({"content": "b"}).replace(b"\n\n", mark) for _ in range(12))
        whole += b"data: " + json.dumps(chunk({}, "stop")).encode() + mark + b"data: [DONE]" + mark

        def script(reply: Reply, _: Received, sent: bytes = whole) -> None:
            reply.head()
            for at in range(0, len(sent), size):
                reply.send(sent[at : at + size])
            reply.end()

        with scripted_openai(script) as server:
            assert (await reply_of(settings_for(server.base_url)))[0] == "b" * 12


# In the chain


async def answer_of(app: App, script: Script, **openai: Any) -> Answer:
    with scripted_openai(script) as server:
        assistant = assistant_for(app, settings_for(server.base_url, **openai))
        return await answered(assistant, QUESTION)


async def test_an_answer_without_an_end_is_traced_as_an_error(app: App) -> None:
    answer = await answer_of(app, THINKING, total_timeout_s=TOTAL_S)
    assert answer.status == "failed"
    assert "thought for 0.6 s without writing an answer" in answer.error
    trace = app.stores.traces.get(answer.trace_id)
    assert trace.status == "error"
    assert "thought for" in trace.error


# What a server says of its tokens


def counting(usage: object) -> Script:
    def script(reply: Reply, _: Received) -> None:
        reply.head()
        reply.piece(f"{SENTENCE} [1]")
        reply.event(chunk({}, "stop"))
        reply.event({**chunk({}), "choices": [], "usage": usage})
        reply.event(b"[DONE]")
        reply.end()

    return script


NO_COUNTS = (-5, 10**30, 2**63, MOST_TOKENS + 1, True, "40", "many", 3.0, 3.5, float("1e300"), None, [1], {"a": 1})


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
@pytest.mark.parametrize(("which", "count"), [("prompt_tokens", -5), ("completion_tokens", [1])])
async def test_a_count_that_is_none_is_unknown(app: App, which: str, count: object) -> None:
    usage = {"prompt_tokens": 40, "completion_tokens": 3, "total_tokens": 43} | {which: count}
    answer = await answer_of(app, counting(usage))
    assert (answer.status, answer.error) == ("answered", "")
    assert answer.usage == Usage()
    trace = app.stores.traces.get(answer.trace_id)
    assert trace.status == "ok"
    assert (trace.input_tokens, trace.output_tokens, trace.cost_usd) == (None, None, None)


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
@pytest.mark.parametrize(
    "usage",
    [
        [1],
        "many",
        {"prompt_tokens": "4", "completion_tokens": 3.0, "total_tokens": True},
        {
            "prompt_tokens": 4,
            "completion_tokens": 3,
            "total_tokens": "x",
            "prompt_tokens_details": {"cached_tokens": []},
        },
    ],
    ids=["list", "text", "other types", "details"],
)
async def test_usage_of_any_shape_is_no_failure(app: App, usage: object) -> None:
    answer = await answer_of(app, counting(usage))
    assert (answer.status, answer.error) == ("answered", "")
    assert answer.usage == (Usage(4, 3) if isinstance(usage, dict) else Usage())


@pytest.mark.parametrize("count", [0, 1, 2_000_000, MOST_TOKENS])
def test_a_count_that_can_be_one_is_believed(count: int) -> None:
    assert token_count(count) == count


@pytest.mark.parametrize("count", NO_COUNTS, ids=str)
def test_what_cannot_be_a_count_costs_an_unknown_amount(count: object) -> None:
    reported = {"input_tokens": count, "output_tokens": 3, "total_tokens": 3}
    assert read_usage(reported) == Usage(None, 3)
    assert load_prices(CostSettings()).tokens_usd("gpt-4o", read_usage(reported)) is None
