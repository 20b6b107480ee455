"""``ragsmith eval``: answer a dataset in several ways, and say which is better and how sure that is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ui.commands._app import command_app
from ui.commands._console import open_console
from ui.commands._runs import as_json, chosen_run, json_option, print_summary, which, work
from ui.commands._terminal_text import counted, moment, note, one_line, print_json
from ui.commands.eval_compare_command import compare, gate, pairs, report
from ui.commands.eval_reading_command import reading
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from rag.evaluation.run_store import Run
    from ui.app.evaluations import Evaluations

STOPPED = 130
LISTED = 30


@click.group()
def command() -> None:
    """Measure the parts against known answers."""


for _each in (reading, compare, pairs, report, gate):
    command.add_command(_each)


@command.command("run")
@click.argument("dataset")
@click.option(
    "--variant",
    "variants",
    multiple=True,
    metavar="'NAME: SETTING=VALUE …'",
    help="A way to answer, such as 'brief: answer.style=brief retrieval.k=3'; the first one is the baseline. "
    "Without any, the settings as they are.",
)
@click.option("--name", default="", help="What the run is called.")
@click.option("--corpus", default="", help="The corpus that is asked; by default that of the settings.")
@click.option("--judge", default="", metavar="MODEL", help="A model that judges: openai:NAME, local:PATH-OR-NAME.")
@click.option(
    "--at-once",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="Questions at a time; 1 for latencies as one person sees them.",
)
@click.option("--fresh", is_flag=True, help="Ask anew what was answered before.")
@json_option
@pass_context
def run_command(
    context: Context,
    dataset: str,
    variants: tuple[str, ...],
    name: str,
    corpus: str,
    judge: str,
    at_once: int,
    fresh: bool,
    json_wanted: bool,
) -> None:
    """Answer every case of DATASET (NAME or NAME@VERSION) in every way, and show the table.

    Ctrl-C stops it; `ragsmith eval resume` goes on.
    """
    from rag.evaluation.variants import parse_variant

    chosen = [parse_variant(text) for text in variants or ("baseline:",)]
    with command_app(context) as app:
        evaluations = app.evaluations
        run = evaluations.begin(dataset, chosen, name=name, corpus=corpus, judge=judge, at_once=at_once)
        note(f"Run {run.id}: {one_line(run.name)}, over {run.dataset}@{run.dataset_version}")
        _finish(evaluations, run, fresh, json_wanted)


@command.command()
@which
@click.option("--fresh", is_flag=True, help="Ask anew what was answered before.")
@json_option
@pass_context
def resume(context: Context, run: str | None, fresh: bool, json_wanted: bool) -> None:
    """Go on with a RUN that was stopped or killed; by default the newest one.

    What is answered is not asked again; what failed is.
    """
    with command_app(context) as app:
        evaluations = app.evaluations
        _finish(evaluations, evaluations.resume(chosen_run(evaluations, run).id), fresh, json_wanted)


@command.command("list")
@click.option("--limit", type=click.IntRange(1), default=LISTED, show_default=True, help="At most so many.")
@json_option
@pass_context
def list_command(context: Context, limit: int, json_wanted: bool) -> None:
    """List the runs, newest first."""
    from rich.table import Table

    with command_app(context) as app:
        evaluations = app.evaluations
        runs = evaluations.runs.list()
        if json_wanted:
            for run in runs[:limit]:
                print_json(_listed(evaluations, run))
            return
        if not runs:
            note("There is no run yet: `ragsmith eval run DATASET` begins one.")
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("run", "started", "status", "dataset", "answers", "name"):
            table.add_column(title)
        for run in runs[:limit]:
            table.add_row(
                run.id,
                moment(run.started),
                run.status,
                f"{run.dataset}@{run.dataset_version}",
                f"{evaluations.runs.count(run.id):,}",
                one_line(run.name),
            )
        open_console().print(table)
        if len(runs) > limit:
            note(f"{counted(len(runs) - limit, 'older run')} not shown: --limit {len(runs)} shows all.")


@command.command()
@which
@click.option("--baseline", default="", metavar="VARIANT", help="What the others are compared with.")
@json_option
@click.option("--cells", is_flag=True, help="With --json: a line for every answer, in place of the table.")
@pass_context
def show(context: Context, run: str | None, baseline: str, json_wanted: bool, cells: bool) -> None:
    """Show the table of a RUN, by default the newest one."""
    if cells and not json_wanted:
        raise click.UsageError("--cells goes with --json.")
    with command_app(context) as app:
        evaluations = app.evaluations
        chosen = chosen_run(evaluations, run)
        if cells:
            for cell in evaluations.answers(chosen):
                print_json(cell)
            return
        summary = evaluations.summary(chosen, evaluations.variant_of(chosen, baseline) if baseline else 0)
        if json_wanted:
            print_json(as_json(summary))
        else:
            print_summary(summary)


@command.command()
@which
@pass_context
def delete(context: Context, run: str | None) -> None:
    """Remove a RUN and its answers; the traces stay."""
    with command_app(context) as app:
        evaluations = app.evaluations
        if run is None:
            raise click.UsageError("Name the run to remove.")
        chosen = evaluations.runs.get(run)
        evaluations.runs.delete(chosen.id)
        note(f"Removed {chosen.id}.")


def _finish(evaluations: Evaluations, run: Run, fresh: bool, json_wanted: bool) -> None:
    """Work on a run, and show its table; the exit status tells whether it came to its end."""
    status = work(evaluations, run, fresh=fresh)
    ended = evaluations.runs.get(run.id)
    summary = evaluations.summary(ended)
    if json_wanted:
        print_json(as_json(summary))
    else:
        print_summary(summary)
    if status == "stopped":
        note(f"Stopped: `ragsmith eval resume {run.id}` goes on.")
        raise click.exceptions.Exit(STOPPED)
    if status == "failed":
        raise click.ClickException(one_line(f"One answer after the other failed: {ended.error}"))


def _listed(evaluations: Evaluations, run: Run) -> dict[str, object]:
    return {
        "run": run.id,
        "name": run.name,
        "started": run.started,
        "status": run.status,
        "dataset": f"{run.dataset}@{run.dataset_version}",
        "variants": [variant.name for variant in run.plan.variants],
        "answers": evaluations.runs.count(run.id),
    }
