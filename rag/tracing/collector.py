"""A collector of OpenTelemetry: the official exporter, and the reasons of its failures.

This module imports the exporter; import it where spans are sent, not at the top of a module.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import requests
from google.protobuf.message import DecodeError
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

from rag.errors import CollectorError
from rag.redaction import redact, without_password

_REASONS = {
    401: "it needs a key, or another one",
    403: "the key may not write there",
    404: "there is no such address",
    413: "the request is too large for it",
}
_FIXES = {
    401: "Set tracking.otlp_headers.",
    403: "Set tracking.otlp_headers.",
    404: "Set tracking.otlp_url to the address that takes traces.",
}

_log = logging.getLogger(__name__)


class _Session(requests.Session):  # type: ignore[misc]  # requests has no types
    """Keeps the last response and the last error, which the exporter only logs."""

    def __init__(self) -> None:
        super().__init__()
        self.response: requests.Response | None = None
        self.error: Exception | None = None

    def request(self, *arguments: Any, **options: Any) -> requests.Response:
        self.response = self.error = None
        try:
            self.response = super().request(*arguments, **options)
        except Exception as error:
            self.error = error
            raise
        return self.response


class Collector:
    """Sends spans to one address.

    Args:
        url: The address that takes traces.
        headers: Headers of every request.
        timeout_s: Seconds of a request with its repeats.
    """

    def __init__(self, url: str, headers: Mapping[str, str], timeout_s: float) -> None:
        # What goes wrong is in the errors of this class, once.
        logging.getLogger(OTLPSpanExporter.__module__).setLevel(logging.CRITICAL)
        self._shown = without_password(url)
        self._session = _Session()
        self._closed = False
        self._exporter = OTLPSpanExporter(
            endpoint=url,
            headers=dict(headers),
            timeout=timeout_s,
            compression=Compression.Gzip,
            session=self._session,
        )

    @property
    def problem(self) -> str | None:
        """Why the last request had no success; None if it had."""
        session = self._session
        if session.error is not None:
            return _network_problem(session.error)
        return None if session.response is None else _problem(session.response)

    def send(self, spans: Sequence[ReadableSpan]) -> None:
        """Send spans in one request.

        Raises:
            CollectorError: The collector does not answer, or refuses them.
        """
        session = self._session
        session.response = session.error = None
        result = self._exporter.export(spans)
        problem, response = self.problem, session.response
        if self._closed and problem is None and response is None:
            raise CollectorError(f"The collector at {self._shown} did not take traces before the process ended.")
        if result is not SpanExportResult.SUCCESS or problem is not None:
            status = None if response is None else response.status_code
            raise CollectorError(
                f"The collector at {self._shown} does not take traces: {problem or 'they are too large to send'}.",
                fix=_FIXES.get(status or 0, "Start it, or correct tracking.otlp_url; nothing is lost meanwhile."),
                status=status if problem else 413,
            )
        if response is not None and (rejected := _rejected(response)):
            _log.warning("The collector at %s has rejected %s.", self._shown, rejected)

    def close(self) -> None:
        """End the wait of a request that failed."""
        self._closed = True
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


def _problem(response: requests.Response) -> str | None:
    status = response.status_code
    if 200 <= status < 300:
        # Pages for people take any request.
        is_page = response.headers.get("content-type", "").startswith("text/html")
        return "a web page is there, and no collector" if is_page else None
    if 300 <= status < 400:
        return f"it refers to another address ({status})"
    return f"{_REASONS[status]} ({status})" if status in _REASONS else f"it answers with {status}"


def _network_problem(error: Exception) -> str:
    if isinstance(error, requests.Timeout):
        return "it did not answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted"
    if isinstance(error, requests.ConnectionError):
        return "there is no connection"
    # The texts of other errors repeat the headers.
    return f"the request is impossible ({type(error).__name__})"


def _rejected(response: requests.Response) -> str:
    """Return what the collector says it has rejected; empty for nothing."""
    if not response.headers.get("content-type", "").startswith("application/x-protobuf"):
        return ""
    try:
        partial = ExportTraceServiceResponse.FromString(response.content).partial_success
    except DecodeError:
        return ""
    if not partial.rejected_spans:
        return ""
    return f"{partial.rejected_spans} spans: {redact(partial.error_message[:300])}"
