"""``ragsmith eval``: answer a dataset with several variants, and show which is better and how surely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from rag.tracing.figures import counted
from ui.commands._app import command_app
from ui.commands._console import print_table
from ui.commands._runs import (
    announce_models,
    chosen_run,
    finish,
    json_option,
    print_summary,
    summary_as_json,
    which,
)
from ui.commands._terminal_text import moment, note, one_line, print_json
from ui.commands.eval_compare_command import compare, gate, pairs, report
from ui.commands.eval_reading_command import reading
from ui.commands.eval_replay_command import replay
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from rag.evaluation.run_store import Run
    from ui.app.evaluations import Evaluations

LISTED = 30


@click.group()
def command() -> None:
    """Measure the parts against known answers."""


for _subcommand in (reading, compare, pairs, report, gate, replay):
    command.add_command(_subcommand)


@command.command("run")
@click.argument("dataset")
@click.option(
    "--variant",
    "variants",
    multiple=True,
    metavar="'NAME: SETTING=VALUE …'",
    help="A variant, such as 'brief: answer.style=brief retrieval.k=3'; can be repeated. The first is the "
    "baseline; by default the settings as they are.",
)
@click.option("--name", default="", metavar="NAME", help="The name of the run.")
@click.option("--corpus", default="", metavar="NAME", help="The corpus; by default the one in the settings.")
@click.option(
    "--judge",
    default="",
    metavar="MODEL",
    help="The model that judges the answers: openai:NAME or local:PATH-OR-NAME.",
)
@click.option(
    "--at-once",
    "concurrency",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="Questions answered at the same time; 1 measures the latency of a single user.",
)
@click.option("--fresh", is_flag=True, help="Do not take answers from the cache.")
@json_option
@pass_context
def run_command(context: Context, /, **options: Any) -> None:
    """Answer every case of DATASET with every variant.

    DATASET is NAME or NAME@VERSION. The table of metrics is shown at the end. Ctrl-C stops it; `ragsmith eval
    resume` continues it.
    """
    from rag.evaluation.variants import parse_variant

    wanted = _RunOptions(**options)
    variants = [parse_variant(text) for text in wanted.variants or ("baseline:",)]
    with command_app(context) as app:
        announce_models(app.settings, app.models, variants)
        run = app.evaluations.begin(
            wanted.dataset,
            variants,
            name=wanted.name,
            corpus=wanted.corpus,
            judge=wanted.judge,
            concurrency=wanted.concurrency,
        )
        note(f"Run {run.id}: {one_line(run.name)}, over {run.dataset}@{run.dataset_version}")
        finish(app.evaluations, run, wanted.fresh, wanted.json_wanted)


@dataclass(frozen=True, slots=True)
class _RunOptions:
    """The options of ``eval run``."""

    dataset: str
    variants: tuple[str, ...]
    name: str
    corpus: str
    judge: str
    concurrency: int
    fresh: bool
    json_wanted: bool


@command.command()
@which
@click.option("--fresh", is_flag=True, help="Do not take answers from the cache.")
@json_option
@pass_context
def resume(context: Context, run: str | None, fresh: bool, json_wanted: bool) -> None:
    """Continue a RUN that was stopped or killed, or whose answers failed.

    By default, it is the newest one. Failed questions are asked again, answered ones are not.
    """
    with command_app(context) as app:
        evaluations = app.evaluations
        chosen = chosen_run(evaluations, run)
        announce_models(app.settings, app.models, chosen.plan.variants)
        finish(evaluations, evaluations.resume(chosen.id), fresh, json_wanted)


@command.command("list")
@click.option("--limit", type=click.IntRange(1), default=LISTED, show_default=True, help="The maximum number.")
@click.option("--json", "json_wanted", is_flag=True, help="Print a JSON list with one object per run.")
@pass_context
def list_command(context: Context, limit: int, json_wanted: bool) -> None:
    """List the runs, newest first."""
    with command_app(context) as app:
        evaluations = app.evaluations
        runs = evaluations.runs.list()
        if json_wanted:
            print_json([_listed(evaluations, run) for run in runs[:limit]], indent=2)
        elif not runs:
            note("There is no run yet. Start one with `ragsmith eval run DATASET`.")
        else:
            rows = [
                (
                    run.id,
                    moment(run.started),
                    run.status,
                    f"{run.dataset}@{run.dataset_version}",
                    f"{evaluations.runs.count(run.id):,}",
                    run.name,
                )
                for run in runs[:limit]
            ]
            print_table(("run", "started", "status", "dataset", "answers", "name"), rows)
        if len(runs) > limit:
            note(f"{counted(len(runs) - limit, 'older run')} not shown: --limit {len(runs)} shows all.")


@command.command()
@which
@click.option("--baseline", default="", metavar="VARIANT", help="The variant to compare the others with.")
@json_option
@click.option("--cells", is_flag=True, help="With --json: print a line for every answer instead of the table.")
@pass_context
def show(context: Context, run: str | None, baseline: str, json_wanted: bool, cells: bool) -> None:
    """Show the table of a RUN, by default the newest one."""
    if cells and not json_wanted:
        raise click.UsageError("--cells requires --json.")
    with command_app(context) as app:
        evaluations = app.evaluations
        chosen = chosen_run(evaluations, run)
        if cells:
            for cell in evaluations.answers(chosen):
                print_json(cell)
            return
        summary = evaluations.summary(chosen, evaluations.variant_of(chosen, baseline) if baseline else 0)
        if json_wanted:
            print_json(summary_as_json(summary))
        else:
            print_summary(summary)


@command.command()
@which
@pass_context
def delete(context: Context, run: str | None) -> None:
    """Remove a RUN and its answers; the traces stay."""
    with command_app(context) as app:
        if run is None:
            raise click.UsageError("Name the run to remove.")
        runs = app.evaluations.runs
        chosen = runs.get(run)
        runs.delete(chosen.id)
        note(f"Removed {chosen.id}.")


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
