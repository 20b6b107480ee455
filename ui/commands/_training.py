"""Following a training process on stderr."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ui.commands._progress import clock
from ui.commands._terminal_text import note

if TYPE_CHECKING:
    from finetune.run_folder import RunFolder, Status

POLL_S = 0.5
LINE_EVERY_S = 15.0


def launch(run: RunFolder, config: Path | None, *, preview: bool = False) -> None:
    """Start the process of a training; see ``finetune.launching``."""
    from finetune import launching

    launching.launch(run, config, dict(os.environ), preview=preview)


def follow(run: RunFolder) -> Status:
    """Print the progress of a run until it ends; Ctrl-C asks it to stop.

    Returns:
        The last status.
    """
    from finetune.training_preview import read_preview
    from ui.commands._preview_text import print_preview

    asked = False
    printed_at = 0.0
    # That of an earlier start was printed then.
    previewed = read_preview(run.path) is not None
    note(f"{run.name}: {run.path}")
    while True:
        try:
            if not run.is_active:
                break
            now = run.status
            if not previewed and (preview := read_preview(run.path)) is not None:
                print_preview(preview, err=True)
                previewed = True
            if time.monotonic() - printed_at >= (POLL_S if sys.stderr.isatty() else LINE_EVERY_S):
                printed_at = time.monotonic()
                shown = ": ".join(part for part in (now.state, pace_of(now)) if part)
                print_status(shown + (", stopping" if asked else ""))
            time.sleep(POLL_S)
        except KeyboardInterrupt:
            asked = True
            run.request_stop()
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    return run.status


def pace_of(now: Status) -> str:
    """Return ``questions 120/840, loss 1.2345, 0:41 left``."""
    if now.activity:
        return now.activity
    if not now.steps:
        return "reading the data" if now.state == "preparing" else ""
    parts = [f"{now.stage} {now.step:,}/{now.steps:,}"]
    if now.loss is not None and now.state == "running":
        parts.append(f"loss {now.loss:.4f}")
    if now.left_s is not None:
        parts.append(f"{clock(now.left_s)} left")
    return ", ".join(parts)


def print_status(text: str) -> None:
    """Print a line on stderr, on a terminal in place of the one before."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[2K{text}")
        sys.stderr.flush()
    else:
        note(text)
