"""Progress on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from rag.tracing.figures import counted
from ui.commands._terminal_text import note

if TYPE_CHECKING:
    from rag.indexing.ingest_report import IngestProgress

Progress = TypeVar("Progress")

LINE_EVERY_S = 5.0


@contextmanager
def shown_progress(
    describe: Callable[[Progress], str],
    extent: Callable[[Progress], tuple[float, float | None]],
    is_last: Callable[[Progress], bool] = lambda _: False,
) -> Iterator[Callable[[Progress], None]]:
    """Yield a function that shows the progress it is called with.

    Args:
        describe: Puts progress into words.
        extent: Returns how much is done, and of how much; None if that is unknown.
        is_last: Whether progress is printed although the last line is less than ``LINE_EVERY_S`` old.
    """
    if not sys.stderr.isatty():
        last = time.monotonic()
        printed = False
        waiting: Progress | None = None

        def print_line(now: Progress) -> None:
            nonlocal last, printed, waiting
            waiting = now
            if time.monotonic() - last >= LINE_EVERY_S or is_last(now):
                last = time.monotonic()
                printed, waiting = True, None
                note(describe(now))

        yield print_line
        # The last line has the final figures.
        if printed and waiting is not None:
            note(describe(waiting))
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(bar_width=24), TextColumn("{task.description}", markup=False))
    with Bar(*columns, console=Console(stderr=True, highlight=False), transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def move_bar(now: Progress) -> None:
            done, total = extent(now)
            bar.update(task, description=describe(now), completed=done, total=total)

        yield move_bar


@contextmanager
def ingest_progress() -> Iterator[Callable[[IngestProgress], None]]:
    """Yield the function that an ingestion calls with its progress."""
    started = time.monotonic()

    def elapsed(now: IngestProgress) -> tuple[float, float | None]:
        # By time and not by files: one file may have a thousand pages.
        passed = time.monotonic() - started
        return passed, None if now.seconds_left is None else passed + now.seconds_left

    with shown_progress(describe, elapsed) as show:
        yield show


def describe(now: IngestProgress) -> str:
    """Return ``12/40 files, 812 passages, 96 passages/s, 0:41 left``."""
    parts = [f"{now.files_done:,}/{now.files_total:,} files", counted(now.passages, "passage")]
    if now.passages:
        parts.append(f"{now.passages_per_s:,.0f} passages/s")
    if now.seconds_left:
        parts.append(f"{clock(now.seconds_left)} left")
    return ", ".join(parts)


def clock(duration_s: float) -> str:
    """Return ``0:41`` or ``1:02:03``."""
    minutes, seconds = divmod(round(duration_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
