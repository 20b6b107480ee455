"""Model servers: what they are sent, what of it costs, and every way in which they fail."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from scripted_openai import (
    MODEL,
    Received,
    Reply,
    Script,
    ScriptedOpenAI,
    chunk,
    refuses,
    says,
    scripted_openai,
    scripts,
)
from tiny import QUESTION, SENTENCE, answered, assistant_of, steps_of

from rag.assistant import Ask, Assistant
from rag.errors import ModelError, ModelProtocolError, ModelTimeout, ModelUnavailable, SettingsError
from rag.events import Started, Token, Turn
from rag.models import check_model_name, open_remote_model
from rag.remote import LONGEST_REPLY
from rag.settings import DecodingSettings, Settings
from ui.wiring import Workbench

# What the client library says when a server's types are wrong; the reply is refused all the same.
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")

KEY = "my-own-secret-key-0123456789"
MESSAGES = [SystemMessage("Be brief."), HumanMessage("Why is the sky blue?")]


def settings_for(base_url: str, name: str = MODEL, **openai: Any) -> Settings:
    given = {"base_url": base_url, "timeout_s": 5.0, "max_retries": 0, "api_key": KEY}
    return Settings(model=f"openai:{name}", openai=given | openai)


async def reply_of(settings: Settings) -> tuple[str, Any]:
    """The text of a reply and its usage."""
    whole = None
    async for piece in open_remote_model(settings).astream(MESSAGES):
        whole = piece if whole is None else whole + piece  # type: ignore[assignment]
    assert whole is not None
    return whole.text, whole.usage_metadata


async def failure(script: Script, **openai: Any) -> tuple[ModelError, ScriptedOpenAI]:
    with scripted_openai(script) as server, pytest.raises(ModelError) as caught:
        await reply_of(settings_for(server.base_url, **openai))
    assert "\n" not in str(caught.value)
    assert caught.value.fix
    assert KEY not in str(caught.value)
    return caught.value, server


def assistant_for(bench: Workbench, settings: Settings) -> Assistant:
    """An assistant on the small corpus that a server answers."""
    model = open_remote_model(settings)
    steps = steps_of(bench, model)
    steps = replace(steps, release=replace(steps.release, model=settings.model))
    return assistant_of(steps, bench.traces)


# Names


@pytest.mark.parametrize("name", ["embedded", "openai:gpt-4o", "openai:org/model:7b-q4"])
def test_a_name_that_stands_for_a_model(name: str) -> None:
    check_model_name(name)


@pytest.mark.parametrize("name", ["", "openai:", "gpt-4o", "Embedded", "anthropic:claude", "embedded:x"])
def test_a_name_that_stands_for_nothing_is_refused_with_the_two_that_do(name: str) -> None:
    with pytest.raises(SettingsError, match="is not known") as caught:
        check_model_name(name)
    assert "openai:NAME" in caught.value.fix


def test_openai_itself_needs_a_key_and_a_server_of_ones_own_does_not() -> None:
    with pytest.raises(ModelUnavailable, match="openai:gpt-4o needs a key") as caught:
        open_remote_model(Settings(model="openai:gpt-4o"))
    assert "OPENAI_API_KEY" in caught.value.fix
    open_remote_model(Settings(model="openai:x", openai={"base_url": "http://127.0.0.1:1/v1"}))
    open_remote_model(Settings(model="openai:gpt-4o", openai={"api_key": KEY}))


# What arrives


async def test_what_is_sent_arrives_exactly() -> None:
    with scripted_openai(says("Because ", "of Rayleigh.")) as server:
        settings = settings_for(server.base_url, "org/model:7b").model_copy(
            update={"decoding": DecodingSettings(temperature=0.7, max_tokens=123)}
        )
        text, usage = await reply_of(settings)
    assert text == "Because of Rayleigh."
    assert (usage["input_tokens"], usage["output_tokens"]) == (40, 3)
    request = server.only
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body == {
        "model": "org/model:7b",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Why is the sky blue?"},
        ],
        "temperature": 0.7,
        "max_tokens": 123,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_openai_itself_is_given_the_limit_under_its_newer_name() -> None:
    model: Any = open_remote_model(Settings(model="openai:gpt-4o", openai={"api_key": KEY}))
    payload = model._get_request_payload(MESSAGES)
    assert payload["max_completion_tokens"] == 512
    assert "max_tokens" not in payload | payload.get("extra_body", {})


async def test_any_text_arrives_as_it_is() -> None:
    told = 'Ünï 😀 "quotes" \\n \n\t{{x}} \u2028 </s>'
    with scripted_openai(says(told)) as server:
        model = open_remote_model(settings_for(server.base_url))
        assert (await model.ainvoke([HumanMessage(told)])).text == told
    assert server.only.body["messages"] == [{"role": "user", "content": told}]


async def test_the_chain_sends_its_prompt_and_records_the_usage(bench: Workbench) -> None:
    with scripted_openai(says(SENTENCE, " [1]")) as server:
        settings = settings_for(server.base_url, "gpt-4o-mini")
        answer = await answered(assistant_for(bench, settings), QUESTION)
    assert (answer.status, answer.text, answer.model) == ("answered", f"{SENTENCE} [1]", "openai:gpt-4o-mini")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (40, 3)
    roles = [message["role"] for message in server.only.body["messages"]]
    assert roles == ["system", "user"]
    assert server.only.body["messages"][1]["content"].endswith(f"Question: {QUESTION}\n")
    trace = bench.traces.get(answer.trace_id)
    (llm,) = (span for span in trace.spans if span.kind == "llm")
    assert (llm.input_tokens, llm.output_tokens) == (40, 3)
    assert llm.cost_usd == pytest.approx((40 * 0.15 + 3 * 0.6) / 1e6)
    assert answer.cost_usd is not None
    assert answer.cost_usd > llm.cost_usd  # type: ignore[operator]


async def test_a_model_without_a_price_has_an_unknown_cost(bench: Workbench) -> None:
    with scripted_openai(says(SENTENCE, " [1]")) as server:
        answer = await answered(assistant_for(bench, settings_for(server.base_url, "llama3.2")), QUESTION)
    assert (answer.status, answer.cost_usd) == ("answered", None)
    assert bench.traces.get(answer.trace_id).cost_usd is None


async def test_a_server_that_reports_no_usage_leaves_it_unknown(bench: Workbench) -> None:
    def script(reply: Reply, _: Received) -> None:
        reply.head()
        reply.piece(f"{SENTENCE} [1]")
        reply.event(chunk({}, finish_reason="stop"))
        reply.event(b"[DONE]")
        reply.end()

    with scripted_openai(script) as server:
        answer = await answered(assistant_for(bench, settings_for(server.base_url, "gpt-4o")), QUESTION)
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.cost_usd) == (None, None, None)


async def test_a_follow_up_asks_the_server_twice_and_costs_twice(bench: Workbench) -> None:
    with scripted_openai(scripts([says("When was the tide gauge installed?"), says(SENTENCE, " [1]")])) as server:
        assistant = assistant_for(bench, settings_for(server.base_url, "gpt-4o"))
        answer = await answered(assistant, "Since when?", history=(Turn("What is the tide gauge?", "A thing."),))
    assert answer.standalone == "When was the tide gauge installed?"
    assert len(server.received) == 2
    trace = bench.traces.get(answer.trace_id)
    assert (trace.input_tokens, trace.output_tokens) == (80, 6)
    assert sum(span.kind == "llm" for span in trace.spans) == 2


# What fails


@pytest.mark.parametrize(
    ("status", "fix"),
    [
        (400, "decoding"),
        (401, "OPENAI_API_KEY"),
        (403, "OPENAI_API_KEY"),
        (404, "/v1"),
        (422, "server's log"),
        (429, "Wait"),
        (500, "server's log"),
        (503, "server's log"),
    ],
)
async def test_a_server_that_refuses_is_quoted_and_the_fix_fits(status: int, fix: str) -> None:
    error, server = await failure(refuses(status, f"because of {status}"))
    assert isinstance(error, ModelUnavailable)
    assert f"The model server at {server.base_url} refuses: " in error.message
    assert f"because of {status}" in error.message
    assert fix in error.fix


async def test_a_page_of_html_is_not_quoted() -> None:
    page = b"<html>\r\n<head><title>502 Bad Gateway</title></head></html>"
    error, _ = await failure(lambda reply, _: reply.whole(502, page, "text/html"))
    assert isinstance(error, ModelUnavailable)
    assert error.message.endswith("refuses: Error code: 502.")


@pytest.mark.parametrize(("status", "asked"), [(429, 3), (500, 3), (503, 3), (400, 1), (401, 1), (404, 1)])
async def test_only_what_may_pass_is_tried_again(status: int, asked: int) -> None:
    _, server = await failure(refuses(status, "no", retry_after="0.01"), max_retries=2)
    assert len(server.received) == asked


async def test_a_server_that_recovers_is_answered_from() -> None:
    script = scripts([refuses(503, "starting", retry_after="0.01"), says("Here.")])
    with scripted_openai(script) as server:
        assert (await reply_of(settings_for(server.base_url, max_retries=1)))[0] == "Here."
    assert len(server.received) == 2


@contextmanager
def nobody() -> Iterator[str]:
    """An address at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


async def test_a_server_that_is_down_is_named() -> None:
    with nobody() as address, pytest.raises(ModelUnavailable) as caught:
        await reply_of(settings_for(address))
    expected = f"The model server at {address} cannot be reached: All connection attempts failed."
    assert caught.value.message == expected
    assert "openai.base_url" in caught.value.fix


@pytest.mark.parametrize(
    "address", ["not an address", "http://", "ftp://127.0.0.1/v1", "http://127.0.0.1:99999/v1"]
)
async def test_an_address_that_is_none_is_an_error_with_a_fix(address: str) -> None:
    with pytest.raises(ModelError) as caught:
        await reply_of(settings_for(address))
    assert "openai.base_url" in caught.value.fix


def silent(reply: Reply, _: Received) -> None:
    reply.wait_until_gone()


def silent_after_its_head(reply: Reply, _: Received) -> None:
    reply.head()
    reply.wait_until_gone()


def silent_in_the_middle(reply: Reply, _: Received) -> None:
    reply.head()
    reply.piece("The tide ")
    reply.wait_until_gone()


def alive_without_a_word(reply: Reply, _: Received) -> None:
    reply.head()
    try:
        for _ in range(300):
            reply.send(b": still thinking\n\n")
            time.sleep(0.02)
    except OSError:
        reply.wait_until_gone()


@pytest.mark.parametrize("script", [silent, silent_after_its_head, silent_in_the_middle, alive_without_a_word])
@pytest.mark.parametrize("retries", [0, 5])
async def test_a_silent_server_is_given_up_within_the_time_out(script: Script, retries: int) -> None:
    began = time.monotonic()
    error, _ = await failure(script, timeout_s=0.4, max_retries=retries)
    assert time.monotonic() - began < 2
    assert isinstance(error, ModelTimeout)
    assert "openai.timeout_s" in error.fix


def html(reply: Reply, _: Received) -> None:
    reply.whole(200, b"<html><body>Welcome to nginx!</body></html>", "text/html")


def json_of_something_else(reply: Reply, _: Received) -> None:
    reply.whole(200, b'{"detail": "Not Found"}')


def nothing(reply: Reply, _: Received) -> None:
    reply.whole(200, b"", "text/event-stream")


def only_the_end(reply: Reply, _: Received) -> None:
    reply.whole(200, b"data: [DONE]\n\n", "text/event-stream")


def broken_json(reply: Reply, _: Received) -> None:
    reply.head()
    reply.piece("The tide ")
    reply.event(b'{"choices": [{"delta"')
    reply.end()


def no_utf8(reply: Reply, _: Received) -> None:
    reply.whole(200, b"data: \xff\xfe\x80\n\n" * 3, "text/event-stream")


def events_of(*values: object) -> Script:
    def script(reply: Reply, _: Received) -> None:
        reply.head()
        for value in values:
            reply.event(value)
        reply.end()

    return script


RUBBISH: dict[str, Script] = {
    "html": html,
    "json": json_of_something_else,
    "nothing": nothing,
    "only the end": only_the_end,
    "broken json": broken_json,
    "no utf-8": no_utf8,
    "null": events_of(None),
    "a number": events_of(5),
    "a list": events_of([1, 2, 3]),
    "an empty object": events_of({}),
    "choices as text": events_of({"choices": "no"}),
    "choices of nothing": events_of({"choices": [None]}),
    "a delta of nothing": events_of({"choices": [{"delta": None}]}),
    "a number as content": events_of(chunk({"content": 5})),
    "a list as content": events_of(chunk({"content": [{"a": 1}]})),
    "usage as text": events_of(chunk({"content": "x"}), {**chunk({}), "choices": [], "usage": "much"}),
    "counts as text": events_of({**chunk({}), "choices": [], "usage": {"prompt_tokens": "many"}}),
}


@pytest.mark.parametrize("name", RUBBISH)
async def test_rubbish_is_told_as_such(name: str) -> None:
    error, _ = await failure(RUBBISH[name])
    assert isinstance(error, ModelProtocolError)


async def test_an_error_inside_the_stream_is_quoted() -> None:
    error, _ = await failure(events_of({"error": {"message": "CUDA out of memory", "type": "server_error"}}))
    assert isinstance(error, ModelUnavailable)
    assert error.message.endswith("failed: CUDA out of memory.")


def cut_off(reply: Reply, _: Received) -> None:
    reply.head()
    reply.piece("The tide ")
    reply.piece("gauge was")


def ended_without_an_end(reply: Reply, _: Received) -> None:
    cut_off(reply, _)
    reply.end()


@pytest.mark.parametrize("script", [cut_off, ended_without_an_end])
async def test_half_an_answer_is_not_taken_for_a_whole_one(bench: Workbench, script: Script) -> None:
    error, _ = await failure(script)
    assert isinstance(error, ModelProtocolError)
    assert error.message == "The model server broke off in the middle of its answer."
    with scripted_openai(script) as server:
        answer = await answered(assistant_for(bench, settings_for(server.base_url)), QUESTION)
    assert (answer.status, answer.error) == ("failed", str(error))
    trace = bench.traces.get(answer.trace_id)
    assert (trace.status, trace.answer) == ("error", "The tide gauge was")
    assert str(error) in trace.error


async def test_tokens_used_up_by_thinking_are_told() -> None:
    error, _ = await failure(events_of(chunk({"content": ""}), chunk({}, finish_reason="length"), b"[DONE]"))
    assert isinstance(error, ModelProtocolError)
    assert "decoding.max_tokens" in error.fix


async def test_an_empty_answer_is_a_refusal(bench: Workbench) -> None:
    with scripted_openai(says()) as server:
        answer = await answered(assistant_for(bench, settings_for(server.base_url)), QUESTION)
    assert answer.status == "abstained"


async def test_a_giant_line_is_not_taken_for_an_answer() -> None:
    error, _ = await failure(says("x" * (LONGEST_REPLY + 1)))
    assert isinstance(error, ModelProtocolError)
    assert "does not stop writing" in error.message


def endless(reply: Reply, _: Received) -> None:
    reply.head()
    reply.drip("word " * 20_000, 0.0)


async def test_a_server_without_an_end_is_left() -> None:
    with scripted_openai(endless) as server:
        with pytest.raises(ModelProtocolError, match="does not stop writing"):
            await reply_of(settings_for(server.base_url))
        assert await asyncio.to_thread(server.gone.wait, 5)


# Stopping


async def test_a_person_who_stops_a_slow_answer_hangs_up_on_the_server(bench: Workbench) -> None:
    def slowly(reply: Reply, _: Received) -> None:
        reply.head()
        reply.drip("tide ", 0.02)

    with scripted_openai(slowly) as server:
        assistant = assistant_for(bench, settings_for(server.base_url, "gpt-4o"))
        trace_id, tokens = "", 0
        async with aclosing(assistant.answer(Ask(QUESTION))) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Started):
                    trace_id = event.trace_id
                tokens += isinstance(event, Token)
                if tokens == 5:
                    break
        assert await asyncio.to_thread(server.gone.wait, 5)
    trace = bench.traces.get(trace_id)
    assert trace.status == "cancelled"
    assert trace.answer.startswith("tide tide tide tide tide")
    (llm,) = (span for span in trace.spans if span.kind == "llm")
    assert (llm.status, llm.attributes["usage_estimated"]) == ("cancelled", True)
    # What it had read was never told, so nobody knows what it cost.
    assert trace.cost_usd is None


async def test_a_person_who_stops_a_silent_server_hangs_up_on_it(bench: Workbench) -> None:
    with scripted_openai(silent) as server:
        assistant = assistant_for(bench, settings_for(server.base_url))
        task = asyncio.create_task(answered(assistant, QUESTION))
        while not server.received:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(server.gone.wait, 5)


# The key


def repeats_the_key(status: int) -> Script:
    def script(reply: Reply, request: Received) -> None:
        key = request.headers["authorization"].removeprefix("Bearer ")
        told = json.dumps({"error": {"message": f"Incorrect API key provided: {key}"}}).encode()
        if status == 200:
            reply.head()
            reply.event(told)
            reply.end()
        else:
            reply.whole(status, told)

    return script


@pytest.mark.parametrize("status", [200, 400, 401, 500])
@pytest.mark.parametrize("key", [KEY, "sk-proj-" + "a1B2c3D4" * 6])
async def test_the_key_is_nowhere_to_be_read(
    bench: Workbench,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    status: int,
    key: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    with scripted_openai(repeats_the_key(status)) as server:
        settings = settings_for(server.base_url, api_key=key)
        answer = await answered(assistant_for(bench, settings), QUESTION)
    assert server.only.headers["authorization"] == f"Bearer {key}"
    assert answer.status == "failed"
    assert "Incorrect API key provided: [redacted]" in answer.error
    seen = [answer, bench.traces.get(answer.trace_id), settings, settings.model_dump_json(), *capfd.readouterr()]
    assert not [each for each in seen if key in repr(each)]
    assert not [record for record in caplog.records if key in record.getMessage()]


async def test_the_key_is_not_in_what_a_model_says_of_itself(bench: Workbench) -> None:
    settings = settings_for("http://127.0.0.1:1/v1")
    model = open_remote_model(settings)
    assert KEY not in repr(model)
    assert KEY not in str(model.asdict())
    assert KEY not in repr(steps_of(bench, model))
