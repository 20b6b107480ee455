"""Traces to Weights & Biases: a projection of the trace store that may fail without anybody noticing.

The store is the outbox. A worker thread claims finished traces, logs them to the W&B run of this process and
marks them as tracked; what was not delivered stays in the store for a later process. W&B is imported and its
run started in that thread, with the first trace that there is to deliver, so that no answer waits for it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from rag.errors import RagsmithError
from rag.settings import TrackingSettings
from rag.tracing.trace_store import Trace, TraceStore
from rag.tracing.wandb_run import (
    Pace,
    SwitchedOffError,
    UnusableError,
    WandbRun,
    end_service,
    forget_dead_service,
    service_has_died,
    start_run,
)
from rag.workspace import Workspace

Mode = Literal["online", "offline", "off", "failed"]

_BATCH = 50
_STORE_PAUSE_S = 10.0
_LAST_BYTES_S = 2.0
_DETAIL = {"online": "Traces go to the W&B server.", "offline": "Traces go to a W&B run on this disk."}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrackerStatus:
    """How tracking stands.

    Attributes:
        mode: What happens to traces now. Until the first delivery it is what the settings ask for, and
            ``offline`` for ``auto``.
        detail: One sentence; for ``failed`` the reason.
        run_path: ``entity/project/run`` online, the run's folder offline; empty before the first delivery.
    """

    mode: Mode
    detail: str = ""
    run_path: str = ""


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
        """The same."""
        self.wake()

    @property
    def status(self) -> TrackerStatus:
        """Off."""
        return TrackerStatus("off", "Tracking is switched off.")


def prepare_wandb(workspace: Workspace) -> None:
    """Set the switches that W&B reads when it is imported.

    Weave, once imported by another library, makes it ask for a key; an error report would go to a server that
    nobody chose; files for artifacts would land in the home folder.
    """
    os.environ.setdefault("WANDB_DISABLE_WEAVE", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_DATA_DIR", str(workspace.wandb / "data"))
    os.environ.setdefault("WANDB_CACHE_DIR", str(workspace.wandb / "cache"))


def open_tracker(
    settings: TrackingSettings, workspace: Workspace, store: TraceStore, config: Mapping[str, Any]
) -> Tracker:
    """The tracker that the settings ask for, at work.

    Args:
        config: What the run's page shows as its configuration: model, corpus, release; no secrets.
    """
    if settings.wandb == "off":
        return NullTracker(store)
    prepare_wandb(workspace)
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
        self._config = dict(config)
        self._pace = pace or Pace()
        self._outbox = _Outbox(store)
        self._run: WandbRun | None = None
        self._woken = threading.Event()
        self._closing = threading.Event()
        self._deadline = float("inf")
        mode: Mode = "online" if settings.wandb == "online" else "offline"
        self._status = TrackerStatus(mode, "The W&B run starts with the first answer.")
        # A daemon: a W&B that hangs must not keep the process alive.
        self._thread = threading.Thread(target=self._work, name="ragsmith-tracking", daemon=True)

    @property
    def status(self) -> TrackerStatus:
        """How tracking stands."""
        return self._status

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
            # Its service process would otherwise hold up the end of this one: W&B waits for it at exit.
            end_service()
            self._thread.join(timeout_s * 0.2)
        if self._thread.is_alive():
            self._status = TrackerStatus("failed", "W&B did not finish in time.", self._status.run_path)

    def _work(self) -> None:
        try:
            while True:
                # Read before the delivery: what was saved before `close` is still delivered.
                closing = self._closing.is_set()
                pause = self._turn()
                if closing:
                    break
                self._woken.wait(pause)
                self._woken.clear()
            self._finish()
        except SwitchedOffError:
            self._status = TrackerStatus("off", "WANDB_MODE switches W&B off.")
            self._outbox.give_back()
        except Exception as error:  # noqa: BLE001 - whatever W&B does, the chat goes on
            self._fail(error)

    def _turn(self) -> float | None:
        """Deliver, and do what has become due; seconds until the next turn, None where only a wake counts."""
        try:
            self._deliver()
            return self._settle()
        except RagsmithError as error:
            # A store that is locked for a while is no reason to give up.
            _log.debug("Traces wait for their delivery: %s", error)
            return _STORE_PAUSE_S

    def _deliver(self) -> None:
        while time.monotonic() < self._deadline and (traces := self._outbox.take(_BATCH)):
            if self._run is None:
                self._run = start_run(self._settings, self._workspace, self._config, self._pace)
                self._status = TrackerStatus(self._run.mode, _DETAIL[self._run.mode], self._run.path)
            for trace in traces:
                before = self._run.file_size()
                self._outbox.logged(trace, before + self._run.log(trace))

    def _settle(self) -> float | None:
        """Confirm and write the table where it is time; seconds until it next is, None if nothing waits."""
        if self._run is None:
            return None
        self._outbox.confirm(self._run, self._pace)
        table = self._run.write_table_if_due()
        waits = [wait for wait in (table, self._outbox.next_due(self._pace)) if wait is not None]
        return max(min(waits), 0.05) if waits else None

    def _finish(self) -> None:
        if self._run is None:
            return
        self._run.finish()
        self._outbox.confirm_finished(self._run)

    def _fail(self, error: Exception) -> None:
        # The first line: W&B adds advice on its own settings below.
        message = (str(error).splitlines() or [""])[0]
        reason = message if isinstance(error, UnusableError) else f"{type(error).__name__}: {message}"
        self._status = TrackerStatus("failed", reason, self._status.run_path)
        _log.warning("W&B tracking has stopped; the traces themselves are safe. %s", reason)
        self._outbox.give_back()
        if forget_dead_service() or self._run is None:
            return
        # The run is still open, and would be ended at exit without a limit of time.
        self._closing.wait()
        try:
            self._run.finish()
        except Exception as second:  # noqa: BLE001 - the first failure has been told
            _log.debug("The failed W&B run could not be ended: %s", second)
            # The connection to a process that dies breaks before it is dead; a dead one can be forgotten.
            end_service()
        forget_dead_service()


class _Outbox:
    """The traces on their way from the store to the run."""

    def __init__(self, store: TraceStore) -> None:
        self._store = store
        self._claimed: set[str] = set()
        # Id, when it was logged, and the size that the run's file must have when it holds the trace.
        self._pending: list[tuple[str, float, int]] = []

    def take(self, limit: int) -> tuple[Trace, ...]:
        traces = self._store.claim(limit)
        self._claimed.update(trace.id for trace in traces)
        return traces

    def logged(self, trace: Trace, written_at: int) -> None:
        self._pending.append((trace.id, time.monotonic(), written_at))

    def next_due(self, pace: Pace) -> float | None:
        """Seconds until the oldest pending trace may be confirmed."""
        return self._pending[0][1] + pace.confirm_s - time.monotonic() if self._pending else None

    def confirm(self, run: WandbRun, pace: Pace) -> None:
        """Mark as tracked what W&B has had time to write, and did write.

        Raises:
            ConnectionError: Its service process died and has not written everything.
            UnusableError: It has written nothing for a long time.
        """
        now, size = time.monotonic(), run.file_size()
        written = [each for each in self._pending if now - each[1] >= pace.confirm_s and size >= each[2]]
        self._mark(written, run.id)
        if self._pending and service_has_died():
            raise ConnectionError("W&B's service process has died.")
        if self._pending and now - self._pending[0][1] >= pace.stall_s:
            raise UnusableError(f"W&B does not write to its file {run.file}: is the disk full?")

    def confirm_finished(self, run: WandbRun) -> None:
        """Mark what the ended run holds as tracked.

        Raises:
            UnusableError: The run's file does not hold everything.
        """
        # W&B reports the end a moment before its last bytes are in the file.
        end = time.monotonic() + _LAST_BYTES_S
        while any(each[2] > run.file_size() for each in self._pending) and time.monotonic() < end:
            time.sleep(0.01)
        size = run.file_size()
        self._mark([each for each in self._pending if size >= each[2]], run.id)
        self.give_back()
        if self._pending:
            raise UnusableError(f"W&B did not write everything to its file {run.file}: is the disk full?")

    def give_back(self) -> None:
        """Leave all that was claimed and not confirmed to a later process."""
        try:
            self._store.release(self._claimed)
        except RagsmithError as error:
            # The claims end with this process all the same.
            _log.debug("Claimed traces could not be given back: %s", error)
        self._claimed.clear()

    def _mark(self, written: list[tuple[str, float, int]], run_id: str) -> None:
        if not written:
            return
        ids = {trace_id for trace_id, _at, _size in written}
        self._store.mark_tracked(ids, run_id)
        self._claimed -= ids
        self._pending = [each for each in self._pending if each[0] not in ids]
