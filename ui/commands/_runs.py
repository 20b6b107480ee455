"""Evaluation runs in a terminal: following one, and its table."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from ui.commands._console import open_console
from ui.commands._progress import clock
from ui.commands._terminal_text import counted, note, one_line

if TYPE_CHECKING:
    from rag.evaluation.metric_definitions import Metric
    from rag.evaluation.run_store import Run, RunStatus
    from rag.evaluation.runner import EvaluationProgress
    from rag.evaluation.statistics import Estimate
    from rag.evaluation.summary import Summary
    from ui.app.evaluations import Evaluations

LINE_EVERY_S = 5.0

json_option = click.option("--json", "json_wanted", is_flag=True, help="Print one JSON object.")
which = click.argument("run", metavar="[RUN]", required=False)


def work(evaluations: Evaluations, run: Run, *, fresh: bool) -> RunStatus:
    """Work on a run to its end. Ctrl-C stops it after the answers that are being given, twice at once.

    Raises:
        KeyboardInterrupt: It was stopped at once.
    """

    async def followed() -> RunStatus:
        stop = asyncio.Event()
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None  # noqa: S101 - for the type checker

        def leave() -> None:
            if stop.is_set():
                task.cancel()
            stop.set()
            note("Stopping after the answers that are being given; once more stops at once.")

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, leave)
        with _progress() as show:
            return await evaluations.work(run, stop, show, fresh=fresh)

    try:
        return asyncio.run(followed())
    except asyncio.CancelledError as error:
        raise KeyboardInterrupt from error


def print_summary(summary: Summary) -> None:
    """The table of a run: a row for each measure, a column for each variant."""
    from rich.table import Table

    from rag.evaluation.metric_formatting import format_interval, format_metric

    console = open_console()
    run = summary.run
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for variant in summary.variants:
        table.add_column(one_line(variant.name), justify="right")
        table.add_column("95 %", justify="right", style="dim")
        if variant is not summary.variants[summary.baseline]:
            table.add_column("change", justify="right")
    for measure in summary.metrics:
        cells = []
        for number, variant in enumerate(summary.variants):
            figure = variant.figures.get(measure.name)
            estimate = figure.estimate if figure else None
            cells += [
                format_metric(measure, estimate.value if estimate else None),
                format_interval(measure, estimate),
            ]
            if number != summary.baseline:
                cells.append(change_cell(measure, figure.change if figure else None))
        table.add_row(measure.title, *cells)
    console.print(table)
    for variant in summary.variants:
        parts = [f"{variant.done:,} of {counted(summary.size, 'case')}"]
        parts += [f"{variant.cached:,} from the cache"] if variant.cached else []
        parts += [f"{variant.failed:,} failed"] if variant.failed else []
        console.print(f"{one_line(variant.name)}: {', '.join(parts)}", style="dim")
    if run.status != "finished":
        console.print(f"This run is {run.status}: the figures are of what is there.", style="yellow")


def as_json(summary: Summary) -> dict[str, Any]:
    """The same for a program."""
    from dataclasses import asdict

    run = summary.run
    return {
        "run": run.id,
        "name": run.name,
        "status": run.status,
        "dataset": f"{run.dataset}@{run.dataset_version}",
        "dataset_sha256": run.dataset_sha256,
        "cases": summary.size,
        "baseline": summary.variants[summary.baseline].name,
        "variants": [
            {
                "name": variant.name,
                "changes": dict(variant.changes),
                "done": variant.done,
                "cached": variant.cached,
                "failed": variant.failed,
                "figures": {name: asdict(figure) for name, figure in variant.figures.items()},
            }
            for variant in summary.variants
        ],
    }


def change_cell(measure: Metric, change: Estimate | None) -> Any:
    """A difference with its sign: surely better, surely worse, or neither."""
    from rich.text import Text

    from rag.evaluation.metric_formatting import format_change, is_better

    if change is None:
        return ""
    sure = is_better(measure, change)
    style = {True: "green", False: "red", None: "dim"}[sure]
    return Text(format_change(measure, change) + {True: " ▲", False: " ▼", None: " ·"}[sure], style=style)


def chosen_run(evaluations: Evaluations, run: str | None) -> Run:
    """The run that is named, else the newest one.

    Raises:
        EvaluationError: There is none.
    """
    from rag.errors import EvaluationError

    newest = evaluations.runs.list(1)
    if run is not None:
        return evaluations.runs.get(run)
    if not newest:
        raise EvaluationError("There is no run yet.", fix="`ragsmith eval run DATASET` begins one.")
    return newest[0]


def _told(now: EvaluationProgress) -> str:
    parts = [f"{now.done:,}/{now.total:,} answers"]
    parts += [f"{now.cached:,} from the cache"] if now.cached else []
    parts += [f"{now.failed:,} failed"] if now.failed else []
    parts += [f"{clock(now.seconds_left)} left"] if now.seconds_left is not None else []
    return ", ".join(parts)


@contextmanager
def _progress() -> Iterator[Callable[[EvaluationProgress], None]]:
    """A bar on a terminal, now and then a line elsewhere."""
    if not sys.stderr.isatty():
        last = time.monotonic()

        def line(now: EvaluationProgress) -> None:
            nonlocal last
            if time.monotonic() - last >= LINE_EVERY_S or now.done == now.total:
                last = time.monotonic()
                note(_told(now))

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (BarColumn(bar_width=24), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True, highlight=False), transient=True) as bar:
        task = bar.add_task("asking", total=None)

        def show(now: EvaluationProgress) -> None:
            bar.update(task, description=_told(now), completed=now.done, total=now.total)

        yield show
