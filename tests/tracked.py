"""What the tests of tracking share: traces, trackers, and programs that use them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import pytest
from wandb_reader import RunFile, offline_runs, read_run

from rag.settings import TrackingSettings
from rag.tracing.ledger import day_start
from rag.tracing.trace_store import Span, Trace, TraceStore
from rag.tracing.wandb_day import Pace
from rag.tracing.wandb_tracker import WandbTracker
from rag.workspace import Workspace

TODAY = day_start(date.today())
ROOT = Path(__file__).parent.parent
OFFLINE = TrackingSettings(wandb="offline")
FAST = Pace(confirm_s=1.2, poll_s=0.2)
# How long a busy machine may take for what takes a moment.
WAIT_S = 60.0


def isolate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let W&B write nothing outside ``folder``, and report nothing."""
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(folder / name))
    monkeypatch.setenv("WANDB_DISABLE_WEAVE", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


def trace_of(number: int, **changes: object) -> Trace:
    started = TODAY + number
    root = f"trace-{number:06d}"
    spans = (
        Span(
            root,
            None,
            0,
            "chat",
            "chain",
            "ok",
            started,
            started + 1,
            {"question": "q"},
            {"text": "a"},
            cost_usd=0.2,
        ),
        Span(
            f"{root}-1",
            root,
            1,
            "generate",
            "llm",
            "ok",
            started + 0.25,
            started + 1,
            cost_usd=0.2,
            output_tokens=4,
        ),
    )
    trace = Trace(
        root,
        started,
        "ok",
        f"question {number}",
        f"answer {number}",
        latency_s=1.0,
        cost_usd=0.2,
        input_tokens=9,
        output_tokens=4,
        prompt="answer@1",
        release="r1",
        spans=spans,
    )
    return replace(trace, **changes)  # type: ignore[arg-type]


def wait_for(condition: Callable[[], object], seconds: float = WAIT_S) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def started(
    workspace: Workspace, store: TraceStore, settings: TrackingSettings = OFFLINE, pace: Pace = FAST
) -> WandbTracker:
    tracker = WandbTracker(settings, workspace, store, {"model": "extractive"}, pace)
    tracker.start()
    return tracker


def service_process() -> psutil.Process:
    """The process that W&B has started to do its work."""
    running = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    return next(child for child in running if child.name().startswith("wandb-core"))


def only_run(workspace: Workspace, *, ended: bool = True) -> RunFile:
    """The one run of a workspace. W&B reports the end of a run a moment before its last bytes are in the file."""
    (path,) = offline_runs(workspace.root)
    return finished_run(path) if ended else read_run(path)


def finished_run(path: Path) -> RunFile:
    """The run of a file whose end has been written."""
    wait_for(lambda: path.stat().st_size and read_run(path).exit_code is not None)
    return read_run(path)


def delivered(workspace: Workspace) -> list[str]:
    """The ids of the traces in all runs of a workspace."""
    return [tree["span_id"] for path in offline_runs(workspace.root) for tree in read_run(path).trees]


def table_rows(workspace: Workspace, name: str = "*") -> list[dict[str, Any]]:
    """The rows of the tables with this name, ``NAME_1`` … among them."""
    rows: list[dict[str, Any]] = []
    for path in sorted((workspace.wandb).glob(f"offline-run-*/files/media/table/{name}_*.table.json")):
        table = json.loads(path.read_text())
        rows += [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    return rows


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}


def scenario(body: str, *arguments: str) -> list[str]:
    """A command that runs ``body`` after a common beginning, with the workspace's folder as its argument."""
    return [sys.executable, "-c", textwrap.dedent(BEGINNING) + textwrap.dedent(body), *arguments]


BEGINNING = """
import signal, sys, time
from pathlib import Path
from rag.database import open_database
from rag.settings import TrackingSettings
from rag.tracing.trace_store import Trace, TraceStore
from datetime import date
from rag.tracing.ledger import day_start
from rag.tracing.wandb_day import Pace
from rag.tracing.wandb_tracker import WandbTracker, open_tracker
from rag.workspace import open_workspace

workspace = open_workspace(Path(sys.argv[1]))
store = TraceStore(open_database(workspace))

def service_process():
    import psutil
    return next(child for child in psutil.Process().children() if child.name().startswith("wandb-core"))

def trace_of(number):
    started = day_start(date.today()) + number
    return Trace(f"trace-{number:06d}", started, "ok", f"question {number}", "a", latency_s=1.0)
"""


def start_scenario(body: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        scenario(body, *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment() | variables,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status and what was printed."""
    out, err = process.communicate(timeout=2 * WAIT_S)
    return process.returncode, out, err
