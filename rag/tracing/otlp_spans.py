"""Conversion of traces into spans of OpenTelemetry, for any collector.

The attributes follow the semantic conventions for generative AI (``gen_ai.*``) and OpenInference, which Phoenix,
Langfuse and Weave read; what neither has a name for begins with ``ragsmith.``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from rag.redaction import JSON
from rag.tracing.code_version import code_version
from rag.tracing.trace_types import Span, Trace, rooted_spans
from rag.tracing.wandb_traces import clipped

SERVICE = "ragsmith"
MAX_VALUE = 400_000
"""Characters of an input or output; collectors refuse requests of many megabytes."""
# Characters of the strings in a value that is longer, until it is not.
_STRINGS = (40_000, 4_000, 400, 40)
_MESSAGES = 200
_DOCUMENTS = 200

_KINDS = {"llm": "LLM", "chat_model": "LLM", "retriever": "RETRIEVER", "tool": "TOOL", "embedding": "EMBEDDING"}
_OPERATIONS = {"LLM": "chat", "RETRIEVER": "retrieval", "TOOL": "execute_tool", "EMBEDDING": "embeddings"}
_CODES = {
    "ok": StatusCode.OK,
    "abstained": StatusCode.OK,
    "error": StatusCode.ERROR,
    "filtered": StatusCode.ERROR,
}
_ROLES = {"human": "user", "ai": "assistant"}

Attribute = str | int | float | bool


def spans_of(trace: Trace, project: str = SERVICE) -> list[ReadableSpan]:
    """Return the spans of a finished trace, the root first.

    Their ids are derived from the stored ones, so that a repeat has the same.

    Args:
        project: The project in collectors that know projects.
    """
    version = trace.code or code_version()
    resource = Resource(
        {"service.name": SERVICE, "service.version": version, "openinference.project.name": project}
    )
    scope = InstrumentationScope(SERVICE, version)
    spans = rooted_spans(trace)
    known, root = {span.id for span in spans}, spans[0].id
    end = trace.started + (trace.latency_s or 0.0)
    converted: list[ReadableSpan] = []
    for span in spans:
        parent = span.parent_id if span.parent_id in known else root
        is_root = span.id == root
        error = (trace.error or span.error) if is_root else span.error
        ended = max(end if span.ended is None else span.ended, span.started)
        converted.append(
            ReadableSpan(
                name=span.name,
                context=_context(trace.id, span.id),
                parent=None if is_root or parent is None else _context(trace.id, parent),
                resource=resource,
                attributes=dict(_attributes(trace, span, is_root=is_root)),
                events=list(_exceptions(error, ended)),
                kind=SpanKind.CLIENT if span.kind == "llm" else SpanKind.INTERNAL,
                status=_status(trace.status if is_root else span.status, error),
                start_time=nanoseconds(span.started),
                end_time=nanoseconds(ended),
                instrumentation_scope=scope,
            )
        )
    return converted


def trace_number(trace_id: str) -> int:
    """Return the 128 bits by which a collector knows a trace."""
    return _number(f"trace {trace_id}", 16)


def span_number(trace_id: str, span_id: str) -> int:
    """Return the 64 bits by which a collector knows a span."""
    return _number(f"span {trace_id} {span_id}", 8)


def nanoseconds(seconds: float) -> int:
    """Return a time in nanoseconds since the epoch."""
    return max(round(seconds * 1e9), 0)


def _number(text: str, size: int) -> int:
    # Zero means that there is no id.
    return int.from_bytes(sha256(text.encode("utf-8", "replace")).digest()[:size], "big") or 1


def _context(trace_id: str, span_id: str) -> SpanContext:
    sampled = TraceFlags(TraceFlags.SAMPLED)
    return SpanContext(
        trace_number(trace_id), span_number(trace_id, span_id), is_remote=False, trace_flags=sampled
    )


def _status(status: str, error: str) -> Status:
    code = _CODES.get(status, StatusCode.UNSET)
    return Status(code, (error or status) if code is StatusCode.ERROR else None)


def _exceptions(error: str, at: float) -> Iterator[Event]:
    if error:
        kind, colon, message = error.partition(": ")
        is_typed = bool(colon) and kind.isidentifier()
        yield Event(
            "exception",
            {"exception.type": kind if is_typed else "Error", "exception.message": message if is_typed else error},
            nanoseconds(at),
        )


def _attributes(trace: Trace, span: Span, *, is_root: bool) -> Iterator[tuple[str, Attribute]]:
    kind = "RETRIEVER" if span.name == "retrieve" else _KINDS.get(span.kind, "CHAIN")
    yield "openinference.span.kind", kind
    if operation := "invoke_workflow" if is_root else _OPERATIONS.get(kind):
        yield "gen_ai.operation.name", operation
    yield from _value("input", span.input)
    yield from _value("output", span.output)
    if trace.conversation_id:
        yield "session.id", trace.conversation_id
        yield "gen_ai.conversation.id", trace.conversation_id
    if trace.user_name:
        yield "user.id", trace.user_name
    yield "ragsmith.span_id", span.id
    yield "ragsmith.kind", span.kind
    yield "ragsmith.status", trace.status if is_root else span.status
    for name in ("cost_usd", "saved_usd"):
        if (dollars := getattr(span, name)) is not None:
            yield f"ragsmith.{name}", dollars
    if span.attributes:
        yield "ragsmith.attributes", json.dumps(dict(span.attributes), ensure_ascii=False)
    if kind == "LLM":
        yield from _model(trace, span)
    if kind == "RETRIEVER":
        yield from _documents(span.output)
    if is_root:
        yield from _about(trace)


def _about(trace: Trace) -> Iterator[tuple[str, Attribute]]:
    """Yield what a collector shows of the whole trace."""
    yield "ragsmith.trace_id", trace.id
    names = ("status", "purpose", "release", "prompt", "model", "corpus", "code", "replay_of")
    known = {name: value for name in names if (value := getattr(trace, name))}
    yield "metadata", json.dumps(known, ensure_ascii=False)


def _value(name: str, value: JSON) -> Iterator[tuple[str, Attribute]]:
    if value is None:
        return
    if isinstance(value, str):
        yield f"{name}.value", str(clipped(value, MAX_VALUE))
        yield f"{name}.mime_type", "text/plain"
        return
    text = json.dumps(value, ensure_ascii=False)
    for limit in _STRINGS:
        if len(text) <= MAX_VALUE:
            break
        text = json.dumps(clipped(value, limit), ensure_ascii=False)
    yield f"{name}.value", str(clipped(text, MAX_VALUE))
    yield f"{name}.mime_type", "application/json"


def _model(trace: Trace, span: Span) -> Iterator[tuple[str, Attribute]]:
    provider, _, name = trace.model.rpartition(":")
    model = str(span.attributes.get("model_name") or name)
    if model:
        yield "gen_ai.request.model", model
        yield "llm.model_name", model
    if provider == "openai":
        yield "gen_ai.provider.name", provider
    for setting in ("temperature", "max_tokens"):
        if isinstance(value := span.attributes.get(setting), int | float):
            yield f"gen_ai.request.{setting}", value
    counts = {
        "gen_ai.usage.input_tokens": span.input_tokens,
        "gen_ai.usage.output_tokens": span.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": span.cached_tokens,
        "llm.token_count.prompt": span.input_tokens,
        "llm.token_count.completion": span.output_tokens,
        "llm.token_count.prompt_details.cache_read": span.cached_tokens,
    }
    yield from ((counted, count) for counted, count in counts.items() if count is not None)
    if span.input_tokens is not None and span.output_tokens is not None:
        yield "llm.token_count.total", span.input_tokens + span.output_tokens
    if span.cost_usd is not None:
        yield "llm.cost.total", span.cost_usd
    if span.first_token_s is not None:
        yield "gen_ai.response.time_to_first_chunk", span.first_token_s
    yield from _messages("llm.input_messages", _listed(span.input, "messages"))
    yield from _messages("llm.output_messages", [span.output])


def _messages(name: str, messages: Sequence[JSON]) -> Iterator[tuple[str, Attribute]]:
    for number, message in enumerate(messages[:_MESSAGES]):
        if isinstance(message, dict) and isinstance(message.get("content"), str):
            role = str(message.get("role", ""))
            yield f"{name}.{number}.message.role", _ROLES.get(role, role)
            yield f"{name}.{number}.message.content", str(clipped(message["content"], MAX_VALUE))


def _documents(output: JSON) -> Iterator[tuple[str, Attribute]]:
    found = _listed(output, "hits") or _listed(output, "documents")
    for number, item in enumerate(found[:_DOCUMENTS]):
        if not isinstance(item, dict):
            continue
        passage = item["passage"] if isinstance(item.get("passage"), dict) else item
        name = f"retrieval.documents.{number}.document"
        content = passage.get("text", passage.get("page_content"))
        if isinstance(content, str):
            yield f"{name}.content", str(clipped(content, MAX_VALUE))
        if passage.get("id") is not None:
            yield f"{name}.id", str(passage["id"])
        if isinstance(score := item.get("score"), int | float):
            yield f"{name}.score", float(score)
        about = {key: passage[key] for key in ("name", "title", "page") if passage.get(key) is not None}
        if isinstance(more := passage.get("metadata"), Mapping):
            about |= more
        if about:
            yield f"{name}.metadata", json.dumps(about, ensure_ascii=False)


def _listed(value: JSON, name: str) -> list[Any]:
    if isinstance(value, dict):
        value = value.get(name)
    return value if isinstance(value, list) else []
