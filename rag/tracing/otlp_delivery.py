"""Delivery of traces to a collector of OpenTelemetry, at least once and with stable ids.

This module imports the exporter in the methods that send, so that nothing waits for it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from rag.errors import CollectorError, TraceNotFound
from rag.redaction import without_password
from rag.settings import TrackingSettings
from rag.tracing.export_queue import ExportQueue
from rag.tracing.trace_store import Trace, TraceStore

if TYPE_CHECKING:
    from rag.tracing.collector import Collector

PATH = "/v1/traces"
TIMEOUT_S = 10.0
"""Seconds of a request with its repeats."""
BATCH = 20
"""Traces of a request, which is about a megabyte."""

# Answers that say that the collector does not like this very request.
_CONTENT = frozenset({400, 413, 422})

_log = logging.getLogger(__name__)


class OtlpDelivery:
    """Sends queued traces to the collector of the settings; safe to use from several threads.

    Args:
        settings: Settings with ``otlp_url``.
        queue: The traces to send.
        store: Reads them.
        timeout_s: Seconds of a request with its repeats.
    """

    name = "traces to OpenTelemetry"

    def __init__(
        self, settings: TrackingSettings, queue: ExportQueue, store: TraceStore, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._settings = settings
        self._timeout_s = timeout_s
        self._queue = queue
        self._store = store
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._opened: Collector | None = None

    @property
    def is_failing(self) -> bool:
        """Whether the last request had no success, though the exporter may repeat it."""
        return self._opened is not None and self._opened.problem is not None

    def pending(self) -> int:
        """Return how many finished traces this process could send.

        Raises:
            DatabaseError: The database refuses.
        """
        self._store.flush()
        return self._queue.count()

    def send(self, progress: Callable[[int], None] = lambda _sent: None) -> int:
        """Send all that waits, oldest first, and return the number of traces.

        What was sent before an error is not sent again.

        Args:
            progress: Called after each request with the number of traces so far.

        Raises:
            CollectorError: The collector does not answer, or does not take traces.
            DatabaseError: The database refuses.
        """
        sent = 0
        self._store.flush()
        with self._lock:
            while not self._closed.is_set() and (ids := self._queue.take(BATCH)):
                sent += self._send(ids)
                progress(sent)
        return sent

    def close(self) -> None:
        """Send nothing more, and end the wait of a request that failed."""
        self._closed.set()
        if self._opened is not None:
            self._opened.close()

    def _send(self, ids: Sequence[str]) -> int:
        """Send a batch, and return how many of its traces the collector took."""
        traces = list(self._known(ids))
        refusal = self._attempt(traces)
        if refusal is None:
            self._queue.remove(ids)
            return len(traces)
        # One of them is at fault, and the others are not to wait for it.
        refused: dict[str, CollectorError] = {}
        for trace in traces if len(traces) > 1 else ():
            if (problem := self._attempt([trace])) is None:
                self._queue.remove([trace.id])
            else:
                refused[trace.id] = problem
        taken = len(traces) - len(refused) if len(traces) > 1 else 0
        if not taken:
            # It takes nothing at all, so it may be the wrong server.
            raise refusal
        for trace_id, problem in refused.items():
            _log.warning("The trace %s is not sent again: %s", trace_id, problem.message)
        self._queue.remove(list(refused))
        return taken

    def _attempt(self, traces: Sequence[Trace]) -> CollectorError | None:
        """Send traces; return the error of a collector that does not like their content."""
        from rag.tracing.otlp_spans import spans_of

        project = self._settings.project
        try:
            self._collector.send([span for trace in traces for span in spans_of(trace, project)])
        except CollectorError as error:
            if error.status in _CONTENT:
                return error
            raise
        return None

    def _known(self, ids: Sequence[str]) -> Any:
        """Yield the traces; one that was deleted meanwhile is left out."""
        for trace_id in ids:
            try:
                yield self._store.get(trace_id)
            except TraceNotFound:
                continue

    @property
    def _collector(self) -> Collector:
        if self._opened is None:
            self._opened = open_collector(self._settings, self._timeout_s)
        return self._opened


def open_collector(settings: TrackingSettings, timeout_s: float) -> Collector:
    """Return the collector of settings with ``otlp_url``."""
    from rag.tracing.collector import Collector

    headers = {name: value.get_secret_value() for name, value in (settings.otlp_headers or {}).items()}
    return Collector(endpoint_of(settings.otlp_url or ""), headers, timeout_s)


def endpoint_of(url: str) -> str:
    """Return the URL that takes traces, which ends in ``/v1/traces``."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    return urlunsplit(parts._replace(path=path if path.endswith(PATH) else path + PATH))


def shown_url(settings: TrackingSettings) -> str:
    """Return the URL of the collector without a password."""
    return without_password(endpoint_of(settings.otlp_url or ""))
