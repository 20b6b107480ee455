"""A collector of OpenTelemetry on the loopback, which decodes what it receives."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class LoopbackCollector(ThreadingHTTPServer):
    """Keeps the decoded requests, and the headers and bytes of the last one.

    Attributes:
        status: What it answers with; anything but 200 takes nothing.
        poison: The name of a span for which it answers with 400; empty for none.
        release: Cleared, it answers nothing until it is set.
    """

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.requests: list[ExportTraceServiceRequest] = []
        self.attempts = 0
        self.body = b""
        self.path = ""
        self.headers: dict[str, str] = {}
        self.status = 200
        self.poison = ""
        self.content_type = "application/x-protobuf"
        self.release = threading.Event()
        self.release.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def spans(self) -> list[Span]:
        """All spans, in the order of their arrival."""
        return [
            span
            for request in list(self.requests)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def roots(self) -> list[str]:
        """The stored ids of the traces whose roots have arrived."""
        return [attributes(span)["ragsmith.trace_id"] for span in self.spans if not span.parent_span_id]

    def take(self, request: ExportTraceServiceRequest) -> int:
        """Keep a request, and return the status of the answer."""
        names = {span.name for one in request.resource_spans for scope in one.scope_spans for span in scope.spans}
        if self.poison in names:
            return 400
        if self.status == 200:
            self.requests.append(request)
        return self.status


class _Handler(BaseHTTPRequestHandler):
    server: LoopbackCollector

    def do_POST(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers["content-length"]))
        server.attempts += 1
        server.release.wait(60)
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        server.body, server.path = body, self.path
        server.headers = {name.lower(): value for name, value in self.headers.items()}
        self.send_response(server.take(ExportTraceServiceRequest.FromString(body)))
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_header("content-type", server.content_type)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_arguments: Any) -> None:
        pass


def attributes(span: Span) -> dict[str, Any]:
    """The attributes of a span, whose values are no lists here."""
    return {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes}


def value_of(span: Span, name: str) -> Any:
    """The input or output of a span."""
    found = attributes(span)
    if f"{name}.value" not in found:
        return None
    text = found[f"{name}.value"]
    return json.loads(text) if found[f"{name}.mime_type"] == "application/json" else text


@contextmanager
def collecting(port: int = 0) -> Iterator[LoopbackCollector]:
    """A collector that listens."""
    server = LoopbackCollector(port)
    # It asks that often whether it has to end.
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        server.shutdown()
        thread.join()
        server.server_close()
