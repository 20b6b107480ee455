"""Spans of other programs become traces: in any order, once, whole or not at all, without secrets."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.rpc.status_pb2 import Status
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from live_server import running
from loopback_collector import collecting
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from scripted_app import ScriptedApp, a_scripted_app
from stored_traces import chain_spans

from rag.database import open_database, reading
from rag.masking import Masker
from rag.redaction import MASK
from rag.settings import TrackingSettings
from rag.trace_tables import contents, ledger, measures, traces
from rag.tracing.export_queue import ExportQueue
from rag.tracing.external_spans import received_spans
from rag.tracing.external_traces import ExternalTraces
from rag.tracing.otlp_delivery import OtlpDelivery
from rag.tracing.otlp_requests import read_request
from rag.tracing.trace_store import Trace, TraceStore
from rag.workspace import open_workspace
from ui.pages.traces.trace_view import trace_html

TRACE, OTHER = "ab" * 16, "cd" * 16
PROTOBUF = {"content-type": "application/x-protobuf"}
SECRET = "hunter2secret9"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedApp]:
    yield from a_scripted_app(tmp_path_factory)


@pytest.fixture(scope="module")
def address(app: ScriptedApp) -> Iterator[str]:
    with running(app) as at:
        yield at


@pytest.fixture
def client(address: str, app: ScriptedApp) -> Iterator[httpx.Client]:
    app.forget()
    with httpx.Client(base_url=address, timeout=20) as made:
        yield made


def sent(name: str, number: int, parent: int = 0, trace: str = TRACE, **attributes: Any) -> dict[str, Any]:
    """A span in OTLP's JSON; names of attributes have two underscores in place of a dot."""
    return {
        "traceId": trace,
        "spanId": f"{number:016x}",
        "parentSpanId": f"{parent:016x}" if parent else "",
        "name": name,
        "kind": 1,
        "startTimeUnixNano": str(1_700_000_000_000_000_000 + number * 1_000_000),
        "endTimeUnixNano": str(1_700_000_003_000_000_000 - number * 1_000_000),
        "attributes": [
            {"key": key.replace("__", "."), "value": any_value(value)} for key, value in attributes.items()
        ],
        "status": {},
    }


def any_value(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, float):
        return {"doubleValue": value}
    return {"intValue": str(value)}


def request_of(*spans: dict[str, Any]) -> dict[str, Any]:
    service = {"key": "service.name", "value": {"stringValue": "shop-bot"}}
    return {"resourceSpans": [{"resource": {"attributes": [service]}, "scopeSpans": [{"spans": list(spans)}]}]}


def post(client: httpx.Client, *spans: dict[str, Any]) -> dict[str, Any]:
    response = client.post("/v1/traces", json=request_of(*spans))
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def tree_of(trace: Trace) -> list[tuple[int, str, str, str]]:
    """Depth, name, kind and status of the spans, in their order."""
    parents = {span.id: span.parent_id for span in trace.spans}

    def depth(span_id: str) -> int:
        parent = parents[span_id]
        return depth(parent) + 1 if parent in parents else 0

    return [(depth(span.id), span.name, span.kind, span.status) for span in trace.spans]


AGENT = (
    sent("agent", 1, session__id="s-1", user__id="bo", input__value="Where is my order?",
         output__value='{"answer": "On its way."}', output__mime_type="application/json",
         openinference__span__kind="AGENT"),
    sent("search", 2, 1, **{
        "openinference.span.kind": "RETRIEVER", "retrieval.documents.1.document.content": "Second",
        "retrieval.documents.0.document.content": "First", "retrieval.documents.0.document.score": 0.5,
    }),
    sent("chat gpt-4o", 3, 1, **{
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o",
        "gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 100, "gen_ai.request.temperature": 0.5,
        "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": "Where?"}]}]),
        "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": [{"content": "There."}]}]),
    }),
    sent("lookup", 4, 3, **{"traceloop.span.kind": "tool", "traceloop.entity.input": '{"id": 7}'}),
)  # fmt: skip


def test_a_chain_of_another_program_becomes_a_trace(client: httpx.Client, app: ScriptedApp) -> None:
    assert post(client, *AGENT) == {}

    trace = app.stores.traces.get(TRACE)
    assert (trace.purpose, trace.question, trace.answer) == ("external", "Where is my order?", "On its way.")
    assert (trace.conversation_id, trace.user_name, trace.model) == ("s-1", "bo", "gpt-4o")
    assert (trace.input_tokens, trace.output_tokens) == (1000, 100)
    # By the price list: 1,000 tokens at 2.50 and 100 at 10 dollars per million.
    assert trace.cost_usd == pytest.approx(0.0035)
    assert trace.latency_s == pytest.approx(2.998)
    assert tree_of(trace) == [
        (0, "agent", "chain", "ok"), (1, "search", "retriever", "ok"), (1, "chat gpt-4o", "llm", "ok"),
        (2, "lookup", "tool", "ok"),
    ]  # fmt: skip
    root, search, chat, lookup = trace.spans
    assert root.attributes == {"service.name": "shop-bot"}
    assert search.output == {"documents": [{"content": "First", "score": 0.5}, {"content": "Second"}]}
    assert chat.input == {"messages": [{"role": "user", "content": "Where?"}]}
    assert chat.output == {"role": "assistant", "content": "There."}
    assert chat.attributes == {"model_name": "gpt-4o", "provider": "openai", "temperature": 0.5}
    assert lookup.input == {"id": 7}
    assert "Where is my order?" in trace_html(trace)
    with reading(app.stores.engine) as connection:
        assert not connection.execute(ledger.select()).all()
        assert not connection.execute(measures.select()).all()
    assert app.stores.traces.undelivered(9) == ()


def test_every_order_and_division_leads_to_the_same_trace(client: httpx.Client, app: ScriptedApp) -> None:
    post(client, *AGENT)
    whole = app.stores.traces.get(TRACE)
    rng = random.Random(7)
    for _ in range(6):
        app.forget()
        spans = rng.sample(AGENT, len(AGENT))
        begin = rng.randrange(1, len(spans))
        post(client, *spans[:begin])
        for span in spans[begin:]:
            post(client, span)
        assert app.stores.traces.get(TRACE) == whole


def test_a_repeat_changes_nothing(client: httpx.Client, app: ScriptedApp) -> None:
    post(client, *AGENT)
    before = app.stores.traces.get(TRACE)
    assert post(client, *AGENT, AGENT[0]) == {}
    assert app.stores.traces.get(TRACE) == before


def test_errors_have_their_message(client: httpx.Client, app: ScriptedApp) -> None:
    said = {"key": "exception.message", "value": {"stringValue": "no such shop"}}
    kind = {"key": "exception.type", "value": {"stringValue": "ValueError"}}
    step = sent("step", 2, 1) | {
        "status": {"code": 2}, "events": [{"name": "exception", "attributes": [kind, said]}],
    }  # fmt: skip
    post(client, sent("root", 1) | {"status": {"code": "STATUS_CODE_ERROR", "message": "It broke."}}, step)
    trace = app.stores.traces.get(TRACE)
    assert (trace.status, trace.error) == ("error", "It broke.")
    assert (trace.spans[1].status, trace.spans[1].error) == ("error", "ValueError: no such shop")


def test_secrets_are_masked_even_where_the_question_comes_last(client: httpx.Client, app: ScriptedApp) -> None:
    long = f"I was asked about {SECRET}. " + "word " * 200
    post(client, sent("step", 2, 1, input__value=long, **{"db.password": "swordfish-1"}))
    post(client, sent("root", 1, input__value=f"My password: {SECRET}", output__value=f"It is {SECRET}."))
    trace = app.stores.traces.get(TRACE)
    with reading(app.stores.engine) as connection:
        texts = connection.scalars(contents.select().with_only_columns(contents.c.text)).all()
    assert SECRET not in f"{trace} {texts}"
    assert trace.answer == f"It is {MASK}."
    assert trace.spans[1].attributes == {"db.password": MASK}


def test_invalid_ids_are_rejected_and_the_others_stored(client: httpx.Client, app: ScriptedApp) -> None:
    wrong = [
        sent("a", 1, trace="0" * 32), sent("b", 0), sent("c", 3) | {"spanId": "xyz"},
        sent("d", 4) | {"traceId": 5},
    ]  # fmt: skip
    said = post(client, sent("good", 9), *wrong)["partialSuccess"]
    assert said["rejectedSpans"] == "4"
    assert "16 bytes" in said["errorMessage"]
    assert [span.name for span in app.stores.traces.get(TRACE).spans] == ["good"]


def test_a_trace_of_ours_stays_as_it_is(client: httpx.Client, app: ScriptedApp) -> None:
    own = Trace(TRACE, 1.7e9, "ok", "Ours?")
    app.stores.traces.save(own)
    said = post(client, *AGENT[:2], sent("other", 1, trace=OTHER))["partialSuccess"]
    assert said["rejectedSpans"] == "2"
    assert app.stores.traces.get(TRACE).spans == ()
    assert app.stores.traces.get(OTHER).purpose == "external"


def test_spans_that_are_parents_of_each_other_are_all_shown(client: httpx.Client, app: ScriptedApp) -> None:
    post(client, sent("itself", 1, 1, trace=OTHER))
    post(client, sent("one", 1, 2), sent("two", 2, 3), sent("three", 3, 1))
    assert [span.parent_id for span in app.stores.traces.get(OTHER).spans] == [None]
    assert [row[:2] for row in tree_of(app.stores.traces.get(TRACE))] == [(0, "one"), (2, "two"), (1, "three")]


def test_what_ragsmith_sends_comes_back_as_the_same_tree(
    client: httpx.Client, app: ScriptedApp, store: TraceStore, engine: Any
) -> None:
    own = TraceStore(engine, exported=True)
    spans = chain_spans("own-trace", 1.7e9, 2.0, "About 200 tokens [1].")
    trace = Trace(
        "own-trace", 1.7e9, "abstained", "How long?", "About 200 tokens [1].", latency_s=2.0, input_tokens=812,
        output_tokens=64, cached_tokens=512, cost_usd=0.002, model="openai:gpt-4o", conversation_id="c-1",
        user_name="bo", spans=(replace(spans[0], status="abstained"), *spans[1:]),
    )  # fmt: skip
    own.save(trace)
    own.close()
    with collecting() as collector:
        OtlpDelivery(TrackingSettings(otlp_url=collector.url), ExportQueue(engine), store).send()
    response = client.post("/v1/traces", content=collector.body, headers=PROTOBUF)
    assert response.status_code == 200
    assert ExportTraceServiceResponse.FromString(response.content) == ExportTraceServiceResponse()

    (listed,) = app.stores.traces.list(limit=5).traces
    found = app.stores.traces.get(listed.id)
    assert tree_of(found) == tree_of(trace)
    for mine, theirs in zip(trace.spans, found.spans, strict=True):
        for name in (
            "input", "output", "error", "input_tokens", "output_tokens", "cached_tokens", "cost_usd",
            "first_token_s", "position",
        ):  # fmt: skip
            assert getattr(theirs, name) == getattr(mine, name), (mine.name, name)
        assert theirs.started == pytest.approx(mine.started)
        assert theirs.attributes.items() >= mine.attributes.items()
    for name in (
        "status", "answer", "input_tokens", "output_tokens", "cached_tokens", "cost_usd", "conversation_id",
        "user_name",
    ):  # fmt: skip
        assert getattr(found, name) == getattr(trace, name), name


@pytest.mark.parametrize(
    ("content", "headers", "status", "says"),
    [
        (b"{", {"content-type": "application/json; charset=utf-8"}, 400, "not JSON"),
        (b"[]", {"content-type": "application/json"}, 400, "no object"),
        (b'{"resourceSpans": 3}', {"content-type": "application/json"}, 400, "form of OTLP"),
        (b"[" * 100_000, {"content-type": "application/json"}, 400, "not JSON"),
        (b"\xff\xff", PROTOBUF, 400, "not a protobuf message"),
        (b"{}", {"content-type": "text/plain"}, 415, "text/plain"),
        (b"{}", {}, 415, "without Content-Type"),
        (b"", PROTOBUF | {"content-encoding": "br"}, 415, "decompressed from br"),
        (b"plain", PROTOBUF | {"content-encoding": "gzip"}, 400, "is not"),
        (gzip.compress(b"x" * 99, mtime=0)[:-9], PROTOBUF | {"content-encoding": "gzip"}, 400, "truncated"),
        (
            gzip.compress(bytes(50_000_000), mtime=0),
            PROTOBUF | {"content-encoding": "gzip"},
            413,
            "40,000,000 bytes",
        ),
    ],
)
def test_bad_requests_get_one_sentence(
    client: httpx.Client, app: ScriptedApp, content: bytes, headers: dict[str, str], status: int, says: str
) -> None:
    response = client.post("/v1/traces", content=content, headers=headers)
    assert response.status_code == status
    is_protobuf = headers.get("content-type") == "application/x-protobuf"
    message = Status.FromString(response.content).message if is_protobuf else response.json()["message"]
    assert says in message
    assert "Traceback" not in message
    assert app.stores.traces.list(limit=1).total == 0


def test_a_body_that_is_too_large_is_refused_before_it_is_read(client: httpx.Client) -> None:
    response = client.post("/v1/traces", content=b"x" * 20_000_001, headers=PROTOBUF)
    assert response.status_code == 413


def test_gzip_in_members_is_read(client: httpx.Client, app: ScriptedApp) -> None:
    text = json.dumps(request_of(*AGENT)).encode()
    body = gzip.compress(text[:50]) + gzip.compress(text[50:])
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    assert client.post("/v1/traces", content=body, headers=headers).json() == {}
    assert len(app.stores.traces.get(TRACE).spans) == 4


def test_many_empty_members_take_no_time_that_grows_with_their_square(client: httpx.Client) -> None:
    body = gzip.compress(b"") * 60_000 + gzip.compress(b"{}")
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    assert client.post("/v1/traces", content=body, headers=headers).status_code == 200


def test_personal_data_in_spans_of_other_programs_is_masked(tmp_path: Path, app: ScriptedApp) -> None:
    mail, phone = "ida@harbour.example", "467 3395"
    question, answer = f"Call me at {phone} or write to {mail}", f"I call {phone}."
    named = {"user.id": mail, "session.id": mail, "note": mail}
    root = sent(mail, 1, input__value=question, output__value=answer, **named)
    root["status"] = {"code": 2, "message": f"{mail} is away"}
    request = read_request(json.dumps(request_of(root)).encode(), "application/json", "")
    received, _ = received_spans(request, app.stores.prices)
    engine = open_database(open_workspace(tmp_path / "home"))
    try:
        assert ExternalTraces(engine, Masker(("email", "phone"))).add(received).stored == 1
        trace = TraceStore(engine).get(TRACE)
    finally:
        engine.dispose()
    assert trace.question == "Call me at [phone] or write to [email]"
    assert (trace.answer, trace.user_name, trace.error) == ("I call [phone].", "[email]", "[email] is away")
    assert len(trace.conversation_id) == 36
    assert mail not in str(trace)
    for path in (tmp_path / "home").rglob("ragsmith.db*"):
        assert mail.encode() not in path.read_bytes()


def test_while_the_database_refuses_the_program_is_asked_to_repeat(
    client: httpx.Client, app: ScriptedApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rag.errors import DatabaseError

    def refuse(_received: Sequence[Any]) -> None:
        raise DatabaseError("The database is locked.")

    monkeypatch.setattr(app.stores.external_traces, "add", refuse)
    response = client.post("/v1/traces", json=request_of(*AGENT))
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")


keys = st.sampled_from(
    "resourceSpans scopeSpans spans traceId spanId parentSpanId name attributes key value stringValue intValue "
    "arrayValue kvlistValue values startTimeUnixNano events status code resource links kind".split()
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([TRACE, "01" * 8]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys | st.text(max_size=4), inner, max_size=5),
    max_leaves=25,
)
attribute = st.tuples(
    st.sampled_from(
        "input.value input.mime_type output.value llm.input_messages.0.message.role session.id user.id "
        "gen_ai.prompt.0.content gen_ai.input.messages openinference.span.kind ragsmith.status "
        "llm.token_count.prompt llm.cost.total ragsmith.attributes gen_ai.request.model".split()
    )
    | st.text(max_size=8),
    values,
)


@st.composite
def near_requests(draw: st.DrawFn) -> bytes:
    """Requests of the right form with hostile values."""
    spans = [
        sent(draw(st.text(max_size=5)), draw(st.integers(0, 3)), draw(st.integers(0, 3)))
        | {"startTimeUnixNano": draw(st.integers(0, 2**64)), "endTimeUnixNano": draw(st.integers(-1, 2**64 - 1))}
        | {
            "attributes": [
                {"key": key, "value": draw(values) if draw(st.booleans()) else {"stringValue": json.dumps(value)}}
                for key, value in draw(st.lists(attribute, max_size=4))
            ]
        }
        for _ in range(draw(st.integers(1, 3)))
    ]
    return json.dumps(request_of(*spans)).encode()


@given(
    content=st.binary() | values.map(lambda value: json.dumps(value).encode()) | near_requests(),
    kind=st.sampled_from(["application/json", "application/x-protobuf", "", "x/y; z"]),
    encoding=st.sampled_from(["", "gzip", "identity", "br"]),
    packed=st.booleans(),
)
@example(content=b'{"resourceSpans": null}', kind="application/json", encoding="", packed=False)
@example(content=b'{"resourceSpans": [null, 3]}', kind="application/json", encoding="", packed=False)
@example(content=b'{"a": 1' + b"0" * 5_000 + b"}", kind="application/json", encoding="", packed=False)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
def test_whatever_is_sent_the_server_does_not_fail(
    client: httpx.Client, app: ScriptedApp, content: bytes, kind: str, encoding: str, packed: bool
) -> None:
    body = gzip.compress(content, mtime=0) if packed else content
    response = client.post(
        "/v1/traces", content=body, headers={"content-type": kind, "content-encoding": encoding}
    )
    assert response.status_code in (200, 400, 413, 415)
    if response.status_code == 200 and TRACE in content.decode("utf-8", "replace"):
        # What was stored can be shown.
        for trace in app.stores.traces.list(limit=3).traces:
            assert trace_html(app.stores.traces.get(trace.id))


def test_nothing_of_a_refused_request_is_stored(client: httpx.Client, app: ScriptedApp) -> None:
    broken = request_of(*AGENT)
    broken["resourceSpans"].append({"scopeSpans": [{"spans": [{"name": 5}]}]})
    assert client.post("/v1/traces", json=broken).status_code == 400
    truncated = ExportTraceServiceRequest()
    assert (
        client.post("/v1/traces", content=truncated.SerializeToString() + b"\x0a", headers=PROTOBUF).status_code
        == 400
    )
    with reading(app.stores.engine) as connection:
        assert not connection.execute(traces.select()).all()
