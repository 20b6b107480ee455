"""The clients that people use, against the API: what they ask is honoured, refused in OpenAI's form, or named."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from langchain_openai import ChatOpenAI
from live_server import running
from openai import OpenAI
from openai.lib.streaming.chat import ContentDeltaEvent
from pydantic import BaseModel
from scripted_openai import Received, Reply, ScriptedOpenAI, refuses, says, scripted_openai
from tiny import CORPUS, OFF_TOPIC, QUESTION, SENTENCE, open_tiny

from rag.encoders import Encoder
from ui.app.app import App

MODEL = "ragsmith"
ASKED = [{"role": "user", "content": QUESTION}]
ANSWER = "The tide gauge was installed in 1871 by Ida Brandt [1]. It is read twice a day [1]."
HANDBOOK = Path(__file__).parent.parent / "corpora" / "handbook" / "pages" / "http-api.md"
TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}
SCHEMA = {"type": "object", "properties": {"sentence": {"type": "string"}}, "required": ["sentence"]}


class Installed(BaseModel):
    """What a client wants to know of the gauge."""

    sentence: str


def written(reply: Reply, received: Received) -> None:
    """Write as a server does that honours what it is asked for: JSON, stop, max_tokens."""
    body = received.body
    text = ANSWER
    if OFF_TOPIC in str(body["messages"]):
        text = "The documents do not answer this question."
    elif "response_format" in body or "json" in str(body["messages"]).lower():
        text = '{"sentence": "The tide gauge was installed in 1871 by Ida Brandt."}'
    for stop in body.get("stop") or []:
        text = text.partition(stop)[0]
    words = text.split(" ")
    most = body.get("max_tokens") or body.get("max_completion_tokens")
    reply.head()
    for number, word in enumerate(words[:most]):
        reply.piece(word if number == 0 else f" {word}")
    reply.finish("length" if len(words) > most else "stop")


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedOpenAI]:
    with scripted_openai(written) as made:
        yield made


@pytest.fixture(scope="module")
def writing_app(
    tmp_path_factory: pytest.TempPathFactory, converted_models: Path, encoder: Encoder, server: ScriptedOpenAI
) -> Iterator[App]:
    """The app with a language model, which a server of a test's own plays."""
    served = {"base_url": server.base_url, "max_retries": 0}
    folder = tmp_path_factory.mktemp("writing")
    made = open_tiny(folder, converted_models, encoder=encoder, model="openai:scripted-1", openai=served)
    yield made
    made.close()


@pytest.fixture(scope="module")
def reading(app: App) -> Iterator[str]:
    """The API over the extractive reader."""
    with running(app) as at:
        yield f"{at}/v1"


@pytest.fixture(scope="module")
def writing(writing_app: App) -> Iterator[str]:
    """The API over a language model."""
    with running(writing_app) as at:
        yield f"{at}/v1"


@pytest.fixture(scope="module")
def addresses(reading: str, writing: str) -> dict[str, str]:
    return {"reader": reading, "writer": writing}


@pytest.fixture(params=["reader", "writer"])
def client(request: pytest.FixtureRequest, addresses: dict[str, str]) -> Iterator[OpenAI]:
    with client_of(addresses[request.param]) as made:
        yield made


@pytest.fixture
def reader(reading: str) -> Iterator[OpenAI]:
    with client_of(reading) as made:
        yield made


@pytest.fixture
def writer(writing: str) -> Iterator[OpenAI]:
    with client_of(writing) as made:
        yield made


def client_of(address: str) -> OpenAI:
    return OpenAI(base_url=address, api_key="unused", max_retries=0, timeout=30)


def ask(client: OpenAI, messages: Any = ASKED, **given: Any) -> Any:
    return client.chat.completions.create(model=MODEL, messages=messages, **given)


def content(completion: Any) -> str:
    return str(completion.choices[0].message.content)


def pieces(client: OpenAI, **given: Any) -> list[Any]:
    return list(ask(client, stream=True, **given))


def text_of(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


# Models


def test_models_are_listed_and_found_by_name(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL, f"{MODEL}/{CORPUS}"]
    for name in (MODEL, f"{MODEL}/{CORPUS}"):
        assert client.models.retrieve(name).id == name
    with pytest.raises(openai.NotFoundError) as found:
        client.models.retrieve("gpt-4o")
    assert (found.value.code, found.value.param) == ("model_not_found", "model")


# The answer and its end


def test_an_answer_and_its_stream_are_the_same(client: OpenAI) -> None:
    whole = ask(client)
    chunks = pieces(client, stream_options={"include_usage": True})
    assert SENTENCE.rstrip(".") in content(whole)
    assert text_of(chunks).strip() == content(whole)
    assert (
        [chunk.choices[0].finish_reason for chunk in chunks[-2:-1]] == ["stop"] == [whole.choices[0].finish_reason]
    )
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert whole.ragsmith["ignored"] == []


@pytest.mark.parametrize("stop", ["1871", ["Norderney", "in 18"], [" by Ida"]])
def test_a_stop_sequence_ends_the_answer_before_it(client: OpenAI, stop: str | list[str]) -> None:
    whole = content(ask(client))
    stops = [stop] if isinstance(stop, str) else stop
    end = min(whole.find(each) for each in stops if each in whole)
    assert content(ask(client, stop=stop)) in (whole[:end], whole[:end].strip())
    streamed = pieces(client, stop=stop)
    assert text_of(streamed).strip() == whole[:end].strip()
    assert streamed[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_limit_of_tokens_ends_the_answer(client: OpenAI, name: str) -> None:
    whole = content(ask(client))
    cut = ask(client, **{name: 7})
    assert cut.choices[0].finish_reason == "length"
    assert 0 < len(content(cut)) < len(whole)
    assert whole.startswith(content(cut)[:20])
    streamed = pieces(client, **{name: 7})
    assert text_of(streamed).strip() == content(cut).strip()
    assert streamed[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("text", "shown"),
    [(f"{SENTENCE} [1]", SENTENCE[:-1]), ("Verdi composed", ""), ("", "")],
    ids=["late", "early", "all"],
)
def test_a_content_filter_is_a_finish_reason(
    writer: OpenAI, server: ScriptedOpenAI, monkeypatch: pytest.MonkeyPatch, text: str, shown: str
) -> None:
    monkeypatch.setattr(server, "script", says(text, ending="content_filter"))
    whole = ask(writer)
    assert whole.choices[0].finish_reason == "content_filter"
    assert content(whole).startswith(shown)
    assert bool(content(whole)) == bool(shown)
    assert bool(whole.ragsmith["error"]) == (whole.ragsmith["status"] == "failed") == (not shown)
    streamed = pieces(writer)
    assert streamed[-1].choices[0].finish_reason == "content_filter"
    assert text_of(streamed).strip() == (content(whole) or text)
    with pytest.raises(openai.ContentFilterFinishReasonError):
        writer.chat.completions.parse(model=MODEL, messages=ASKED, response_format=Installed)


def test_a_limit_of_the_model_server_says_when_to_ask_again(
    writing: str, server: ScriptedOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "script", refuses(429, "Slow down.", retry_after="86400"))
    found = httpx.post(f"{writing}/chat/completions", json={"messages": ASKED}, timeout=30)
    assert (found.status_code, found.headers["retry-after"]) == (503, "86400")
    assert found.json()["error"]["code"] == "model_limited"


def test_the_reader_counts_no_more_tokens_than_were_allowed(reader: OpenAI) -> None:
    assert ask(reader, max_tokens=3).usage.completion_tokens == 3


def test_a_language_model_is_sent_what_the_client_wants(writer: OpenAI, server: ScriptedOpenAI) -> None:
    ask(writer, stop=["Amen"], max_tokens=99, temperature=0.7, top_p=0.5, seed=2**40 + 5)
    sent = server.received[-1].body
    assert {name: sent[name] for name in ("stop", "temperature", "top_p", "seed")} == {
        "stop": ["Amen"],
        "temperature": 0.7,
        "top_p": 0.5,
        "seed": 5,
    }
    assert 99 in (sent.get("max_tokens"), sent.get("max_completion_tokens"))


# JSON


def test_a_language_model_answers_in_json(writer: OpenAI) -> None:
    parsed = writer.chat.completions.parse(model=MODEL, messages=ASKED, response_format=Installed)
    assert parsed.choices[0].message.parsed == Installed(sentence=SENTENCE)
    loose = ask(writer, response_format={"type": "json_object"}, stream=False)
    assert Installed.model_validate_json(content(loose)).sentence == SENTENCE
    with writer.chat.completions.stream(model=MODEL, messages=ASKED, response_format=Installed) as stream:
        deltas = [event.delta for event in stream if isinstance(event, ContentDeltaEvent)]
        assert stream.get_final_completion().choices[0].message.parsed == Installed(sentence=SENTENCE)
    # Nothing is sent before it was checked.
    assert len(list(filter(None, deltas))) == 1


def test_a_refusal_where_json_was_asked_for_has_its_own_place(writer: OpenAI) -> None:
    asked = [{"role": "user", "content": OFF_TOPIC}]
    message = ask(writer, asked, response_format=json_schema(SCHEMA)).choices[0].message
    assert (message.content, "do not answer" in message.refusal) == (None, True)
    chunks = list(ask(writer, asked, response_format=json_schema(SCHEMA), stream=True))
    assert text_of(chunks) == ""
    assert any("do not answer" in (chunk.choices[0].delta.refusal or "") for chunk in chunks)


@pytest.mark.parametrize(
    "schema", [{"type": "wish"}, {"$ref": "http://example.org/schema"}, {"type": "object", "properties": 1}]
)
def test_a_schema_that_cannot_be_used_is_refused(writer: OpenAI, schema: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError) as found:
        ask(writer, response_format=json_schema(schema))
    assert found.value.param == "response_format"


def json_schema(schema: dict[str, Any]) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": None}}


# Messages


def test_instructions_are_named_as_ignored_wherever_they_stand(client: OpenAI) -> None:
    system = {"role": "system", "content": "Answer in French."}
    for messages in ([system, *ASKED], [*ASKED, system], [*ASKED, {**system, "role": "developer"}]):
        answer = ask(client, messages)
        assert SENTENCE.rstrip(".") in content(answer)
        assert answer.ragsmith["ignored"] == [
            f"messages.{(messages[0] if messages[0] != ASKED[0] else messages[1])['role']}"
        ]


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ([{"role": "assistant", "content": "The tide"}], "no_question"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}],
            "unsupported_content",
        ),
        ([{"role": "tool", "tool_call_id": "a", "content": "ok"}], "no_question"),
    ],
)
def test_what_is_no_question_is_refused(client: OpenAI, more: list[Any], code: str) -> None:
    with pytest.raises(openai.BadRequestError) as found:
        ask(client, [*ASKED, *more])
    assert (found.value.code, found.value.param) == (code, "messages")


def test_null_is_the_same_as_absent(reading: str) -> None:
    absent = (
        "stream stream_options stop n tools tool_choice temperature top_p seed max_tokens max_completion_tokens "
        "response_format logprobs top_logprobs presence_penalty frequency_penalty logit_bias user functions model "
        "modalities audio metadata store top_k odd"
    ).split()
    parts = [{"type": "text", "text": QUESTION, "cache_control": None}, {"type": "text", "text": None}]
    messages = [
        {"role": "assistant", "content": None, "tool_calls": None},
        {"role": "user", "content": parts, "name": None},
    ]
    body = {"messages": messages, **dict.fromkeys(absent)}
    answer = httpx.post(f"{reading}/chat/completions", json=body, timeout=30).json()
    assert SENTENCE in answer["choices"][0]["message"]["content"]
    assert answer["ragsmith"]["ignored"] == []
    options = {"messages": ASKED, "stream": True, "stream_options": {"include_usage": None}}
    assert '"usage"' not in httpx.post(f"{reading}/chat/completions", json=options, timeout=30).text


# What the handbook promises

SAMPLES: dict[str, Any] = {
    "stream": True,
    "stop": ["Ida"],
    "max_tokens": 5,
    "max_completion_tokens": 5,
    "response_format": {"type": "json_object"},
    "temperature": 0.5,
    "top_p": 0.9,
    "seed": 7,
    "n": 2,
    "tools": [TOOL],
    "functions": [TOOL["function"]],
    "tool_choice": "required",
    "logprobs": True,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "logit_bias": {"50256": -100},
    "modalities": ["text", "audio"],
    "reasoning_effort": "low",
    "user": "ida",
}


def promises() -> dict[str, tuple[str, str]]:
    """The table of the handbook: a parameter, and what becomes of it with the reader and with a language model."""
    rows = re.findall(r"^\| (`.*) \| (\w+) \| (\w+) \|$", HANDBOOK.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: (reader, writer) for names, reader, writer in rows for name in re.findall(r"`(\w+)`", names)}


def test_the_table_of_the_handbook_names_every_parameter() -> None:
    assert set(promises()) == set(SAMPLES)


@pytest.mark.parametrize("name", SAMPLES)
def test_every_parameter_has_the_effect_that_the_handbook_promises(addresses: dict[str, str], name: str) -> None:
    for promised, address in zip(promises()[name], addresses.values(), strict=True):
        body = {"model": MODEL, "messages": ASKED, name: SAMPLES[name]}
        response = httpx.post(f"{address}/chat/completions", json=body, timeout=30)
        if promised == "refused":
            error = response.json()["error"]
            assert (response.status_code, error["param"], error["code"]) == (400, name, "unsupported_parameter")
            continue
        assert response.status_code == 200
        if name != "stream":
            assert (name in response.json()["ragsmith"]["ignored"]) is (promised == "named")


@pytest.mark.parametrize(
    "harmless",
    [{"n": 1}, {"tools": [], "tool_choice": "auto"}, {"tools": [TOOL], "tool_choice": "none"}, {"logit_bias": {}}],
)
def test_a_parameter_that_asks_for_nothing_is_accepted(reader: OpenAI, harmless: dict[str, Any]) -> None:
    assert SENTENCE in content(ask(reader, **harmless))


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "messages.0.content.0.text"),
    ],
)
def test_a_value_that_is_out_of_range_is_refused(reader: OpenAI, wrong: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as found:
        ask(reader, **wrong)
    assert (found.value.code, found.value.param) == ("invalid_request", param)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "search"}}])
def test_a_call_without_tools_is_refused(reader: OpenAI, choice: Any) -> None:
    with pytest.raises(openai.BadRequestError) as found:
        ask(reader, tool_choice=choice)
    assert (found.value.code, found.value.param) == ("unsupported_parameter", "tool_choice")


# Other addresses


def test_other_endpoints_are_refused_in_openais_form(reader: OpenAI, reading: str) -> None:
    calls = (
        lambda: reader.embeddings.create(model=MODEL, input="a"),
        lambda: reader.completions.create(model=MODEL, prompt="a"),
        lambda: reader.responses.create(model=MODEL, input="a"),
        lambda: reader.files.list(),
    )
    for call in calls:
        with pytest.raises(openai.NotFoundError) as found:
            call()
        assert found.value.code == "unknown_url"
    assert httpx.get(f"{reading}/chat/completions").json()["error"]["code"] == "unknown_url"
    assert httpx.post(f"{reading}/chat/completions/", json={"messages": ASKED}, timeout=30).status_code == 200


def test_a_client_learns_what_its_address_lacks(reading: str) -> None:
    server = reading.removesuffix("/v1")
    for method, path in (("POST", "/chat/completions"), ("GET", "/models"), ("GET", "//v1/models")):
        found = httpx.request(method, f"{server}{path}")
        assert found.status_code == 404
        assert found.json()["error"]["message"].endswith(f"set the client's base_url to {reading}.")
    for method, path in (("GET", ""), ("OPTIONS", "/chat/completions"), ("OPTIONS", "/models")):
        assert httpx.request(method, f"{reading}{path}").json()["error"]["code"] == "unknown_url"


def test_models_are_found_without_their_text_or_behind_a_slash(reading: str) -> None:
    assert (
        httpx.head(f"{reading}/models").status_code == httpx.head(f"{reading}/models/{MODEL}").status_code == 200
    )
    assert httpx.head(f"{reading}/models/odd").status_code == 404
    assert httpx.get(f"{reading}/models/").json() == httpx.get(f"{reading}/models").json()


def test_a_request_may_begin_with_a_byte_order_mark(reading: str) -> None:
    body = json.dumps({"messages": ASKED}).encode("utf-8-sig")
    assert httpx.post(f"{reading}/chat/completions", content=body, timeout=30).status_code == 200


def test_what_the_guards_refuse_has_openais_form(reading: str) -> None:
    foreign = httpx.get(f"{reading}/models", headers={"host": "evil.example"})
    assert (foreign.status_code, foreign.json()["error"]["type"]) == (403, "invalid_request_error")
    large = httpx.post(f"{reading}/chat/completions", content=b"x" * 4_100_000)
    assert (large.status_code, large.json()["error"]["code"]) == (413, "request_too_large")


# LangChain


def chat(address: str, **given: Any) -> ChatOpenAI:
    return ChatOpenAI(model=MODEL, base_url=address, api_key="unused", max_retries=0, timeout=30, **given)


def test_langchain_asks_streams_stops_and_counts(addresses: dict[str, str]) -> None:
    for address in addresses.values():
        model = chat(address)
        reply = model.invoke([("system", "Be brief."), ("human", QUESTION)])
        assert SENTENCE.rstrip(".") in reply.content
        assert reply.usage_metadata["total_tokens"] > 0
        streamed = list(model.stream(QUESTION))
        assert "".join(chunk.content for chunk in streamed).strip() == reply.content
        assert "1871" not in model.bind(stop=["1871"]).invoke(QUESTION).content
        assert [answer.content for answer in model.batch([QUESTION] * 3)] == [reply.content] * 3
        assert chat(address, max_tokens=5).invoke(QUESTION).response_metadata["finish_reason"] == "length"


def test_langchain_gets_structured_output_or_a_refusal_that_says_why(addresses: dict[str, str]) -> None:
    reader, writer = (chat(address) for address in addresses.values())
    assert writer.with_structured_output(Installed).invoke(QUESTION) == Installed(sentence=SENTENCE)
    json_mode = writer.with_structured_output(Installed, method="json_mode")
    assert json_mode.invoke(f"{QUESTION} Answer in JSON.") == Installed(sentence=SENTENCE)
    with pytest.raises(openai.BadRequestError, match="extractive writes no JSON"):
        reader.with_structured_output(Installed).invoke(QUESTION)
    for model in (reader, writer):
        with pytest.raises(openai.BadRequestError, match="calls no tools"):
            model.bind_tools([TOOL]).invoke(QUESTION)
