"""Traces to Weights & Biases: a projection of the trace store that may fail without anybody noticing.

The store is the outbox. A worker thread claims finished traces, logs them to the W&B run of this process and
marks them as tracked once W&B has had time to write them; what was not delivered stays in the store for a later
process. So a trace arrives at least once, and one that arrives again has the same ids. W&B is imported and its
run started in that thread, with the first trace that there is to deliver, so that no answer waits for it.
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
from rag.tracing.trace_store import Trace, TraceStore
from rag.tracing.wandb_run import Mode, RunTable, TrackedRun, TrackerStatus, kill_service, open_run
from rag.tracing.wandb_traces import COLUMNS, trace_row, trace_values
from rag.workspace import Workspace

_BATCH = 50
_STORE_PAUSE_S = 10.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """When the worker does what it does not do at once.

    Attributes:
        confirm_s: Seconds from logging a trace to marking it as tracked: more than W&B's flush interval of
            one second, so that a process killed in between leaves the trace to the next.
        table_rows, table_s: A row of the table waits for so many others, or for so long. Every increment
            repeats the names of those before it, so the wait grows with their number.
    """

    confirm_s: float = 2.0
    table_rows: int = 50
    table_s: float = 60.0


class Tracker(Protocol):
    """Where finished traces go besides the store. Nothing in here raises, prints, or takes time."""

    def wake(self) -> None:
        """There may be a new trace in the store."""

    def close(self, timeout_s: float) -> None:
        """Deliver what waits and end the run, in at most ``timeout_s`` seconds."""

    @property
    def status(self) -> TrackerStatus:
        """How tracking stands."""


class NullTracker:
    """Tracking is off. Traces that are made meanwhile are not delivered later either.

    Args:
        store: Where to note that; None where there is nothing to note.
    """

    status = TrackerStatus("off", "Tracking is switched off.")

    def __init__(self, store: TraceStore | None = None) -> None:
        self._store = store

    def wake(self) -> None:
        """Note that what was traced so far is to stay here."""
        if self._store is None:
            return
        try:
            self._store.withhold()
        except RagsmithError as error:
            _log.debug("Traces could not be withheld from tracking: %s", error)

    def close(self, timeout_s: float) -> None:
        """Note the same of what was traced last."""
        self.wake()


def open_tracker(
    settings: TrackingSettings, workspace: Workspace, store: TraceStore, config: Mapping[str, Any]
) -> Tracker:
    """The tracker that the settings ask for, at work.

    Args:
        config: What the run's page shows as its configuration: model, corpus, release; no secrets.
    """
    if settings.wandb == "off":
        return NullTracker(store)
    tracker = WandbTracker(settings, workspace, store, config)
    tracker.start()
    return tracker


class WandbTracker:
    """Delivers traces to one W&B run, from a thread of its own.

    The first failure ends the delivery in this process: the status says why, what was not delivered stays in
    the store, and one line goes to the log.
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
        self._table = RunTable("answers", COLUMNS, increments=100)
        self._oldest_row = 0.0
        self._claimed: set[str] = set()
        # Ids that were logged together, and when.
        self._logged: list[tuple[set[str], float]] = []
        self._woken = threading.Event()
        self._closing = threading.Event()
        self._deadline = float("inf")
        # A daemon: a W&B that hangs must not keep the process alive.
        self._thread = threading.Thread(target=self._work, name="ragsmith-tracking", daemon=True)

    @property
    def status(self) -> TrackerStatus:
        """How tracking stands."""
        if self._run is None or self._status.mode == "failed":
            return self._status
        return self._run.status

    def start(self) -> None:
        """Begin, with what earlier processes left undelivered."""
        self._thread.start()

    def wake(self) -> None:
        """There may be a new trace in the store."""
        self._woken.set()

    def close(self, timeout_s: float) -> None:
        """Deliver what waits, write the table and end the run, in at most ``timeout_s`` seconds.

        A W&B that does not end in time is stopped: its file holds what was logged up to a second ago.
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
            # Read before the delivery: what was saved before `close` is still delivered.
            closing = self._closing.is_set()
            try:
                working, pause = self._deliver(), self._pause()
            except RagsmithError as error:
                # A store that is locked for a while is no reason to give up.
                _log.debug("Traces wait for their delivery: %s", error)
                pause = _STORE_PAUSE_S
            if closing:
                break
            if working:
                self._woken.wait(pause)
                self._woken.clear()
        try:
            self._finish()
        except RagsmithError as error:
            # The claims end with this process, and the next delivers once more.
            _log.debug("Delivered traces could not be marked: %s", error)

    def _deliver(self) -> bool:
        """Log what waits, mark and write what has become due; return whether W&B still takes it."""
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
        # A service that still answers has written what it took more than its flush interval ago.
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
                counts = {f"status/{name}": count for name, count in self._counts.items()}
                wandb_run.log(trace_values(trace) | counts)

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
        """Seconds until something becomes due; None where only a wake counts."""
        due = [self._table_due()] if self._table.rows else []
        due += [at + self._pace.confirm_s for _ids, at in self._logged[:1]]
        return max(min(due) - time.monotonic(), 0.05) if due else None

    def _mark(self, entries: Sequence[tuple[set[str], float]], run: TrackedRun) -> None:
        ids = {trace_id for entry_ids, _at in entries for trace_id in entry_ids}
        self._store.mark_tracked(ids, run.id)
        self._claimed -= ids
        self._logged = [entry for entry in self._logged if entry not in entries]

    def _finish(self) -> None:
        """End the run, mark what it took, and leave the rest to a later process."""
        if self._run is not None and self._run.attempt(self._table.write) and self._run.finish():
            self._mark(self._logged, self._run)
        self._store.release(self._claimed)
