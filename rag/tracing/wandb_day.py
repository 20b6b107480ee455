"""The W&B run of a day: the traces of a workspace's questions, their table, and the figures of the day.

Its id is derived from the workspace and the day, so that all processes of a day continue one run. Only one of them
writes it at a time, see ``Workspace.delivering``: W&B's server numbers the records of a run by their count, and
those of two writers would replace each other.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from prompts.files import atomic_write
from rag.errors import RagsmithError
from rag.settings import TrackingSettings
from rag.tracing.day_figures import day_figures
from rag.tracing.trace_store import Trace
from rag.tracing.wandb_run import RunAlert, RunLabel, TrackedRun, open_run
from rag.tracing.wandb_table import RunTable
from rag.tracing.wandb_traces import COLUMNS, trace_row, trace_values
from rag.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy import Engine

_ID_FILE = "workspace.id"
_RUN_ID = re.compile(r"[0-9a-f]{8}-(\d{4}-\d\d-\d\d)")
# Their last value says nothing of the day, and W&B would list it among the day's figures.
_OF_ONE_TRACE = ("latency_s", "cost_usd", "latency/*", "tokens/*", "answers_*")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """Delays of the delivery.

    Attributes:
        confirm_s: Seconds from logging a trace to marking it as tracked. More than W&B's flush interval of one
            second, so that a killed process leaves the trace to the next one.
        table_rows, table_s: Maximum rows and seconds until rows are written to the table. Every increment repeats
            the names of earlier ones, so the delay grows with their number.
        poll_s: Seconds between looks for the traces of other processes.
        retry_s: Seconds until another attempt after W&B has failed.
    """

    confirm_s: float = 2.0
    table_rows: int = 50
    table_s: float = 60.0
    poll_s: float = 10.0
    retry_s: float = 600.0


def day_run_id(workspace: Workspace, day: date) -> str:
    """Return the id of a day's run; the part for the workspace is random, and stored in it.

    Raises:
        OSError: The folder cannot be written.
    """
    workspace.wandb.mkdir(exist_ok=True)
    path = workspace.wandb / _ID_FILE
    if not path.exists():
        # Whoever opens a run owns the delivery, so no other process is writing it.
        with atomic_write(path) as file:
            file.write(secrets.token_hex(4).encode())
    return f"{path.read_text(encoding='utf-8').strip()}-{day.isoformat()}"


def day_of_run(run_id: str) -> date | None:
    """Return the day of a run by its id; None for an evaluation or a training."""
    match = _RUN_ID.fullmatch(run_id)
    return date.fromisoformat(match[1]) if match else None


class DayRun:
    """The open run of a day.

    Args:
        day: The day.
        run: The run; a placeholder if W&B is off or has failed.
        engine: The database of the ledger.
        pace: When rows are written to the table.
    """

    def __init__(self, day: date, run: TrackedRun, engine: Engine, pace: Pace) -> None:
        self.day = day
        self.run = run
        self._engine = engine
        self._pace = pace
        self._table = RunTable("answers", COLUMNS, increments=100)
        self._oldest_row = 0.0
        run.attempt(_define_metrics)

    def log(self, traces: Sequence[Trace]) -> bool:
        """Log traces, then the figures of the day so far, and return whether W&B has received them."""
        figures = self._figures()

        def use(run: Any) -> None:
            for trace in traces:
                values = trace_values(trace)
                run.log(values | figures if trace is traces[-1] else values)

        if not (self.run.attempt(use) and self.run.flush()):
            return False
        if not self._table.rows:
            self._oldest_row = time.monotonic()
        self._table.rows.extend(trace_row(trace) for trace in traces)
        return True

    def alert(self, alert: RunAlert) -> bool:
        """Log an alert, and return whether W&B has received it."""

        def use(run: Any) -> None:
            # W&B would hold back a second one with the same title for a minute.
            run.alert(title=alert.title, text=alert.text, level=alert.level, wait_duration=0)

        return self.run.attempt(use) and self.run.flush()

    def write_due_rows(self) -> bool:
        """Write the table if that is due, and return whether W&B still works."""
        due = self.table_due
        if due is None or (time.monotonic() < due and len(self._table.rows) < self._pace.table_rows):
            return True
        return self.run.attempt(self._table.write)

    @property
    def table_due(self) -> float | None:
        """When rows must be written, on the monotonic clock; None without rows."""
        if not self._table.rows:
            return None
        return self._oldest_row + self._pace.table_s * (self._table.increments + 1)

    def finish(self) -> bool:
        """Write the table and the figures, end the run, and return whether W&B has written everything."""
        if not self.run.attempt(self._table.write):
            return False
        figures = self._figures()
        return self.run.attempt(lambda run: run.summary.update(figures)) and self.run.finish()

    def _figures(self) -> dict[str, float]:
        try:
            return day_figures(self._engine, self.day)
        except RagsmithError as error:
            # The next ones replace them.
            _log.debug("The figures of %s cannot be read: %s", self.day, error)
            return {}


def open_day_run(
    settings: TrackingSettings, workspace: Workspace, config: Mapping[str, Any], day: date
) -> TrackedRun:
    """Open or continue the run of a day; if that is impossible, its status has the reason."""
    try:
        run_id = day_run_id(workspace, day) if settings.wandb != "off" else None
    except OSError:
        # Reported with the folder by the attempt to open it.
        run_id = None
    label = RunLabel("the traces", "day", id=run_id, name=day.isoformat())
    return open_run(settings, workspace.root, config, label)


def _define_metrics(run: Any) -> None:
    for name in _OF_ONE_TRACE:
        run.define_metric(name, summary="none")
