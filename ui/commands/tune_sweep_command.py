"""``ragsmith tune sweep``: train with many values, and see which of them matter."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ui.commands._comparison_text import print_results
from ui.commands._recipe_options import changed_text, data_folder, data_option, recipe_options
from ui.commands._runs import STOPPED
from ui.commands._terminal_text import note, unpaired
from ui.commands._training import LINE_EVERY_S, POLL_S, pace_of, print_status
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from finetune.recipe_changes import RecipeChanges
    from finetune.sweeps.sweep_folder import Sweep
    from finetune.sweeps.sweep_work import SweepProgress
    from rag.workspace import Workspace


@click.command()
@click.argument("recipe")
@data_option
@click.option(
    "--set",
    "settings",
    metavar="FIELD=VALUES",
    multiple=True,
    help="What to try: rank=4,8,16, a range such as dropout=0..0.2, or learning_rate=1e-5..1e-3:log with values "
    "evenly by their logarithm. May be repeated.",
)
@click.option(
    "--space",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help='A TOML file with what to try, such as rank = [4, 8, 16] and learning_rate = "1e-5..1e-3:log".',
)
@click.option(
    "--method",
    type=click.Choice(["tpe", "random", "grid"]),
    default="tpe",
    show_default=True,
    help="How values are chosen: from what earlier trials came to, by chance, or all combinations.",
)
@click.option(
    "--trials",
    type=click.IntRange(1, 1000),
    help="The number of trainings; by default 20, and for a grid all combinations.",
)
@click.option(
    "--startup",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="The number of trials at the beginning that are never pruned, and that tpe chooses by chance.",
)
@click.option("--no-prune", is_flag=True, help="Train all of them to the end.")
@click.option(
    "--seed", type=click.IntRange(0), default=1, show_default=True, help="The same seed chooses the same values."
)
@recipe_options
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object.")
@pass_context
def sweep(context: Context, /, recipe: str, data: str, changes: RecipeChanges, **options: Any) -> None:
    """Train by RECIPE with many values of some fields.

    One training follows the other. A training whose validation loss is above the median of the earlier ones at
    the same step is pruned: it ends early. After Ctrl-C or a crash, the same command continues, and so it does
    with more --trials. The trials are runs named NAME-000, NAME-001 and so on.
    """
    from finetune.sweeps.sweep_folder import begin_sweep
    from finetune.sweeps.sweep_results import read_results
    from finetune.sweeps.sweep_work import SweepWork
    from rag.workspace import open_workspace
    from ui.commands._training import launch

    workspace = open_workspace(context.settings.home)
    wanted = _sweep(recipe, data, changes, options, workspace)
    folder = begin_sweep(workspace.runs, wanted)
    with _stop_signal() as stop:
        work = SweepWork(
            folder, context.settings.tracking, lambda run: launch(run, context.config), stop, _Following()
        )
        finished = work.run()
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    print_results(read_results(folder), as_json=options["as_json"])
    if not finished:
        note("Stopped. The same command continues it.")
        raise click.exceptions.Exit(STOPPED)


def _sweep(recipe: str, data: str, changes: RecipeChanges, options: dict[str, Any], workspace: Workspace) -> Sweep:
    """Return what is to be tried, after checking everything that a training would stumble over."""
    from finetune.sweeps.search_space import joined
    from finetune.sweeps.sweep_plan import SweepOptions, plan_sweep

    space = joined([unpaired(text) for text in options["settings"]], options["space"])
    parsed, _ = changed_text(recipe, changes, workspace)
    wanted = SweepOptions(
        name=changes.name or "",
        method=options["method"],
        trials=options["trials"],
        startup=options["startup"],
        seed=options["seed"],
        prune=not options["no_prune"],
    )
    return plan_sweep(parsed, data_folder(data, workspace), space, wanted, workspace.models)


class _Following:
    """Prints how a sweep goes on stderr."""

    def __init__(self) -> None:
        self._run = ""
        self._printed_at = 0.0

    def __call__(self, now: SweepProgress) -> None:
        from finetune.run_comparison import written

        terminal = sys.stderr.isatty()
        if now.run != self._run:
            if terminal and self._run:
                sys.stderr.write("\n")
            self._run = now.run
            values = ", ".join(f"{name} {written(value)}" for name, value in now.values.items())
            note(f"{now.number}/{now.trials} {now.run}: {values}")
        if time.monotonic() - self._printed_at >= (POLL_S if terminal else LINE_EVERY_S):
            self._printed_at = time.monotonic()
            print_status(": ".join(part for part in (now.status.state, pace_of(now.status)) if part))


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C or SIGTERM sets; the second one ends the process as usual."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def leave(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])
        note("Stopping after a checkpoint; again to stop at once.")

    for number in before:
        signal.signal(number, leave)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
