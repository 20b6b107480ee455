"""Starting a training process, and following it on stderr."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ui.commands._progress import clock
from ui.commands._terminal_text import note

if TYPE_CHECKING:
    from finetune.run_folder import RunFolder, Status

POLL_S = 0.5
LINE_EVERY_S = 15.0
# Importing torch and acquiring the lock takes seconds; a process that needs longer has failed.
START_S = 60.0


def launch(run: RunFolder, config: Path | None) -> None:
    """Start a training process, which outlives this one.

    Args:
        run: The run.
        config: The settings file that was named.

    Raises:
        TuningError: The process ends before the training has begun.
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
            env=_environment(config),
        )
    # Reaps the process if this one outlives it.
    threading.Thread(target=process.wait, name="training", daemon=True).start()
    until = time.monotonic() + START_S
    try:
        while not run.is_active and process.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
    except KeyboardInterrupt:
        # It has its own session, so Ctrl-C does not reach it.
        run.request_stop()
        raise
    if process.poll() not in (None, 0) and run.status.state != "failed":
        raise TuningError("The training did not start.", fix=f"See {run.path / 'log.txt'}.")


def _environment(config: Path | None) -> dict[str, str]:
    from rag.settings import CONFIG_VARIABLE

    # W&B leaves the address of its service there, which may have ended by now.
    found = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    return found | ({CONFIG_VARIABLE: str(config.resolve())} if config else {})


def follow(run: RunFolder) -> Status:
    """Print the progress of a run until it ends; Ctrl-C asks it to stop.

    Returns:
        The last status.
    """
    asked = False
    printed_at = 0.0
    note(f"{run.name}: {run.path}")
    while True:
        try:
            if not run.is_active:
                break
            now = run.status
            if time.monotonic() - printed_at >= (POLL_S if sys.stderr.isatty() else LINE_EVERY_S):
                printed_at = time.monotonic()
                shown = ": ".join(part for part in (now.state, pace_of(now)) if part)
                _print_status(shown + (", stopping" if asked else ""))
            time.sleep(POLL_S)
        except KeyboardInterrupt:
            asked = True
            run.request_stop()
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    return run.status


def pace_of(now: Status) -> str:
    """Return ``questions 120/840, loss 1.2345, 0:41 left``."""
    if not now.steps:
        return "reading the data" if now.state == "preparing" else ""
    parts = [f"{now.stage} {now.step:,}/{now.steps:,}"]
    if now.loss is not None and now.state == "running":
        parts.append(f"loss {now.loss:.4f}")
    if now.left_s is not None:
        parts.append(f"{clock(now.left_s)} left")
    return ", ".join(parts)


def _print_status(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[2K{text}")
        sys.stderr.flush()
    else:
        note(text)
