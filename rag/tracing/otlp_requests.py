"""Requests of other programs with spans, in the two formats of OTLP over HTTP.

This module imports protobuf; import it where a request arrives, not at the top of a module.
"""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from collections.abc import Iterator
from gzip import BadGzipFile, GzipFile
from io import BytesIO
from typing import Any

from google.protobuf.json_format import MessageToJson, ParseDict
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from rag.errors import SpansRefused

PROTOBUF = "application/x-protobuf"
JSON_TYPE = "application/json"
LARGEST_REQUEST = 40_000_000
"""Bytes of a request after decompression."""

# Codes of gRPC for a refused request, and for a server that cannot take it now.
_INVALID, _UNAVAILABLE = 3, 14
_IDS = (("traceId", "trace_id"), ("spanId", "span_id"), ("parentSpanId", "parent_span_id"))


def read_request(body: bytes, content_type: str, encoding: str) -> ExportTraceServiceRequest:
    """Decode a request.

    Args:
        content_type, encoding: The headers ``Content-Type`` and ``Content-Encoding``.

    Raises:
        SpansRefused: It is too large, in another format, or malformed.
    """
    kind = media_type(content_type)
    if kind not in (PROTOBUF, JSON_TYPE):
        raise SpansRefused(
            f"Spans cannot be read as {kind[:60] or 'a body without Content-Type'}.",
            fix=f"Send {PROTOBUF} or {JSON_TYPE}.",
            status=415,
        )
    content = _decompressed(body, encoding.strip().lower())
    return _from_json(content) if kind == JSON_TYPE else _from_protobuf(content)


def media_type(content_type: str) -> str:
    """Return the type in a header without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def response_of(rejected: int, reason: str, content_type: str) -> bytes:
    """Return the body of the answer to a request that was read, in its format.

    Args:
        rejected: How many of its spans were not stored; ``reason`` says why.
    """
    answer = ExportTraceServiceResponse()
    if rejected:
        answer.partial_success.rejected_spans = rejected
        answer.partial_success.error_message = reason
    return _encoded(answer, content_type)


def refusal_of(message: str, content_type: str, *, later: bool = False) -> bytes:
    """Return the body of the answer to a request that was not read, in its format if that is known.

    Args:
        later: Whether the same request may succeed later.
    """
    return _encoded(Status(code=_UNAVAILABLE if later else _INVALID, message=message), content_type)


def _encoded(message: Message, content_type: str) -> bytes:
    if media_type(content_type) == PROTOBUF:
        return bytes(message.SerializeToString())
    return str(MessageToJson(message, indent=None)).encode()


def _decompressed(body: bytes, encoding: str) -> bytes:
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        raise SpansRefused(
            f"Spans cannot be decompressed from {encoding[:60]}.", fix="Send gzip, or no compression.", status=415
        )
    try:
        # It also reads a body of several members, in a time that grows with the size and not with its square.
        with GzipFile(fileobj=BytesIO(body)) as file:
            content = file.read(LARGEST_REQUEST + 1)
    except EOFError as error:
        raise SpansRefused("The compressed request is truncated.") from error
    except (BadGzipFile, zlib.error) as error:
        raise SpansRefused("The request says that it is gzip, and is not.") from error
    if len(content) > LARGEST_REQUEST:
        raise SpansRefused(
            f"The request has more than {LARGEST_REQUEST:,} bytes when it is decompressed.",
            fix="Send fewer spans at once.",
            status=413,
        )
    return content


def _from_protobuf(content: bytes) -> ExportTraceServiceRequest:
    try:
        request = ExportTraceServiceRequest()
        request.ParseFromString(content)
    except DecodeError as error:
        raise SpansRefused("The request is not a protobuf message with spans.") from error
    return request


def _from_json(content: bytes) -> ExportTraceServiceRequest:
    try:
        read: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SpansRefused("The request is not JSON.") from error
    if not isinstance(read, dict):
        raise SpansRefused("The request is JSON, but no object with resourceSpans.")
    try:
        for span in _spans_in(read):
            _prepare(span)
        request = ExportTraceServiceRequest()
        ParseDict(read, request, ignore_unknown_fields=True)
    except Exception as error:  # the parser has many types of errors for values of wrong types
        raise SpansRefused("The request is JSON, but its spans do not have the form of OTLP.") from error
    return request


def _spans_in(read: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for resource in _either(read, "resourceSpans", "resource_spans"):
        for scope in _either(resource, "scopeSpans", "scope_spans"):
            yield from _either(scope, "spans", "spans")


def _either(of: Any, *names: str) -> list[Any]:
    found: Any = next((of[name] for name in names if name in of), [])
    return found if isinstance(found, list) else []


def _prepare(span: dict[str, Any]) -> None:
    """Write the ids as the parser expects them: OTLP has hexadecimal digits where protobuf has Base64."""
    # Their ids are of no use here.
    span.pop("links", None)
    for names in _IDS:
        for name in names:
            if span.get(name) is not None:
                span[name] = b64encode(_bytes(str(span[name]))).decode()


def _bytes(digits: str) -> bytes:
    """Return the bytes of an id; none if it is malformed, so that only its span is rejected."""
    try:
        return bytes.fromhex(digits)
    except ValueError:
        return b""
