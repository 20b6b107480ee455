"""A training's process: starting it, and following it on stderr."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

from ui.commands._progress import clock
from ui.commands._terminal_text import note

if TYPE_CHECKING:
    from finetune.run_folder import RunFolder, Status

POLL_S = 0.5
LINE_EVERY_S = 15.0
# Importing torch and taking the lock takes seconds; a process that has not by then never will.
START_S = 60.0


def launch(run: RunFolder) -> None:
    """Start the process that trains; it outlives this one.

    Raises:
        TuningError: It ends before it has begun.
    """
    from rag.errors import TuningError

    run.clear_stop()
    with (run.path / "log.txt").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own module and paths
            [sys.executable, "-m", "finetune.worker", str(run.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            # W&B leaves the address of its service there; a service that has ended would be asked in vain.
            env={name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"},
        )
    # Whoever lives as long as it does not keep it as a zombie.
    threading.Thread(target=process.wait, name="training", daemon=True).start()
    until = time.monotonic() + START_S
    try:
        while not run.is_active and process.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
    except KeyboardInterrupt:
        # It has a session of its own, and would go on without anybody.
        run.request_stop()
        raise
    if process.poll() not in (None, 0) and run.status.state != "failed":
        raise TuningError("The training does not start.", fix=f"{run.path / 'log.txt'} says why.")


def follow(run: RunFolder) -> Status:
    """Tell how a run goes until it ends; Ctrl-C asks it to stop.

    Returns:
        The last status.
    """
    asked = False
    told_at = 0.0
    note(f"{run.name}: {run.path}")
    while True:
        try:
            if not run.is_active:
                break
            now = run.status
            if time.monotonic() - told_at >= (POLL_S if sys.stderr.isatty() else LINE_EVERY_S):
                told_at = time.monotonic()
                _tell(f"{now.state}: {pace_of(now)}" + (", stopping" if asked else ""))
            time.sleep(POLL_S)
        except KeyboardInterrupt:
            asked = True
            run.request_stop()
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    return run.status


def pace_of(now: Status) -> str:
    """``questions 120/840, loss 1.2345, 0:41 left``."""
    if not now.steps:
        return "reading the data" if now.state == "preparing" else ""
    parts = [f"{now.stage} {now.step:,}/{now.steps:,}"]
    if now.loss is not None and now.state == "running":
        parts.append(f"loss {now.loss:.4f}")
    if now.left_s is not None:
        parts.append(f"{clock(now.left_s)} left")
    return ", ".join(parts)


def _tell(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[2K{text}")
        sys.stderr.flush()
    else:
        note(text)
