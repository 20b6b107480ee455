"""Evaluation runs in a terminal: following a run, and its table."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from rag.tracing.figures import counted, format_cost
from ui.commands._app import announce_model
from ui.commands._console import open_console
from ui.commands._progress import clock, shown_progress
from ui.commands._terminal_text import note, one_line, print_json

if TYPE_CHECKING:
    from rag.evaluation.metric_definitions import Metric
    from rag.evaluation.run_store import Run, RunStatus
    from rag.evaluation.runner import EvaluationProgress
    from rag.evaluation.statistics import Estimate
    from rag.evaluation.summary import Summary, VariantSummary
    from rag.evaluation.variants import Variant
    from rag.settings import Settings
    from ui.app.evaluations import Evaluations
    from ui.app.models import Models

STOPPED = 130
json_option = click.option("--json", "json_wanted", is_flag=True, help="Print one JSON object.")
which = click.argument("run", metavar="[RUN]", required=False)


def work(evaluations: Evaluations, run: Run, *, fresh: bool) -> RunStatus:
    """Work on a run to its end. Ctrl-C stops it after the current answers, a second one at once.

    Raises:
        KeyboardInterrupt: The run was stopped at once.
    """

    async def followed() -> RunStatus:
        stop = asyncio.Event()
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None  # noqa: S101 - for the type checker

        def leave() -> None:
            if stop.is_set():
                task.cancel()
            stop.set()
            note("Stopping after the current answers; Ctrl-C again stops at once.")

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, leave)
        with shown_progress(_describe, lambda now: (now.done, now.total), _is_complete) as show:
            return await evaluations.work(run, stop, show, fresh=fresh)

    try:
        return asyncio.run(followed())
    except asyncio.CancelledError as error:
        raise KeyboardInterrupt from error


def announce_models(settings: Settings, models: Models, variants: Sequence[Variant]) -> None:
    """Announce what the models of variants need before they answer."""
    for model in dict.fromkeys(str(variant.changes.get("model", settings.model)) for variant in variants):
        announce_model(settings.model_copy(update={"model": model}), models)


def finish(evaluations: Evaluations, run: Run, fresh: bool, json_wanted: bool) -> None:
    """Work on a run and show its table; the exit status says whether it finished."""
    status = work(evaluations, run, fresh=fresh)
    ended = evaluations.runs.get(run.id)
    summary = evaluations.summary(ended)
    if json_wanted:
        print_json(summary_as_json(summary))
    else:
        print_summary(summary)
    if status == "stopped" and ended.error:
        raise click.ClickException(one_line(f"{ended.error} `ragsmith eval resume {run.id}` continues it."))
    if status == "stopped":
        note(f"Stopped: `ragsmith eval resume {run.id}` continues it.")
        raise click.exceptions.Exit(STOPPED)
    if status == "failed":
        raise click.ClickException(one_line(f"Too many answers failed: {ended.error}"))
    if any(variant.failed for variant in summary.variants):
        note(f"Failed answers are asked again by `ragsmith eval resume {run.id}`.")


def print_summary(summary: Summary) -> None:
    """Print the table of a run, with a row for every metric and a column for every variant."""
    from rich.table import Table

    from rag.evaluation.metric_formatting import format_figure, format_interval

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
            cells += [format_figure(measure, figure), format_interval(measure, estimate)]
            if number != summary.baseline:
                cells.append(change_cell(measure, figure.change if figure else None))
        table.add_row(measure.title, *cells)
    console.print(table)
    for variant in summary.variants:
        parts = [f"{variant.done:,} of {counted(summary.size, 'case')}"]
        parts += [_from_cache(variant)] if variant.cached else []
        parts += [f"{variant.failed:,} failed"] if variant.failed else []
        console.print(f"{one_line(variant.name)}: {', '.join(parts)}", style="dim")
        if variant.error:
            console.print(f"  The first failure: {one_line(variant.error)}", style="yellow")
    if run.status != "finished":
        console.print(f"This run is {run.status}: the metrics are of the answers so far.", style="yellow")


def _from_cache(variant: VariantSummary) -> str:
    saved = "" if variant.saved_usd is None else f", which saved {format_cost(variant.saved_usd)}"
    return f"{variant.cached:,} from the cache{saved}"


def summary_as_json(summary: Summary) -> dict[str, Any]:
    """Return the table of a run for programs."""
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
                "saved_usd": variant.saved_usd,
                "failed": variant.failed,
                "error": variant.error,
                "figures": {name: asdict(figure) for name, figure in variant.figures.items()},
            }
            for variant in summary.variants
        ],
    }


def change_cell(metric: Metric, change: Estimate | None) -> Any:
    """Return a signed difference, marked as surely better, surely worse, or neither."""
    from rich.text import Text

    from rag.evaluation.metric_formatting import format_change, is_better

    if change is None:
        return ""
    sure = is_better(metric, change)
    style = {True: "green", False: "red", None: "dim"}[sure]
    return Text(format_change(metric, change) + {True: " ▲", False: " ▼", None: " ·"}[sure], style=style)


def chosen_run(evaluations: Evaluations, run: str | None) -> Run:
    """Return the named run, else the newest one.

    Raises:
        EvaluationError: There is no such run.
    """
    from rag.errors import EvaluationError

    newest = evaluations.runs.list(1)
    if run is not None:
        return evaluations.runs.get(run)
    if not newest:
        raise EvaluationError("There is no run yet.", fix="Start one with `ragsmith eval run DATASET`.")
    return newest[0]


def _describe(now: EvaluationProgress) -> str:
    parts = [f"{now.done:,}/{now.total:,} answers"]
    parts += [f"{now.cached:,} from the cache"] if now.cached else []
    parts += [f"{now.failed:,} failed"] if now.failed else []
    parts += [f"{clock(now.seconds_left)} left"] if now.seconds_left is not None else []
    parts += [f"waiting {clock(now.waiting_s)} for a server's limit"] if now.waiting_s else []
    return ", ".join(parts)


def _is_complete(now: EvaluationProgress) -> bool:
    return now.done == now.total
