"""Finished traces reach a collector of OpenTelemetry at least once, with the same ids, whatever happens to it."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from loopback_collector import LoopbackCollector, attributes, collecting, value_of
from stored_traces import chain_spans
from tracked import ended, start_scenario, trace_of, wait_for

from rag.errors import CollectorError, SettingsError
from rag.redaction import MASK
from rag.settings import Settings, TrackingSettings, load_settings
from rag.tracing.export_queue import ExportQueue
from rag.tracing.otlp_delivery import OtlpDelivery, endpoint_of, shown_url
from rag.tracing.otlp_spans import MAX_VALUE, span_number, spans_of, trace_number
from rag.tracing.otlp_tracker import Backoff, OtlpTracker
from rag.tracing.trace_archive import import_traces, write_traces
from rag.tracing.trace_retention import Retention, prune
from rag.tracing.trace_store import Span, Trace, TraceStore
from rag.tracing.trace_types import Feedback
from rag.workspace import Workspace
from ui.doctor.setup_checks import check_otlp

CODES = {"ok": 1, "abstained": 1, "error": 2, "filtered": 2, "cancelled": 0, "interrupted": 0}
KEY = "a-key-that-nobody-sees-1"


@pytest.fixture
def collector() -> Iterator[LoopbackCollector]:
    with collecting() as server:
        yield server


@pytest.fixture
def store(engine: Any) -> Iterator[TraceStore]:
    opened = TraceStore(engine, exported=True)
    yield opened
    opened.close()


def settings_for(url: str, **headers: str) -> TrackingSettings:
    return TrackingSettings.model_validate({"otlp_url": url, "otlp_headers": headers})


def delivery_to(url: str, store: TraceStore, engine: Any, **headers: str) -> OtlpDelivery:
    # The exporter repeats a request after one second, and after two more.
    return OtlpDelivery(settings_for(url, **headers), ExportQueue(engine), store, timeout_s=0.9)


def answered(trace_id: str = "0190a0a0-1111-7222-8333-444455556666", **changes: Any) -> Trace:
    """A trace with the steps of a real answer."""
    spans = chain_spans(trace_id, 1.7e9, 2.0, "About 200 tokens [1].")
    trace = Trace(
        trace_id, 1.7e9, "ok", "How long is a passage?", "About 200 tokens [1].", latency_s=2.0, input_tokens=812,
        output_tokens=64, cached_tokens=512, cost_usd=0.002, corpus="handbook", model="openai:gpt-4o",
        prompt="answer@2", release="d4e5f6", conversation_id="conversation-1", user_name="bo", spans=spans,
    )  # fmt: skip
    return replace(trace, **changes)


def test_every_field_of_a_trace_arrives(collector: LoopbackCollector, store: TraceStore, engine: Any) -> None:
    store.save(answered())
    failed = Span(
        "late-tool", None, 7, "lookup", "tool", "error", 1.7e9, None, "x", None, "KeyError: no such tool",
        attributes={"retries": 2},
    )  # fmt: skip
    store.save(answered("another", status="error", error="KeyError: no such tool", spans=(
        replace(answered().spans[0], id="another-root", output=None), replace(failed, parent_id="another-root"),
    )))  # fmt: skip

    assert delivery_to(collector.url, store, engine).send() == 2

    assert collector.path == "/v1/traces"
    found = {span.span_id: span for span in collector.spans}
    for trace in (store.get(answered().id), store.get("another")):
        root = trace.spans[0]
        for span in trace.spans:
            sent = found.pop(span_number(trace.id, span.id).to_bytes(8, "big"))
            has = attributes(sent)
            assert sent.trace_id == trace_number(trace.id).to_bytes(16, "big")
            parent = span.parent_id and span_number(trace.id, span.parent_id).to_bytes(8, "big")
            assert sent.parent_span_id == (parent or b"")
            assert (sent.name, has["ragsmith.kind"], has["ragsmith.span_id"]) == (span.name, span.kind, span.id)
            assert sent.start_time_unix_nano == round(span.started * 1e9)
            assert sent.end_time_unix_nano == round((span.ended or trace.started + 2.0) * 1e9)
            status = trace.status if span is root else span.status
            assert (has["ragsmith.status"], sent.status.code) == (status, CODES[status])
            assert sent.status.message == span.error or span is root
            assert value_of(sent, "input") == span.input
            assert value_of(sent, "output") == span.output
            assert has.get("ragsmith.cost_usd") == span.cost_usd
            assert json.loads(has.get("ragsmith.attributes", "{}")) == span.attributes
            assert (has["session.id"], has["user.id"]) == (trace.conversation_id, trace.user_name)
            assert has.get("llm.token_count.prompt") == has.get("gen_ai.usage.input_tokens") == span.input_tokens
            assert has.get("gen_ai.usage.output_tokens") == span.output_tokens
            assert has.get("llm.token_count.prompt_details.cache_read") == span.cached_tokens
    assert not found


def test_collectors_find_their_conventions(collector: LoopbackCollector, store: TraceStore, engine: Any) -> None:
    store.save(answered())
    delivery_to(collector.url, store, engine).send()
    resource = collector.requests[0].resource_spans[0].resource
    named = {one.key: one.value.string_value for one in resource.attributes}
    assert named["service.name"] == "ragsmith"
    assert named["service.version"]
    steps = {span.name: attributes(span) for span in collector.spans}
    kinds = {name: has["openinference.span.kind"] for name, has in steps.items()}
    assert (kinds["answer"], kinds["retrieve"], kinds["ChatOpenAI"]) == ("CHAIN", "RETRIEVER", "LLM")
    metadata = json.loads(steps["answer"]["metadata"])
    assert (metadata["release"], metadata["prompt"], metadata["purpose"]) == ("d4e5f6", "answer@2", "chat")
    document = "retrieval.documents.0.document"
    assert steps["retrieve"][f"{document}.id"] == "1"
    assert steps["retrieve"][f"{document}.score"] == pytest.approx(0.031)
    assert "200 tokens" in steps["retrieve"][f"{document}.content"]
    model = steps["ChatOpenAI"]
    assert (model["gen_ai.operation.name"], model["gen_ai.request.model"]) == ("chat", "gpt-4o")
    assert (model["gen_ai.provider.name"], model["llm.cost.total"]) == ("openai", 0.002)
    assert model["llm.input_messages.1.message.role"] == "user"
    assert model["llm.output_messages.0.message.content"] == "About 200 tokens [1]."


def test_an_interrupted_trace_has_a_root_and_a_long_text_is_marked() -> None:
    step = Span("step", "lost", 1, "retrieve", "chain", "ok", 5.0, 6.0, {"text": "x" * (MAX_VALUE + 9)})
    root, sent = spans_of(Trace("lost", 5.0, "interrupted", "What?", spans=(step,)))
    assert root.parent is None
    assert sent.parent == root.context
    assert root.attributes is not None
    assert root.attributes["input.value"] == "What?"
    assert sent.attributes is not None
    value = str(sent.attributes["input.value"])
    assert len(value) <= MAX_VALUE
    assert "characters left out" in json.loads(value)["text"]


def test_a_collector_that_is_away_the_whole_time_gets_everything_later(store: TraceStore, engine: Any) -> None:
    with collecting() as away:
        port = away.server_port
    delivery = delivery_to(f"http://127.0.0.1:{port}", store, engine)
    tracker = OtlpTracker(delivery, "there", Backoff(0.05, 0.1))
    tracker.start()
    for number in range(45):
        store.save(trace_of(number))
        tracker.wake()
    wait_for(lambda: tracker.status.mode == "failed")
    assert f"127.0.0.1:{port}/v1/traces does not take traces: there is no connection" in tracker.status.detail
    assert delivery.pending() == 45
    with collecting(port) as back:
        wait_for(lambda: tracker.status.mode == "online")
        assert sorted(back.roots) == [trace_of(number).id for number in range(45)]
    assert delivery.pending() == 0
    tracker.close(5)


def test_progress_counts_what_arrived(collector: LoopbackCollector, store: TraceStore, engine: Any) -> None:
    for number in range(45):
        store.save(trace_of(number))
    seen: list[int] = []
    assert delivery_to(collector.url, store, engine).send(seen.append) == 45
    assert seen == [20, 40, 45]


KILLED = """
import os
from rag.tracing.export_queue import ExportQueue
from rag.tracing.otlp_delivery import OtlpDelivery
store = TraceStore(store._engine, exported=True)
store.save(trace_of(1))
store.begin(Trace("trace-000002", 1.8e9, "running", "cut off"))
store.flush()
class Killed(ExportQueue):
    def remove(self, ids):
        os._exit(9)
settings = TrackingSettings(otlp_url=sys.argv[2])
OtlpDelivery(settings, Killed(store._engine), store).send()
"""


@pytest.mark.slow
def test_a_process_killed_after_sending_leads_to_a_repeat_with_the_same_ids(
    collector: LoopbackCollector, workspace: Workspace, store: TraceStore, engine: Any
) -> None:
    killed = start_scenario(KILLED, str(workspace.root), collector.url)
    assert ended(killed)[0] == 9
    first = collector.spans
    assert collector.roots == ["trace-000001"]
    store.recover()
    assert delivery_to(collector.url, store, engine).send() == 2
    again = collector.spans[len(first) :]
    assert collector.roots == ["trace-000001", "trace-000001", "trace-000002"]
    assert [(span.trace_id, span.span_id) for span in again[: len(first)]] == [
        (span.trace_id, span.span_id) for span in first
    ]
    assert ExportQueue(engine).count() == 0


def test_only_traces_of_a_process_with_a_collector_are_sent(
    collector: LoopbackCollector, store: TraceStore, engine: Any, workspace: Workspace
) -> None:
    before = TraceStore(engine)
    before.save(trace_of(1))
    store.save(trace_of(2, purpose="external"))
    store.save(trace_of(3, purpose="evaluation"))
    file = workspace.root / "other.jsonl"
    write_traces(file, [trace_of(4, process="elsewhere:1:2", feedback=Feedback("up", "", 1.0))])
    import_traces(file, store)
    store.save(trace_of(5))
    store.save(trace_of(5))
    store.save(trace_of(6, started=1.0))
    prune(engine, Retention(days=365 * 30))
    delivery_to(collector.url, store, engine).send()
    assert sorted(collector.roots) == [trace_of(3).id, trace_of(5).id]


def test_a_trace_that_the_collector_refuses_does_not_hold_up_the_others(
    collector: LoopbackCollector, store: TraceStore, engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    collector.poison = "poison"
    bad = trace_of(1)
    store.save(replace(bad, spans=(replace(bad.spans[0], name="poison"),)))
    delivery = delivery_to(collector.url, store, engine)
    # Alone, it may as well be the wrong server.
    with pytest.raises(CollectorError, match="answers with 400"):
        delivery.send()
    assert delivery.pending() == 1
    store.save(trace_of(2))
    assert delivery.send() == 1
    assert (collector.roots, delivery.pending()) == ([trace_of(2).id], 0)
    assert f"The trace {bad.id} is not sent again" in caplog.text


@pytest.mark.parametrize(
    ("status", "content_type", "reason"),
    [
        (401, "", "it needs a key"),
        (404, "", "no such address"),
        (302, "", "refers to another address"),
        (200, "text/html; charset=utf-8", "a web page is there"),
    ],
)
def test_an_answer_that_takes_nothing_loses_nothing(
    collector: LoopbackCollector, store: TraceStore, engine: Any, status: int, content_type: str, reason: str
) -> None:
    collector.status, collector.content_type = status, content_type or collector.content_type
    store.save(trace_of(1))
    delivery = delivery_to(collector.url.replace("//", "//bo:pass-word-1@"), store, engine, authorization=KEY)
    with pytest.raises(CollectorError, match=reason) as raised:
        delivery.send()
    assert delivery.pending() == 1
    assert MASK in raised.value.message
    assert "pass-word-1" not in str(raised.value)
    assert KEY not in str(raised.value)


def test_the_key_is_sent_and_never_shown(
    collector: LoopbackCollector, store: TraceStore, engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store.save(trace_of(1))
    caplog.set_level(logging.DEBUG)
    delivery_to(collector.url, store, engine, **{"x-api-key": KEY}).send()
    assert collector.headers["x-api-key"] == KEY
    assert collector.headers["content-encoding"] == "gzip"
    settings = settings_for(collector.url, **{"x-api-key": KEY})
    assert KEY not in f"{settings!r} {settings.model_dump_json()} {caplog.text}"


def test_closing_waits_for_a_collector_only_while_it_works(
    collector: LoopbackCollector, store: TraceStore, engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    collector.release.clear()
    tracker = OtlpTracker(delivery_to(collector.url, store, engine), "there")
    tracker.start()
    store.save(trace_of(1))
    tracker.wake()
    wait_for(lambda: collector.attempts)
    store.save(trace_of(2))
    threading.Timer(0.1, collector.release.set).start()
    tracker.close(30)
    assert sorted(collector.roots) == [trace_of(1).id, trace_of(2).id]
    collector.status = 503
    store.save(trace_of(3))
    failing = OtlpTracker(delivery_to(collector.url, store, engine), "there")
    failing.start()
    failing.close(30)
    assert failing.status.mode == "failed"
    assert ExportQueue(engine).count() == 1
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_the_address_may_be_short_or_whole() -> None:
    for url, whole in (
        ("http://localhost:4318", "http://localhost:4318/v1/traces"),
        ("https://host/api/otel/", "https://host/api/otel/v1/traces"),
        ("https://host/otel/v1/traces?a=b", "https://host/otel/v1/traces?a=b"),
    ):
        assert endpoint_of(url) == whole
    assert "word" not in shown_url(settings_for("https://bo:pass-word@host"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"otlp_url": "localhost:4318"},
        {"otlp_url": "ftp://host"},
        {"otlp_url": "http://bo:pa/ss-word-1@host"},
        {"otlp_headers": {"a b": "c"}},
        {"otlp_headers": {"authorization": f"{KEY}\nx: y"}},
    ],
)
def test_what_cannot_be_sent_is_refused_without_repeating_it(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"tracking\.otlp_") as raised:
        load_settings({"tracking": wrong})
    assert KEY not in str(raised.value)
    assert "ss-word-1" not in str(raised.value)


def test_doctor_asks_the_collector(collector: LoopbackCollector) -> None:
    assert (check_otlp(Settings()).ok, check_otlp(Settings()).detail) == (True, "off")
    settings = Settings(tracking={"otlp_url": collector.url})
    assert check_otlp(settings).ok is True
    collector.status = 401
    check = check_otlp(settings)
    assert (check.ok, check.fix) == (None, "Set tracking.otlp_headers.")
    assert not collector.spans


@pytest.mark.slow
def test_without_a_collector_the_exporter_is_not_imported(workspace: Workspace) -> None:
    body = """
    from rag.settings import Settings
    from ui.app.app import open_app
    app = open_app(Settings(home=sys.argv[1], tracking={"wandb": "off"}))
    app.tracking.on_traced()
    print(app.tracking.exporter.status.mode, app.tracking.otlp_delivery, "opentelemetry.sdk.trace" in sys.modules)
    app.close()
    """
    assert ended(start_scenario(body, str(workspace.root))) == (0, "off None False\n", "")
