"""Nothing that W&B does reaches the user, and no trace is lost by it."""

from __future__ import annotations

import logging
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from tracked import (
    OFFLINE,
    ROOT,
    WAIT_S,
    delivered,
    ended,
    environment,
    scenario,
    service_process,
    start_scenario,
    started,
    trace_of,
    wait_for,
)

from rag.settings import TrackingSettings
from rag.tracing import wandb_day
from rag.tracing.trace_store import Trace, TraceStore
from rag.tracing.wandb_run import TrackedRun, TrackerStatus
from rag.tracing.wandb_tracker import WandbTracker
from rag.workspace import Workspace

pytestmark = [pytest.mark.usefixtures("isolated_wandb"), pytest.mark.slow]


def failed(
    tracker: WandbTracker, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> TrackerStatus:
    """The status of a tracker that fails, with nothing but one line in the log."""
    wait_for(lambda: tracker.status.mode == "failed")
    tracker.wake()
    tracker.close(5)
    # W&B's own logger leads to the run's folder only.
    told = [
        record
        for record in caplog.records
        if record.levelno >= logging.WARNING and not record.name.startswith("wandb")
    ]
    assert [record.name for record in told] == ["rag.tracing.wandb_run"]
    assert "\n" not in told[0].getMessage()
    assert capfd.readouterr() == ("", "")
    return tracker.status


def test_a_run_that_cannot_start_is_told_once(
    workspace: Workspace,
    store: TraceStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    import wandb

    calls: list[int] = []

    def refuse(**_settings: Any) -> None:
        calls.append(1)
        raise wandb.errors.CommError("server says no\nand more")

    monkeypatch.setattr(wandb, "init", refuse)
    store.save(trace_of(1))
    tracker = started(workspace, store)
    assert failed(tracker, caplog, capfd) == TrackerStatus("failed", "CommError: server says no")
    assert calls == [1]
    assert store.undelivered(9) == (trace_of(1).id,)


def test_without_wandb_the_status_says_so(
    workspace: Workspace,
    store: TraceStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    store.save(trace_of(1))
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "wandb", None)
        tracker = started(workspace, store)
        assert "wandb" in failed(tracker, caplog, capfd).detail
    assert store.undelivered(9) == (trace_of(1).id,)


@pytest.mark.parametrize(("has_the_trace", "told"), [(False, "Error: "), (True, "W&B's service process has died")])
def test_a_killed_service_loses_nothing_and_a_later_run_works(
    has_the_trace: bool,
    told: str,
    workspace: Workspace,
    store: TraceStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    store.save(trace_of(1))
    tracker = started(workspace, store)
    wait_for(lambda: store.get(trace_of(1).id).tracked)
    service = service_process()
    logged = threading.Event()
    real = TrackedRun.flush

    def flush(self: TrackedRun) -> bool:
        logged.set()
        return real(self)

    monkeypatch.setattr(TrackedRun, "flush", flush)
    if has_the_trace:
        # It is given the trace, and never reads it.
        service.send_signal(signal.SIGSTOP)
        store.save(trace_of(2))
        tracker.wake()
        assert logged.wait(WAIT_S)
        service.kill()
    else:
        service.kill()
        service.wait()
        store.save(trace_of(2))
        tracker.wake()
    status = failed(tracker, caplog, capfd)
    assert logged.is_set() == has_the_trace
    assert told in status.detail
    assert status.run_path
    assert store.undelivered(9) == (trace_of(2).id,)
    again = started(workspace, store)
    again.close(60)
    assert again.status.mode == "offline"
    wait_for(lambda: delivered(workspace) == [trace_of(1).id, trace_of(2).id])


def test_a_program_whose_service_was_killed_ends_quietly(workspace: Workspace) -> None:
    body = """
    tracker = open_tracker(TrackingSettings(wandb="offline"), workspace, store, {})
    store.save(trace_of(1))
    tracker.wake()
    while not tracker.status.run_path:
        time.sleep(0.02)
    exec(sys.argv[2])
    store.save(trace_of(2))
    started = time.monotonic()
    tracker.close(2)
    print(tracker.status.mode, time.monotonic() - started < 3)
    """
    ways = {
        "killed": "service_process().kill()",
        "hanging": "service_process().send_signal(signal.SIGSTOP)",
        # As one that was killed is for a moment: its connection breaks before it is dead.
        "dying": "from wandb.sdk.wandb_setup import singleton\n"
        "connection = singleton()._connection\n"
        "connection._asyncer.run(connection._client.close)",
    }
    for process in [start_scenario(body, str(workspace.root / name), how) for name, how in ways.items()]:
        status, out, err = ended(process)
        assert (status, out) == (0, "failed True\n")
        assert err.count("\n") == 1
        assert "tracking of the traces has stopped" in err


def test_a_server_that_is_away_leaves_the_traces_in_the_store(workspace: Workspace) -> None:
    body = """
    import os
    from rag.tracing import wandb_run
    wandb_run._INIT_TIMEOUT_S = 1
    os.environ["WANDB_API_KEY"] = "a" * 40
    os.environ["WANDB_BASE_URL"] = "http://127.0.0.1:9"
    store.save(trace_of(1))
    tracker = open_tracker(TrackingSettings(), workspace, store, {})
    while tracker.status.mode != "failed":
        time.sleep(0.02)
    tracker.close(5)
    print(len(store.undelivered(9)), "refused" in tracker.status.detail)
    """
    status, out, err = ended(start_scenario(body, str(workspace.root)))
    assert (status, out, err.count("\n")) == (0, "1 True\n", 1)


def test_at_a_terminal_no_key_is_asked_for(workspace: Workspace) -> None:
    body = """
    store.save(trace_of(1))
    tracker = open_tracker(TrackingSettings(wandb=sys.argv[2]), workspace, store, {})
    tracker.close(60)
    print("mode is", tracker.status.mode)
    """
    opened = []
    for mode in ("auto", "online"):
        terminal, inside = pty.openpty()
        command = scenario(body, str(workspace.root / mode), mode)
        process = subprocess.Popen(
            command, stdin=inside, stdout=inside, stderr=inside, cwd=ROOT, env=environment()
        )
        os.close(inside)
        opened.append((terminal, process))
    (auto, _), (online, _) = shown = [(read_terminal(terminal, WAIT_S), terminal) for terminal, _ in opened]
    for (_, terminal), (_, process) in zip(shown, opened, strict=True):
        os.close(terminal)
        assert process.wait(WAIT_S) == 0
    assert auto == "mode is offline\r\n"
    assert online.endswith("mode is failed\r\n")
    assert "tracking of the traces has stopped" in online
    assert online.count("\n") == 2


def read_terminal(terminal: int, seconds: float) -> str:
    shown, end = b"", time.monotonic() + seconds
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                piece = os.read(terminal, 4096)
            except OSError:  # Linux says so when the other end is closed.
                break
            if not piece:
                break
            shown += piece
    return shown.decode()


def test_wandbs_own_mode_counts_in_auto(workspace: Workspace) -> None:
    body = """
    store.save(trace_of(1))
    tracker = open_tracker(TrackingSettings(), workspace, store, {})
    tracker.close(60)
    print(tracker.status.mode, len(store.undelivered(9)))
    """
    off = start_scenario(body, str(workspace.root / "a"), WANDB_MODE="disabled")
    offline = start_scenario(body, str(workspace.root / "b"), WANDB_MODE="offline", WANDB_API_KEY="a" * 40)
    assert ended(off) == (0, "off 1\n", "")
    assert ended(offline) == (0, "offline 0\n", "")


def test_a_key_of_the_wrong_form_is_told_and_not_asked_again(
    workspace: Workspace,
    store: TraceStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "short")
    store.save(trace_of(1))
    tracker = started(workspace, store, TrackingSettings())
    assert "WANDB_API_KEY" in failed(tracker, caplog, capfd).detail


def test_a_folder_that_cannot_be_written_is_told_in_one_sentence(
    workspace: Workspace, store: TraceStore, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    workspace.wandb.write_text("here first", encoding="utf-8")
    store.save(trace_of(1))
    tracker = started(workspace, store)
    assert f"W&B cannot write to {workspace.wandb}: " in failed(tracker, caplog, capfd).detail


def test_a_mode_that_wandb_does_not_have_is_told_with_those_it_has(workspace: Workspace) -> None:
    body = """
    store.save(trace_of(1))
    tracker = open_tracker(TrackingSettings(), workspace, store, {})
    tracker.close(60)
    print(tracker.status.detail)
    """
    status, output, _ = ended(start_scenario(body, str(workspace.root), WANDB_MODE="garbage"))
    assert status == 0
    assert output.startswith("WANDB_MODE is invalid: Input should be 'online', 'offline'")


def test_closing_takes_no_longer_than_it_may_when_wandb_hangs(
    workspace: Workspace, store: TraceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = threading.Event()
    real = wandb_day.trace_values

    def hang(trace: Trace) -> dict[str, Any]:
        free.wait(WAIT_S)
        return real(trace)

    monkeypatch.setattr(wandb_day, "trace_values", hang)
    store.save(trace_of(1))
    tracker = started(workspace, store)
    wait_for(lambda: tracker.status.run_path)
    begun = time.monotonic()
    tracker.close(0.5)
    assert time.monotonic() - begun < 1.5
    assert tracker.status.mode == "failed"
    free.set()
    wait_for(lambda: store.undelivered(9) == (trace_of(1).id,))


def test_closing_twice_or_without_a_start_is_harmless(workspace: Workspace, store: TraceStore) -> None:
    WandbTracker(OFFLINE, workspace, store, {}).close(1)
    tracker = started(workspace, store)
    tracker.close(5)
    tracker.close(5)
