"""How far an ingestion is, on stderr: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ui.commands._terminal_text import counted, note

if TYPE_CHECKING:
    from rag.indexing.ingestion import IngestProgress

LINE_EVERY_S = 5.0


@contextmanager
def progress() -> Iterator[Callable[[IngestProgress], None]]:
    """What an ingestion is to call with its progress."""
    if sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _lines()


def told(now: IngestProgress) -> str:
    """``12/40 files, 812 passages, 96 passages/s, 0:41 left``."""
    parts = [f"{now.files_done:,}/{now.files_total:,} files", counted(now.passages, "passage")]
    if now.passages:
        parts.append(f"{now.passages_per_s:,.0f} passages/s")
    if now.seconds_left is not None:
        parts.append(f"{clock(now.seconds_left)} left")
    return ", ".join(parts)


def clock(duration_s: float) -> str:
    """``0:41``, ``1:02:03``."""
    minutes, seconds = divmod(round(duration_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _lines() -> Callable[[IngestProgress], None]:
    last = time.monotonic()

    def show(now: IngestProgress) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EVERY_S:
            last = time.monotonic()
            note(told(now))

    return show


@contextmanager
def _bar() -> Iterator[Callable[[IngestProgress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True, highlight=False)
    columns = (BarColumn(bar_width=24), TextColumn("{task.description}", markup=False))
    started = time.monotonic()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("reading", total=None)

        def show(now: IngestProgress) -> None:
            # By time and not by files: a file of a thousand pages is one of many.
            passed = time.monotonic() - started
            total = None if now.seconds_left is None else passed + now.seconds_left
            bar.update(task, description=told(now), completed=passed, total=total)

        yield show
