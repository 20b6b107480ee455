"""``ragsmith tune compare``: trainings side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ui.commands._comparison_text import print_comparison, print_results
from ui.commands._terminal_text import note
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from finetune.run_comparison import GroupBy


@click.command()
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@click.option("--sweep", metavar="NAME", help="Compare the trials of a sweep.")
@click.option("--by", type=click.Choice(["sweep", "base", "data"]), help="Group the runs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with the curves.")
@pass_context
def compare(context: Context, runs: tuple[str, ...], sweep: str | None, by: GroupBy | None, as_json: bool) -> None:
    """Compare RUNs, or all of them, the best first.

    The hyperparameters that differ stand beside the losses. A curve shows the validation losses from the first to
    the last, on one scale for all runs.
    """
    from finetune.run_comparison import all_compared, compare_runs, compared_run
    from finetune.run_folder import find_run
    from finetune.sweeps.sweep_folder import find_sweep
    from finetune.sweeps.sweep_results import read_results
    from rag.workspace import open_workspace

    if sweep is not None and runs:
        raise click.UsageError("Name either runs or a sweep.")
    if len(set(runs)) == 1:
        raise click.UsageError("Name two runs or more; `ragsmith tune show RUN` shows one.")
    below = open_workspace(context.settings.home).runs
    if sweep is not None:
        print_results(read_results(find_sweep(below, sweep)), by, as_json=as_json)
        return
    named = [compared_run(find_run(below, name)) for name in dict.fromkeys(runs)]
    found = named or all_compared(below)
    if not found and not as_json:
        note("There are no runs yet. Start one with `ragsmith tune run RECIPE --data FOLDER`.")
        return
    print_comparison(compare_runs(found), by, as_json=as_json)
