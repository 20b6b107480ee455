"""Conversion of spans of other programs into ours, by the names that instrumentations give to their attributes.

These are the conventions of OpenTelemetry for generative AI, OpenInference, OpenLLMetry, Langfuse, LangSmith, and
what ragsmith itself sends. Every value is untrusted: secrets are masked, and texts truncated.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, get_args

from rag.redaction import JSON, MASK, is_secret_key, secrets_in
from rag.tracing.cost import PriceList, token_count
from rag.tracing.external_texts import messages_in, question_in
from rag.tracing.otlp_attributes import SpanAttributes, plain_value
from rag.tracing.span_json import as_json, kept_text
from rag.tracing.trace_types import Span, Status
from rag.types import Usage

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

_OWN_KINDS = ("chain", "llm", "retriever", "tool", "embedding", "prompt", "parser")
_KINDS: Mapping[str, str] = {
    **{kind: kind for kind in _OWN_KINDS},
    **dict.fromkeys(
        ("chat_model", "chat", "text_completion", "completion", "generate_content", "generation"), "llm"
    ),
    **dict.fromkeys(
        ("agent", "workflow", "task", "reranker", "rerank", "guardrail", "evaluator", "span"), "chain"
    ),
    **dict.fromkeys(("invoke_agent", "create_agent", "invoke_workflow"), "chain"),
    "retrieval": "retriever",
    "execute_tool": "tool",
    "embeddings": "embedding",
}
_KIND_NAMES = (
    *("ragsmith.kind", "openinference.span.kind", "gen_ai.operation.name", "traceloop.span.kind"),
    *("langsmith.span.kind", "langfuse.observation.type", "llm.request.type"),
)
_INPUTS = (
    *("gen_ai.input.messages", "gen_ai.tool.call.arguments", "gen_ai.retrieval.query.text"),
    *("traceloop.entity.input", "langfuse.observation.input", "gen_ai.prompt"),
)
_OUTPUTS = (
    *("gen_ai.output.messages", "gen_ai.tool.call.result", "gen_ai.retrieval.documents"),
    *("traceloop.entity.output", "langfuse.observation.output", "gen_ai.completion"),
)
_MODELS = ("gen_ai.request.model", "llm.model_name", "gen_ai.response.model", "embedding.model_name")
_PROVIDERS = ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system")
_SESSIONS = (
    *("session.id", "gen_ai.conversation.id", "langfuse.session.id"),
    "traceloop.association.properties.session_id",
)
_USERS = ("user.id", "enduser.id", "langfuse.user.id", "traceloop.association.properties.user_id")
_COSTS = ("ragsmith.cost_usd", "llm.cost.total", "gen_ai.usage.cost")
# What is said elsewhere in the span, or of no use beside it.
_UNUSED = (
    *("ragsmith.span_id", "ragsmith.trace_id", "llm.token_count.total", "gen_ai.usage.total_tokens"),
    *("llm.usage.total_tokens", "input.mime_type", "output.mime_type"),
)
_ERROR_CODE = 2
LONGEST_ID = 36
MAX_ASKED = 100_000
"""Characters of a question that are searched for secrets."""
# The year 2100: later ones are mistakes, and most calendars end somewhere.
_LATEST = 4_102_444_800.0


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """A span of another program.

    Attributes:
        trace_id: The id of its trace, 32 hexadecimal digits.
        span: The span with masked secrets; its position is always 0.
        session, user, model: What it says of its trace; empty if nothing.
        secrets: The secrets in what was asked, which other spans may repeat.
    """

    trace_id: str
    span: Span
    session: str = ""
    user: str = ""
    model: str = ""
    secrets: frozenset[str] = field(default=frozenset(), repr=False)


def received_spans(request: ExportTraceServiceRequest, prices: PriceList) -> tuple[list[ReceivedSpan], int]:
    """Convert the spans of a request, and count those whose ids are invalid.

    Args:
        prices: What the calls of a model cost whose program does not say it.
    """
    found: list[ReceivedSpan] = []
    invalid = 0
    for resource in request.resource_spans:
        about = {
            one.key: plain_value(one.value) for one in resource.resource.attributes if one.key in ("service.name",)
        }
        for scope in resource.scope_spans:
            for sent in scope.spans:
                if _is_id(sent.trace_id, 16) and _is_id(sent.span_id, 8):
                    found.append(_received(sent, about, prices))
                else:
                    invalid += 1
    return found, invalid


def _is_id(value: bytes, size: int) -> bool:
    return len(value) == size and any(value)


def _received(sent: OtlpSpan, about: Mapping[str, object], prices: PriceList) -> ReceivedSpan:
    trace_id = sent.trace_id.hex()
    parent = sent.parent_span_id if _is_id(sent.parent_span_id, 8) and sent.parent_span_id != sent.span_id else b""
    read = SpanAttributes(sent.attributes)
    kind = _kind(read)
    started = _seconds(sent.start_time_unix_nano) or _seconds(sent.end_time_unix_nano) or time.time()
    ended = _seconds(sent.end_time_unix_nano)
    error = _error(sent)
    model = read.text(*_MODELS)
    usage = _usage(read)
    cost = read.number(*_COSTS)
    if cost is None and kind == "llm":
        cost = prices.tokens_usd(model, usage)
    session, user = read.text(*_SESSIONS), read.text(*_USERS)
    first_token = read.number("gen_ai.response.time_to_first_chunk")
    saved = read.number("ragsmith.saved_usd")
    status = _status(read, sent)
    found = _Found(read, kind)
    span = Span(
        id=span_id_of(trace_id, sent.span_id),
        parent_id=span_id_of(trace_id, parent) if parent else None,
        position=0,
        name=kept_text(sent.name, 200) or "span",
        kind=kind,
        status=status,
        started=started,
        ended=None if ended is None else max(ended, started),
        input=as_json(found.input),
        output=as_json(found.output),
        error=kept_text(error) if status in ("error", "filtered") else "",
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cost_usd=cost,
        attributes=found.attributes(model, {} if parent else about),
        first_token_s=first_token,
        cached_tokens=usage.cached_tokens or None,
        saved_usd=saved,
    )
    secrets = secrets_in(question_in(found.input)[:MAX_ASKED])
    return ReceivedSpan(trace_id, span, short_id(session), kept_text(user, 200), kept_text(model, 200), secrets)


def span_id_of(trace_id: str, span_id: bytes) -> str:
    """Return the id under which a span is stored; ids of spans are unique only within a trace."""
    return sha256(trace_id.encode() + span_id).hexdigest()[:32]


def _is_secret(name: str, value: object) -> bool:
    return isinstance(value, str) and bool(value) and is_secret_key(name.rpartition(".")[2])


def short_id(text: str) -> str:
    """Return an id of a conversation; a long one is replaced by its hash, because the column is short."""
    clean = kept_text(text)
    return clean if len(clean) <= LONGEST_ID else hashed_id(clean)


def hashed_id(text: str) -> str:
    """Return an id in place of one that cannot be stored; equal ones stay equal."""
    return sha256(text.encode()).hexdigest()[:LONGEST_ID]


def _kind(read: SpanAttributes) -> str:
    named = [read.text(name) for name in _KIND_NAMES]
    known = (_KINDS[name.lower()] for name in named if name.lower() in _KINDS)
    is_model = read.has(*_MODELS) and (read.has(*_USAGES) or read.has("gen_ai.request.temperature"))
    return next(known, "llm" if is_model else "chain")


_INPUT_TOKENS = ("gen_ai.usage.input_tokens", "llm.token_count.prompt", "gen_ai.usage.prompt_tokens")
_OUTPUT_TOKENS = ("gen_ai.usage.output_tokens", "llm.token_count.completion", "gen_ai.usage.completion_tokens")
_CACHED_TOKENS = ("gen_ai.usage.cache_read.input_tokens", "llm.token_count.prompt_details.cache_read")
_USAGES = (*_INPUT_TOKENS, *_OUTPUT_TOKENS)


def _usage(read: SpanAttributes) -> Usage:
    counts = [read.take(*names) for names in (_INPUT_TOKENS, _OUTPUT_TOKENS, _CACHED_TOKENS)]
    read_in, written, cached = (token_count(count) for count in counts)
    return Usage(read_in, written, cached or 0)


def _status(read: SpanAttributes, sent: OtlpSpan) -> Status:
    own = read.text("ragsmith.status")
    for status in get_args(Status):
        if status == own and status != "running":
            return status  # type: ignore[no-any-return]
    return "error" if sent.status.code == _ERROR_CODE else "ok"


def _error(sent: OtlpSpan) -> str:
    """Return type and message of the error; empty without one."""
    if sent.status.message:
        return sent.status.message
    for event in sent.events:
        if event.name == "exception":
            said = {one.key: str(plain_value(one.value)) for one in event.attributes}
            return ": ".join(filter(None, (said.get("exception.type"), said.get("exception.message"))))
    return "The program gives no reason." if sent.status.code == _ERROR_CODE else ""


class _Found:
    """Input, output and other attributes of a span."""

    def __init__(self, read: SpanAttributes, kind: str) -> None:
        asked = read.listed("llm.input_messages", "message") or read.listed("gen_ai.prompt", "")
        said = read.listed("llm.output_messages", "message") or read.listed("gen_ai.completion", "")
        documents = read.listed("retrieval.documents", "document")
        read.drop("embedding.embeddings.")
        given, returned = read.value("input"), read.value("output")
        more_given, more_returned = read.parsed(*_INPUTS), read.parsed(*_OUTPUTS)
        self._own = read.parsed("ragsmith.attributes")
        self._read = read
        self.input = more_given if given is None else given
        self.output = more_returned if returned is None else returned
        if kind == "llm":
            asked = asked or messages_in(more_given)
            said = said or messages_in(more_returned)
            # Messages are better to read than the arguments of a call.
            if asked and not (isinstance(given, dict) and "messages" in given):
                self.input = {"messages": asked}
            if said and not (isinstance(returned, dict) and "content" in returned):
                self.output = said[0] if len(said) == 1 else {"messages": said}
        if self.output is None and documents:
            self.output = {"documents": documents}

    def attributes(self, model: str, about: Mapping[str, object]) -> dict[str, JSON]:
        """Return what is left, with names that we use, too."""
        read = self._read
        named = {
            "model_name": model or None,
            "provider": read.text(*_PROVIDERS) or None,
            "temperature": read.take("gen_ai.request.temperature"),
            "max_tokens": read.take("gen_ai.request.max_tokens"),
        }
        own = self._own if isinstance(self._own, dict) else {}
        known = {name: value for name, value in named.items() if value is not None}
        read.take(*_UNUSED)
        # Dots separate the words of their names.
        rest = {name: MASK if _is_secret(name, value) else value for name, value in read.rest().items()}
        shown = as_json({**about, **rest, **known, **own})
        return shown if isinstance(shown, dict) else {}


def _seconds(nanoseconds: int) -> float | None:
    """Return a time in seconds; None if it is unknown or no date."""
    seconds = nanoseconds / 1e9
    return seconds if 0 < seconds < _LATEST else None
