"""Logging of waiting traces to the W&B runs of their days."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from itertools import groupby
from typing import Any

from rag.settings import TrackingSettings
from rag.tracing.day_figures import day_of
from rag.tracing.trace_store import Trace, TraceStore
from rag.tracing.wandb_day import DayRun, Pace, open_day_run
from rag.tracing.wandb_run import RunAlert, TrackerStatus
from rag.workspace import Workspace

_BATCH = 50


class TraceSender:
    """Claims waiting traces, logs them, and marks them as tracked once W&B has had time to write them.

    The caller has the workspace's delivery lock. After a failure, only ``finish`` may be called.

    Args:
        settings: Project and mode.
        workspace: The workspace for the runs.
        store: The store of the traces.
        config: Configuration shown by W&B; no secrets.
        pace: Delays.
    """

    def __init__(
        self,
        settings: TrackingSettings,
        workspace: Workspace,
        store: TraceStore,
        config: Mapping[str, Any],
        pace: Pace,
    ) -> None:
        self._settings = settings
        self._workspace = workspace
        self._store = store
        self._config = dict(config)
        self._pace = pace
        self._current: DayRun | None = None
        self._claimed: set[str] = set()
        # Batches of logged ids with their times.
        self._logged: list[tuple[set[str], float]] = []
        self.sent = 0
        self._status: TrackerStatus | None = None

    @property
    def status(self) -> TrackerStatus | None:
        """The state of the open run, or of the last one; None before the first."""
        current = self._current
        return self._status if current is None else current.run.status

    @property
    def is_open(self) -> bool:
        """Whether a run is open."""
        return self._current is not None

    def deliver(self, deadline: float, progress: Callable[[int], None] = lambda _: None) -> bool:
        """Log waiting traces, confirm and write what is due, and return whether W&B works.

        Args:
            deadline: When to stop, on the monotonic clock.
            progress: Called with the number of traces that were logged so far.

        Raises:
            DatabaseError: The store cannot be read or written now.
        """
        while time.monotonic() < deadline and (traces := self._store.claim(_BATCH)):
            self._claimed.update(trace.id for trace in traces)
            for day, of_day in groupby(traces, key=lambda trace: day_of(trace.started)):
                current = self._run_of(day)
                if current is None or not self._log(current, list(of_day)):
                    return False
                progress(self.sent)
        return self._confirm()

    def alert(self, alert: RunAlert) -> bool:
        """Log an alert to the run of today, and return whether W&B works."""
        current = self._run_of(day_of(time.time()))
        return current is not None and current.alert(alert)

    def next_due(self) -> float | None:
        """Return the seconds until something is due; None if nothing is."""
        table = self._current.table_due if self._current else None
        due = [] if table is None else [table]
        due += [at + self._pace.confirm_s for _ids, at in self._logged[:1]]
        return max(min(due) - time.monotonic(), 0.05) if due else None

    def finish(self) -> bool:
        """End the run, mark delivered traces, release the others, and return whether W&B has written everything.

        Raises:
            DatabaseError: The store cannot be written; the claims end with this process.
        """
        try:
            return self._leave()
        finally:
            self._store.release(self._claimed)
            self._claimed.clear()

    def _run_of(self, day: date) -> DayRun | None:
        """Return the run of a day, opened if needed; None if the run of another day could not be ended."""
        if self._current is not None and self._current.day != day and not self._leave():
            return None
        if self._current is None:
            run = open_day_run(self._settings, self._workspace, self._config, day)
            self._current = DayRun(day, run, self._store.engine, self._pace)
        return self._current

    def _log(self, current: DayRun, traces: Sequence[Trace]) -> bool:
        logged = current.log(traces)
        if logged:
            self._logged.append(({trace.id for trace in traces}, time.monotonic()))
            self.sent += len(traces)
        return logged

    def _confirm(self) -> bool:
        current, now = self._current, time.monotonic()
        if current is None:
            return True
        # A service that still responds has written everything older than its flush interval.
        due = [entry for entry in self._logged if now - entry[1] >= self._pace.confirm_s]
        if due:
            if not current.run.flush():
                return False
            self._mark(due, current.run.id)
        if current.day != day_of(time.time()) and not self._logged:
            return self._leave()
        return current.write_due_rows()

    def _leave(self) -> bool:
        """End the open run, if there is one."""
        current, self._current = self._current, None
        if current is None:
            return True
        finished = current.finish()
        self._status = current.run.status
        if finished:
            self._mark(self._logged, current.run.id)
        self._logged = []
        return finished

    def _mark(self, entries: Sequence[tuple[set[str], float]], run_id: str) -> None:
        ids = {trace_id for entry_ids, _at in entries for trace_id in entry_ids}
        self._store.mark_tracked(ids, run_id)
        self._claimed -= ids
        self._logged = [entry for entry in self._logged if entry not in entries]
