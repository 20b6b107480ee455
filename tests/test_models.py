"""Model servers: what they are sent, what of it costs, how they are stopped, and where the key is not."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from scripted_openai import (
    KEY,
    MESSAGES,
    WRONG_TYPES,
    Received,
    Reply,
    Script,
    answered_by,
    chunk,
    refuses,
    reply_of,
    says,
    scripted_openai,
    scripts,
    settings_for,
    silent,
)
from tiny import FOLLOW_UP, QUESTION, SENTENCE, answered, assistant_for, only_llm, steps_of, stopped_after

from rag.errors import ModelUnavailable, SettingsError
from rag.models.chat_models import check_model_name, open_remote_model
from rag.settings import DecodingSettings, Settings
from rag.tracing.cost import read_usage
from rag.types import Ask, Usage
from ui.answer_clip import Clip
from ui.app.app import App
from ui.openai_shapes import Ending as ApiEnding
from ui.pages.chat.answer_html import footer_html

pytestmark = WRONG_TYPES

# Names


@pytest.mark.parametrize(
    "name",
    ["extractive", "smollm2", "local:~/models/tiny", "local:org/model", "openai:gpt-4o", "openai:org/model:7b-q4"],
)
def test_a_name_that_stands_for_a_model(name: str) -> None:
    check_model_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "openai:", "local:", "local", "gpt-4o", "Extractive", "anthropic:claude", "extractive:x", "smollm2:x"],
)
def test_a_name_that_stands_for_nothing_is_refused_with_those_that_do(name: str) -> None:
    with pytest.raises(SettingsError, match="is unknown") as caught:
        check_model_name(name)
    assert "local:PATH-OR-NAME" in caught.value.fix
    assert "openai:NAME" in caught.value.fix


def test_the_model_that_is_gone_is_named_with_those_that_replace_it() -> None:
    with pytest.raises(SettingsError, match="no longer exists") as caught:
        check_model_name("generator")
    assert caught.value.fix == "Use `smollm2` or `extractive`."


def test_openai_itself_needs_a_key_and_a_server_of_ones_own_does_not() -> None:
    with pytest.raises(ModelUnavailable, match="openai:gpt-4o needs an API key") as caught:
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


WRITING: dict[str, Any] = {
    "temperature": 0.7,
    "top_p": 0.9,
    "top_k": 40,
    "repetition_penalty": 1.15,
    "seed": 0,
    "max_tokens": 123,
    "stop": ("\n\n", "Sources:"),
    "json_schema": {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]},
}


async def test_all_of_the_decoding_arrives_exactly() -> None:
    with scripted_openai(says('{"answer": ', '"blue"}')) as server:
        settings = settings_for(server.base_url).model_copy(update={"decoding": DecodingSettings(**WRITING)})
        text, usage = await reply_of(settings)
    assert (text, usage["input_tokens"], usage["output_tokens"]) == ('{"answer": "blue"}', 40, 3)
    assert server.only.body == {
        "model": "scripted-1",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Why is the sky blue?"},
        ],
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 0,
        "stop": ["\n\n", "Sources:"],
        "max_tokens": 123,
        "top_k": 40,
        "repetition_penalty": 1.15,
        "repeat_penalty": 1.15,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": WRITING["json_schema"], "strict": True},
        },
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize(
    ("name", "value", "sent"),
    [
        ("top_p", 1.0, {"top_p": 1.0}),
        ("top_k", 1, {"top_k": 1}),
        ("repetition_penalty", 1.0, {"repetition_penalty": 1.0, "repeat_penalty": 1.0}),
        ("seed", 2**31 - 1, {"seed": 2**31 - 1}),
        ("stop", ("", "é"), {"stop": ["é"]}),
        ("stop", ("",), {}),
    ],
)
async def test_each_setting_is_sent_alone(name: str, value: Any, sent: dict[str, Any]) -> None:
    with scripted_openai(says("Blue.")) as server:
        plain = settings_for(server.base_url)
        await reply_of(plain)
        await reply_of(plain.model_copy(update={"decoding": DecodingSettings(**{name: value})}))
    first, second = server.received
    assert second.body == first.body | sent


async def test_an_answer_in_json_that_was_cut_off_is_still_told() -> None:
    with scripted_openai(says('{"answer": "bl', ending="length")) as server:
        settings = settings_for(server.base_url).model_copy(update={"decoding": DecodingSettings(**WRITING)})
        text, _ = await reply_of(settings)
    assert text == '{"answer": "bl'


def knows_no(*parameters: str) -> Script:
    """Refuse requests with one of these parameters, as OpenAI words it."""

    def script(reply: Reply, request: Received) -> None:
        for name in parameters:
            if name in request.body:
                message = f"Unsupported value: '{name}' does not support {request.body[name]} with this model."
                error = {"message": message, "param": name, "code": "unsupported_value"}
                reply.whole(400, json.dumps({"error": error}).encode())
                return
        says("Blue.")(reply, request)

    return script


async def test_a_parameter_that_nobody_set_is_left_out_once_it_was_refused() -> None:
    with scripted_openai(knows_no("temperature", "max_tokens")) as server:
        model = open_remote_model(settings_for(server.base_url))
        for _ in range(2):
            assert (await model.ainvoke(MESSAGES)).text == "Blue."
    assert len(server.received) == 4
    last = server.received[-1].body
    assert "temperature" not in last
    assert "max_tokens" not in last
    assert last["max_completion_tokens"] == 512


async def test_a_parameter_that_was_set_is_never_left_out() -> None:
    with scripted_openai(knows_no("temperature")) as server:
        settings = settings_for(server.base_url).model_copy(update={"decoding": DecodingSettings(temperature=0.7)})
        with pytest.raises(ModelUnavailable, match="'temperature' does not support"):
            await reply_of(settings)
    assert len(server.received) == 1


async def test_a_temperature_that_was_set_is_sent_whatever_the_name_of_the_model() -> None:
    with scripted_openai(says("Blue.")) as server:
        settings = settings_for(server.base_url, "gpt-5-mini")
        await reply_of(settings.model_copy(update={"decoding": DecodingSettings(temperature=0.7)}))
    assert server.only.body["temperature"] == 0.7


async def test_a_limit_that_is_too_high_is_no_parameter_that_is_refused() -> None:
    too_large = refuses(400, "'max_tokens' is too large: 512 exceeds the context of 256.")
    with scripted_openai(too_large) as server, pytest.raises(ModelUnavailable, match="too large"):
        await reply_of(settings_for(server.base_url))
    assert len(server.received) == 1


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        *((name, False) for name in ("o1", "o3-mini", "proxy/o4-mini", "gpt-5", "openai/GPT-5-nano-2025-08-07")),
        *((name, True) for name in ("olmo-3", "gpt-5-chat-latest", "gpt-5.1", "gpt-50", "gpt-4o", "o3x")),
    ],
)
async def test_a_reasoning_model_is_sent_no_temperature_that_nobody_set(name: str, sent: bool) -> None:
    with scripted_openai(says("Blue.")) as server:
        await reply_of(settings_for(server.base_url, name))
    assert ("temperature" in server.only.body) is sent


async def test_a_server_without_stream_options_is_told_of_and_can_be_used() -> None:
    refused = refuses(400, "Unrecognized request argument supplied: stream_options")
    with scripted_openai(refused) as server:
        with pytest.raises(ModelUnavailable) as caught:
            await reply_of(settings_for(server.base_url))
        assert caught.value.fix == "Set openai.stream_usage = false."
        server.script = says("Blue.")
        assert (await reply_of(settings_for(server.base_url, stream_usage=False)))[0] == "Blue."
    assert "stream_options" not in server.received[-1].body


async def test_openai_itself_is_not_sent_what_it_does_not_know() -> None:
    given = Settings(model="openai:gpt-4o", openai={"api_key": KEY}, decoding=WRITING)
    model: Any = open_remote_model(given)
    assert model._get_request_payload(MESSAGES) == {
        "model": "gpt-4o",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Why is the sky blue?"},
        ],
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 0,
        "stop": ["\n\n", "Sources:"],
        "max_completion_tokens": 123,
        "extra_body": {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": WRITING["json_schema"], "strict": True},
            }
        },
        "stream": True,
    }


async def test_openai_itself_is_given_the_limit_under_its_newer_name() -> None:
    model: Any = open_remote_model(Settings(model="openai:gpt-4o", openai={"api_key": KEY}))
    payload = model._get_request_payload(MESSAGES)
    assert payload["max_completion_tokens"] == 512
    assert "max_tokens" not in payload | payload.get("extra_body", {})


@pytest.mark.parametrize(
    ("beside", "cached"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 30}}, 30),
        ({"prompt_tokens_details": {"cached_tokens": 99}}, 40),
        ({"prompt_tokens_details": {"cached_tokens": -1}}, 0),
        ({"prompt_tokens_details": "many"}, 0),
        ({"prompt_cache_hit_tokens": 30, "prompt_cache_miss_tokens": 10}, 30),
        ({"cached_tokens": 30, "prompt_tokens_details": None}, 30),
        ({}, 0),
    ],
)
async def test_input_that_was_read_before_is_counted(beside: dict[str, Any], cached: int) -> None:
    def script(reply: Reply, _: Received) -> None:
        reply.head()
        reply.piece("Blue.")
        reply.event(chunk({}, finish_reason="stop"))
        usage = {"prompt_tokens": 40, "completion_tokens": 3} | beside
        reply.event({**chunk({}), "choices": [], "usage": usage})
        reply.end()

    with scripted_openai(script) as server:
        _, usage = await reply_of(settings_for(server.base_url))
    assert read_usage(usage) == Usage(40, 3, cached)


async def test_counts_of_the_reply_so_far_are_not_added_up() -> None:
    def script(reply: Reply, _: Received) -> None:
        reply.head()
        for written, word in enumerate(("Blue", " it", " is."), 1):
            reply.event(chunk({"content": word}) | {"usage": {"prompt_tokens": 40, "completion_tokens": written}})
        reply.event(chunk({}, finish_reason="stop"))
        reply.end()

    with scripted_openai(script) as server:
        _, usage = await reply_of(settings_for(server.base_url))
    assert read_usage(usage) == Usage(40, 3)


async def test_any_text_arrives_as_it_is() -> None:
    told = 'Ünï 😀 "quotes" \\n \n\t{{x}} \u2028 </s>'
    with scripted_openai(says(told)) as server:
        model = open_remote_model(settings_for(server.base_url))
        assert (await model.ainvoke([HumanMessage(told)])).text == told
    assert server.only.body["messages"] == [{"role": "user", "content": told}]


async def test_the_chain_sends_its_prompt_and_records_the_usage(app: App) -> None:
    answer, server = await answered_by(app, says(SENTENCE, " [1]"), "gpt-4o-mini")
    assert (answer.status, answer.text, answer.model) == ("answered", f"{SENTENCE} [1]", "openai:gpt-4o-mini")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (40, 3)
    roles = [message["role"] for message in server.only.body["messages"]]
    assert roles == ["system", "user"]
    assert server.only.body["messages"][1]["content"].endswith(f"Question: {QUESTION}\n")
    trace = app.stores.traces.get(answer.trace_id)
    llm = only_llm(trace)
    assert (llm.input_tokens, llm.output_tokens) == (40, 3)
    assert llm.cost_usd == pytest.approx((40 * 0.15 + 3 * 0.6) / 1e6)
    assert answer.cost_usd is not None
    assert answer.cost_usd > llm.cost_usd  # type: ignore[operator]


async def test_a_model_without_a_price_has_an_unknown_cost(app: App) -> None:
    answer, _ = await answered_by(app, says(SENTENCE, " [1]"), "llama3.2")
    assert (answer.status, answer.cost_usd) == ("answered", None)
    assert app.stores.traces.get(answer.trace_id).cost_usd is None


async def test_a_server_that_reports_no_usage_leaves_it_unknown(app: App) -> None:
    def script(reply: Reply, _: Received) -> None:
        reply.head()
        reply.piece(f"{SENTENCE} [1]")
        reply.event(chunk({}, finish_reason="stop"))
        reply.event(b"[DONE]")
        reply.end()

    answer, _ = await answered_by(app, script, "gpt-4o")
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.cost_usd) == (None, None, None)


@pytest.mark.parametrize(("ending", "cut"), [("stop", False), ("length", True)])
async def test_an_answer_that_the_token_limit_ended_says_so(app: App, ending: str, cut: bool) -> None:
    answer, _ = await answered_by(app, says(SENTENCE, " [1]", ending=ending), "gpt-4o")
    assert (answer.status, answer.cut) == ("answered", cut)
    assert ("cut at the token limit" in footer_html(answer)) == cut
    assert ApiEnding.of(answer, Clip()).reason == ending


async def test_a_follow_up_asks_the_server_twice_and_costs_twice(app: App) -> None:
    script = scripts([says(QUESTION), says(SENTENCE, " [1]")])
    answer, server = await answered_by(app, script, "gpt-4o", "Since when?", history=FOLLOW_UP)
    assert answer.standalone == QUESTION
    assert len(server.received) == 2
    trace = app.stores.traces.get(answer.trace_id)
    assert (trace.input_tokens, trace.output_tokens) == (80, 6)
    assert sum(span.kind == "llm" for span in trace.spans) == 2


# Stopping


async def test_a_person_who_stops_a_slow_answer_hangs_up_on_the_server(app: App) -> None:
    def slowly(reply: Reply, _: Received) -> None:
        reply.head()
        reply.drip("tide ", 0.02)

    with scripted_openai(slowly) as server:
        assistant = assistant_for(app, settings_for(server.base_url, "gpt-4o"))
        trace_id = await stopped_after(5, assistant.start(Ask(QUESTION)))
        assert await asyncio.to_thread(server.gone.wait, 5)
    trace = app.stores.traces.get(trace_id)
    assert trace.status == "cancelled"
    assert trace.answer.startswith("tide tide tide tide tide")
    llm = only_llm(trace)
    assert (llm.status, llm.attributes["usage_estimated"]) == ("cancelled", True)
    # What it had read was never told, so nobody knows what it cost.
    assert trace.cost_usd is None


async def test_a_person_who_stops_a_silent_server_hangs_up_on_it(app: App) -> None:
    with scripted_openai(silent) as server:
        assistant = assistant_for(app, settings_for(server.base_url))
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
    app: App,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    status: int,
    key: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    with scripted_openai(repeats_the_key(status)) as server:
        settings = settings_for(server.base_url, api_key=key)
        answer = await answered(assistant_for(app, settings), QUESTION)
    assert server.only.headers["authorization"] == f"Bearer {key}"
    assert answer.status == "failed"
    assert "Incorrect API key provided: [redacted]" in answer.error
    seen = [
        answer,
        app.stores.traces.get(answer.trace_id),
        settings,
        settings.model_dump_json(),
        *capfd.readouterr(),
    ]
    assert not [each for each in seen if key in repr(each)]
    assert not [record for record in caplog.records if key in record.getMessage()]


async def test_the_key_is_not_in_what_a_model_says_of_itself(app: App) -> None:
    settings = settings_for("http://127.0.0.1:1/v1")
    model = open_remote_model(settings)
    assert KEY not in repr(model)
    assert KEY not in str(model.asdict())
    assert KEY not in repr(steps_of(app, model))
