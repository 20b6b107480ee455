"""When the traces of a process reach W&B and a collector: at once from a server, else later from the store."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from rag.errors import RagsmithError
from rag.settings import Settings
from rag.tracing.figures import counted
from ui.app.shared_property import shared_property

if TYPE_CHECKING:
    from rag.tracing.delivery import Delivery
    from rag.tracing.otlp_delivery import OtlpDelivery
    from rag.tracing.trace_store import Backlog
    from rag.tracing.wandb_run import TrackerStatus
    from rag.tracing.wandb_tracker import RunTracker, Tracker
    from ui.app.stores import Stores

ALERT_S = 20.0
"""Seconds that an alert waits for W&B."""
CLOSING_S = 10.0
"""Seconds that closing waits for the delivery of traces to W&B."""
OTLP_CLOSING_S = 5.0
"""Seconds that closing waits for a collector; what it does not take by then is sent by the next process."""
MOST_WAITING = 200
"""With more traces than this, or one of an earlier day, a command delivers when it ends."""
_SHOWN = {"model", "corpus", "prompt", "chunking", "retrieval", "decoding", "answer", "grounding"}

_log = logging.getLogger(__name__)


class Tracking:
    """Delivers the traces of the workspace to W&B, and to a collector of OpenTelemetry if there is one.

    A server calls ``start`` and delivers while it runs. A command does not wait for W&B and leaves its traces in
    the store: for the server, for ``ragsmith sync``, or for the first command of the next day, which delivers them
    when it ends. So the commands of a day share a run, and no trace waits for ever. A collector has no runs: every
    process sends its own traces.
    """

    def __init__(self, settings: Settings, stores: Stores) -> None:
        self._settings = settings
        self._stores = stores
        self.lock = threading.RLock()
        self._closing = ExitStack()
        self._started = self._asked = False

    def start(self) -> None:
        """Deliver from now on, while the process runs; if the store cannot be opened, from the next trace on."""
        self._started = True
        try:
            _ = self._tracker, self.exporter
        except RagsmithError as error:
            _log.debug("No trace can be delivered yet: %s", error)

    def on_traced(self) -> None:
        """Note that a question of this process may have been traced."""
        self._asked = True
        if self._started:
            self._tracker.wake()
        self.exporter.wake()

    @property
    def status(self) -> TrackerStatus:
        """The state of tracking; its detail says how many traces wait, and what sends them."""
        from dataclasses import replace

        from rag.tracing.wandb_tracker import initial_status

        tracking = self._settings.tracking
        if self._started or tracking.wandb == "off":
            status = self._tracker.status
        else:
            status = initial_status(tracking, "Traces are stored in the workspace.")
        if status.mode == "failed" or not self._started:
            return replace(status, detail=f"{status.detail} {self.notice}".strip())
        return status

    @property
    def notice(self) -> str:
        """Return how many traces wait for W&B, and what sends them; empty if none do."""
        waiting = self._backlog()
        if not waiting or not waiting.traces:
            return ""
        number = counted(waiting.traces, "trace")
        return f"Waiting in the workspace for W&B: {number}. `ragsmith sync` delivers now."

    def deliveries(self) -> list[Delivery]:
        """Return what ``ragsmith sync`` sends, in this order: the older parts of a run before the newer ones."""
        from rag.tracing.wandb_delivery import FolderDelivery, TraceDelivery

        stores = self._stores
        parts = (self._settings.tracking, stores.workspace, stores.traces, self._config)
        collector = [] if self.otlp_delivery is None else [self.otlp_delivery]
        return [FolderDelivery(*parts), TraceDelivery(*parts), *collector]

    def alert(self, title: str, text: str, level: str) -> None:
        """Log an alert to the W&B run of the day; level is ``INFO``, ``WARN`` or ``ERROR``.

        Raises:
            DeliveryError: W&B is off, or fails.
            WorkspaceBusy: Another process is delivering.
        """
        from rag.tracing.wandb_delivery import AlertDelivery
        from rag.tracing.wandb_run import RunAlert

        alert, stores = RunAlert(title, text, level), self._stores
        if self._started or self._settings.tracking.wandb == "off":
            self._tracker.alert(alert, ALERT_S)
            return
        AlertDelivery(self._settings.tracking, stores.workspace, stores.traces, self._config).send(alert)

    def close(self) -> None:
        """Deliver what waits for the collector, and for W&B if this process does."""
        if self._asked and not self._started and self._is_due():
            self.start()
        self._closing.close()

    @shared_property
    def _tracker(self) -> RunTracker:
        from rag.tracing.wandb_tracker import open_tracker

        stores = self._stores
        tracker = open_tracker(self._settings.tracking, stores.workspace, stores.traces, self._config)
        self._closing.callback(tracker.close, CLOSING_S)
        return tracker

    @property
    def _config(self) -> dict[str, Any]:
        """The settings that W&B shows: those that answers depend on, without addresses and paths."""
        return {**self._settings.model_dump(mode="json", include=_SHOWN), "encoder": self._settings.encoder.model}

    def _is_due(self) -> bool:
        from rag.tracing.day_figures import day_of

        waiting = self._backlog()
        if waiting is None or waiting.oldest is None:
            return False
        return waiting.traces > MOST_WAITING or day_of(waiting.oldest) < day_of(time.time())

    def _backlog(self) -> Backlog | None:
        """Return the traces that wait; None if tracking is off or the store cannot be read."""
        if self._settings.tracking.wandb == "off":
            return None
        try:
            return self._stores.traces.backlog()
        except RagsmithError as error:
            _log.debug("The traces that wait for W&B cannot be counted: %s", error)
            return None

    @shared_property
    def otlp_delivery(self) -> OtlpDelivery | None:
        """The delivery to the collector; None without one."""
        from rag.tracing.otlp_delivery import OtlpDelivery

        if self._settings.tracking.otlp_url is None:
            return None
        return OtlpDelivery(self._settings.tracking, self._stores.export_queue, self._stores.traces)

    @shared_property
    def exporter(self) -> Tracker:
        """The tracker that sends traces to the collector as answers end; it does nothing without one."""
        from rag.tracing.otlp_delivery import shown_url
        from rag.tracing.otlp_tracker import OtlpTracker
        from rag.tracing.wandb_tracker import NullTracker

        if (delivery := self.otlp_delivery) is None:
            return NullTracker()
        exporter = OtlpTracker(delivery, shown_url(self._settings.tracking))
        self._closing.callback(exporter.close, OTLP_CLOSING_S)
        exporter.start()
        return exporter
