"""Delivery of traces to Weights & Biases while a process runs, whose failures never affect answers.

The trace store is the outbox. A worker thread claims finished traces, of this process and of others, logs them to
the W&B runs of their days and marks them as tracked once W&B has had time to write them; undelivered ones stay in
the store for a later process. Traces are delivered at least once, with stable ids. W&B is imported and a run
started in that thread with the first trace, so that no answer waits for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any, Protocol

from rag.errors import DeliveryError, RagsmithError, WorkspaceBusy
from rag.settings import TrackingSettings
from rag.tracing.trace_store import TraceStore
from rag.tracing.wandb_day import Pace
from rag.tracing.wandb_run import Mode, RunAlert, TrackerStatus, kill_service
from rag.tracing.wandb_sender import TraceSender
from rag.workspace import Workspace

_STORE_PAUSE_S = 10.0
# Seconds that a closing process waits for the lock, and between its attempts.
_LAST_WAIT_S = 5.0
_LOOK_S = 0.1

_log = logging.getLogger(__name__)


class Tracker(Protocol):
    """Delivers finished traces. No method raises, prints or blocks, except ``close``."""

    def wake(self) -> None:
        """Notify the tracker of a possible new trace in the store."""

    def close(self, timeout_s: float) -> None:
        """Deliver the remaining traces and end the run within ``timeout_s`` seconds."""

    @property
    def status(self) -> TrackerStatus:
        """The state of tracking."""


class RunTracker(Tracker, Protocol):
    """Delivers finished traces to W&B runs, which can have alerts."""

    def alert(self, alert: RunAlert, timeout_s: float) -> None:
        """Log an alert to the run of today, and wait until W&B has it.

        Raises:
            DeliveryError: W&B fails, or does not have it within ``timeout_s`` seconds.
        """


class NullTracker:
    """A tracker that is off."""

    status = TrackerStatus("off", "Tracking is switched off.")

    def wake(self) -> None:
        """Do nothing."""

    def close(self, timeout_s: float) -> None:
        """Do nothing."""

    def alert(self, alert: RunAlert, timeout_s: float) -> None:
        """Refuse the alert; see ``RunTracker``."""
        raise DeliveryError("W&B gets no alerts.", fix="Set tracking.wandb to auto, online or offline.")


def open_tracker(
    settings: TrackingSettings, workspace: Workspace, store: TraceStore, config: Mapping[str, Any]
) -> RunTracker:
    """Start the configured tracker.

    Args:
        settings: Project and mode.
        workspace: The workspace for offline runs.
        store: The store of the traces.
        config: Configuration shown by W&B, such as model, corpus and release; no secrets.
    """
    if settings.wandb == "off":
        return NullTracker()
    tracker = WandbTracker(settings, workspace, store, config)
    tracker.start()
    return tracker


def initial_status(settings: TrackingSettings, detail: str) -> TrackerStatus:
    """Return the state before the first delivery, with the configured mode; ``auto`` counts as offline."""
    mode: Mode = settings.wandb if settings.wandb in ("online", "off") else "offline"
    return TrackerStatus(mode, detail)


class WandbTracker:
    """Delivers traces to W&B runs in a thread of its own.

    One process of a workspace delivers at a time, also the traces of the others; the next one takes over when it
    ends. A failure is logged in one line and in the status, undelivered traces stay in the store, and another
    attempt is made ten minutes later.
    """

    def __init__(
        self,
        settings: TrackingSettings,
        workspace: Workspace,
        store: TraceStore,
        config: Mapping[str, Any],
        pace: Pace | None = None,
    ) -> None:
        self._workspace = workspace
        self._store = store
        self._pace = pace or Pace()
        self._settings = settings
        self._config = config
        self._sender = self._new_sender()
        self._late: TrackerStatus | None = None
        self._status = initial_status(settings, "The W&B run of the day starts with the first answer.")
        self._lock = ExitStack()
        self._locked = False
        self._alerts: deque[tuple[RunAlert, Future[None]]] = deque()
        self._woken = threading.Event()
        self._closing = threading.Event()
        self._deadline = float("inf")
        # A daemon, so that a hanging W&B does not keep the process alive.
        self._thread = threading.Thread(target=self._work, name="ragsmith-tracking", daemon=True)

    @property
    def status(self) -> TrackerStatus:
        """The state of tracking."""
        return self._late or self._sender.status or self._status

    def start(self) -> None:
        """Start the thread, which begins with undelivered traces of earlier processes."""
        self._thread.start()

    def wake(self) -> None:
        """Notify the tracker of a possible new trace in the store."""
        self._woken.set()

    def alert(self, alert: RunAlert, timeout_s: float) -> None:
        """Log an alert to the run of today; see ``RunTracker``."""
        logged: Future[None] = Future()
        self._alerts.append((alert, logged))
        self.wake()
        try:
            logged.result(timeout_s)
        except TimeoutError as error:
            if not logged.cancel():
                # It was taken in this moment.
                return logged.result()
            raise DeliveryError(
                f"W&B did not take an alert within {timeout_s:g} seconds. {self.status.detail}".strip()
            ) from error

    def close(self, timeout_s: float) -> None:
        """Deliver the remaining traces, write the table and end the run within ``timeout_s`` seconds.

        A hanging W&B is killed; its file contains everything except for the last second.
        """
        if self._thread.ident is None:
            return
        # The rest of the time is for ending the run.
        self._deadline = time.monotonic() + timeout_s * 0.5
        self._closing.set()
        self._woken.set()
        self._thread.join(timeout_s * 0.8)
        if self._thread.is_alive():
            kill_service()
            self._thread.join(timeout_s * 0.2)
        if self._thread.is_alive():
            self._late = TrackerStatus("failed", "W&B did not finish in time.", self.status.run_path)

    def _work(self) -> None:
        working = True
        while working:
            # Read before the delivery, so that everything saved before `close` is delivered.
            closing = self._closing.is_set()
            pause = _STORE_PAUSE_S
            try:
                working = self._deliver()
                pause = self._pause()
            except RagsmithError as error:
                # The store may only be locked for a while.
                _log.debug("The delivery of traces is delayed: %s", error)
            if closing:
                break
            if not working:
                self._finish()
                if self.status.mode == "off":
                    return
                self._status = self.status
                working = not self._closing.wait(self._pace.retry_s)
                self._sender = self._new_sender()
            else:
                self._woken.wait(pause)
                self._woken.clear()
        self._finish()

    def _new_sender(self) -> TraceSender:
        return TraceSender(self._settings, self._workspace, self._store, self._config, self._pace)

    def _deliver(self) -> bool:
        """Deliver as the process that has the lock, and return whether W&B works."""
        if not (self._locked or self._take_over()):
            return True
        works = self._sender.deliver(self._deadline) and self._send_alerts()
        if works and not self._sender.is_open:
            self._unlock()
        return works

    def _send_alerts(self) -> bool:
        """Log the alerts that wait, and return whether W&B works."""
        while self._alerts:
            alert, logged = self._alerts.popleft()
            # Nobody waits any more for one that was cancelled.
            if not logged.set_running_or_notify_cancel():
                continue
            if not self._sender.alert(alert):
                logged.set_exception(DeliveryError(f"W&B did not take an alert. {self.status.detail}".strip()))
                return False
            logged.set_result(None)
        return True

    def _take_over(self) -> bool:
        """Acquire the lock if traces or alerts wait, and return whether this process has it now."""
        # A process that has the lock delivers these traces, too; when this one closes, that one may be closing.
        end = time.monotonic() + (_LAST_WAIT_S if self._closing.is_set() else 0.0)
        while self._alerts or self._store.undelivered(1):
            try:
                self._lock.enter_context(self._workspace.delivering())
            except WorkspaceBusy:
                if time.monotonic() >= min(end, self._deadline):
                    return False
                time.sleep(_LOOK_S)
            else:
                self._locked = True
                return True
        return False

    def _pause(self) -> float:
        due = self._sender.next_due()
        return self._pace.poll_s if due is None else min(due, self._pace.poll_s)

    def _finish(self) -> None:
        """End the run, and let another process deliver."""
        try:
            self._sender.finish()
        except RagsmithError as error:
            # The claims end with this process, so the next one repeats the delivery.
            _log.debug("Delivered traces could not be marked: %s", error)
        self._unlock()

    def _unlock(self) -> None:
        self._locked = False
        self._lock.close()
