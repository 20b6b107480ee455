"""Delivery of traces to Weights & Biases, whose failures never affect answers.

The trace store is the outbox. A worker thread claims finished traces, logs them to the W&B run of this process and
marks them as tracked once W&B has had time to write them; undelivered ones stay in the store for a later process.
Traces are delivered at least once, with stable ids. W&B is imported and its run started in that thread with the
first trace, so that no answer waits for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rag.errors import RagsmithError
from rag.settings import TrackingSettings
from rag.tracing.ledger import Spending, spending_of
from rag.tracing.trace_store import Trace, TraceStore
from rag.tracing.wandb_run import Mode, RunTable, TrackedRun, TrackerStatus, kill_service, open_run
from rag.tracing.wandb_traces import COLUMNS, cost_values, trace_row, trace_values
from rag.workspace import Workspace

_BATCH = 50
_STORE_PAUSE_S = 10.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """Delays of the worker.

    Attributes:
        confirm_s: Seconds from logging a trace to marking it as tracked. More than W&B's flush interval of one
            second, so that a killed process leaves the trace to the next one.
        table_rows, table_s: Maximum rows and seconds until rows are written to the table. Every increment repeats
            the names of earlier ones, so the delay grows with their number.
    """

    confirm_s: float = 2.0
    table_rows: int = 50
    table_s: float = 60.0


class Tracker(Protocol):
    """Delivers finished traces. No method raises, prints or blocks, except ``close``."""

    def wake(self) -> None:
        """Notify the tracker of a possible new trace in the store."""

    def close(self, timeout_s: float) -> None:
        """Deliver the remaining traces and end the run within ``timeout_s`` seconds."""

    @property
    def status(self) -> TrackerStatus:
        """The state of tracking."""


class NullTracker:
    """A tracker that is off, whose traces are not delivered later either.

    Args:
        store: The store whose traces are excluded; None for none.
    """

    status = TrackerStatus("off", "Tracking is switched off.")

    def __init__(self, store: TraceStore | None = None) -> None:
        self._store = store

    def wake(self) -> None:
        """Exclude the traces so far from tracking."""
        if self._store is None:
            return
        try:
            self._store.withhold()
        except RagsmithError as error:
            _log.debug("Traces could not be withheld from tracking: %s", error)

    def close(self, timeout_s: float) -> None:
        """Exclude the last traces from tracking."""
        self.wake()


def open_tracker(
    settings: TrackingSettings, workspace: Workspace, store: TraceStore, config: Mapping[str, Any]
) -> Tracker:
    """Start the configured tracker.

    Args:
        settings: Project and mode.
        workspace: The workspace for offline runs.
        store: The store of the traces.
        config: Configuration shown by W&B, such as model, corpus and release; no secrets.
    """
    if settings.wandb == "off":
        return NullTracker(store)
    tracker = WandbTracker(settings, workspace, store, config)
    tracker.start()
    return tracker


class WandbTracker:
    """Delivers traces to a W&B run in a thread of its own.

    The first failure ends the delivery in this process: it is logged in one line and in the status, and
    undelivered traces stay in the store.
    """

    def __init__(
        self,
        settings: TrackingSettings,
        workspace: Workspace,
        store: TraceStore,
        config: Mapping[str, Any],
        pace: Pace | None = None,
    ) -> None:
        self._settings = settings
        self._workspace = workspace
        self._store = store
        self._config = dict(config)
        self._pace = pace or Pace()
        mode: Mode = "online" if settings.wandb == "online" else "offline"
        self._run: TrackedRun | None = None
        self._status = TrackerStatus(mode, "The W&B run starts with the first answer.")
        self._counts: Counter[str] = Counter()
        self._spending = Spending()
        self._table = RunTable("answers", COLUMNS, increments=100)
        self._oldest_row = 0.0
        self._claimed: set[str] = set()
        # Batches of logged ids with their times.
        self._logged: list[tuple[set[str], float]] = []
        self._woken = threading.Event()
        self._closing = threading.Event()
        self._deadline = float("inf")
        # A daemon, so that a hanging W&B does not keep the process alive.
        self._thread = threading.Thread(target=self._work, name="ragsmith-tracking", daemon=True)

    @property
    def status(self) -> TrackerStatus:
        """The state of tracking."""
        if self._run is None or self._status.mode == "failed":
            return self._status
        return self._run.status

    def start(self) -> None:
        """Start the thread, which begins with undelivered traces of earlier processes."""
        self._thread.start()

    def wake(self) -> None:
        """Notify the tracker of a possible new trace in the store."""
        self._woken.set()

    def close(self, timeout_s: float) -> None:
        """Deliver the remaining traces, write the table and end the run within ``timeout_s`` seconds.

        A hanging W&B is killed; its file contains everything except for the last second.
        """
        if self._thread.ident is None:
            return
        self._deadline = time.monotonic() + timeout_s
        self._closing.set()
        self._woken.set()
        self._thread.join(timeout_s * 0.8)
        if self._thread.is_alive():
            kill_service()
            self._thread.join(timeout_s * 0.2)
        if self._thread.is_alive():
            self._status = TrackerStatus("failed", "W&B did not finish in time.", self.status.run_path)

    def _work(self) -> None:
        working = True
        while working:
            # Read before the delivery, so that everything saved before `close` is delivered.
            closing = self._closing.is_set()
            try:
                working, pause = self._deliver(), self._pause()
            except RagsmithError as error:
                # The store may only be locked for a while.
                _log.debug("The delivery of traces is delayed: %s", error)
                pause = _STORE_PAUSE_S
            if closing:
                break
            if working:
                self._woken.wait(pause)
                self._woken.clear()
        try:
            self._finish()
        except RagsmithError as error:
            # The claims end with this process, so the next one repeats the delivery.
            _log.debug("Delivered traces could not be marked: %s", error)

    def _deliver(self) -> bool:
        """Log new traces, confirm and write what is due, and return whether W&B still works."""
        while time.monotonic() < self._deadline and (traces := self._store.claim(_BATCH)):
            self._claimed.update(trace.id for trace in traces)
            if self._run is None:
                self._run = open_run(
                    self._settings, self._workspace.root, self._config, subject="the traces", job_type="chat"
                )
            if not self._log(self._run, traces):
                return False
        run, now = self._run, time.monotonic()
        if run is None:
            return True
        # A service that still responds has written everything older than its flush interval.
        due = [entry for entry in self._logged if now - entry[1] >= self._pace.confirm_s]
        if due:
            if not run.flush():
                return False
            self._mark(due, run)
        if self._table.rows and (now >= self._table_due() or len(self._table.rows) >= self._pace.table_rows):
            return run.attempt(self._table.write)
        return True

    def _log(self, run: TrackedRun, traces: Sequence[Trace]) -> bool:
        def log(wandb_run: Any) -> None:
            for trace in traces:
                self._counts[trace.status] += 1
                self._spending += spending_of(trace)
                counts = {f"status/{name}": count for name, count in self._counts.items()}
                wandb_run.log(trace_values(trace) | counts | cost_values(self._spending))

        if not (run.attempt(log) and run.flush()):
            return False
        if not self._table.rows:
            self._oldest_row = time.monotonic()
        self._table.rows.extend(trace_row(trace) for trace in traces)
        self._logged.append(({trace.id for trace in traces}, time.monotonic()))
        return True

    def _table_due(self) -> float:
        return self._oldest_row + self._pace.table_s * (self._table.increments + 1)

    def _pause(self) -> float | None:
        """Return the seconds until something is due; None if nothing is."""
        due = [self._table_due()] if self._table.rows else []
        due += [at + self._pace.confirm_s for _ids, at in self._logged[:1]]
        return max(min(due) - time.monotonic(), 0.05) if due else None

    def _mark(self, entries: Sequence[tuple[set[str], float]], run: TrackedRun) -> None:
        ids = {trace_id for entry_ids, _at in entries for trace_id in entry_ids}
        self._store.mark_tracked(ids, run.id)
        self._claimed -= ids
        self._logged = [entry for entry in self._logged if entry not in entries]

    def _finish(self) -> None:
        """End the run, mark delivered traces, and release the others."""
        if self._run is not None and self._run.attempt(self._table.write) and self._run.finish():
            self._mark(self._logged, self._run)
        self._store.release(self._claimed)
