"""``ragsmith tune``: train, follow, stop and resume an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ui.commands._console import open_console
from ui.commands._prediction_text import print_predictions, print_samples
from ui.commands._recipe_options import changed_text, data_folder, data_option, recipe_options
from ui.commands._terminal_text import note, print_json
from ui.commands._training import follow, launch, pace_of
from ui.commands.tune_compare_command import compare
from ui.commands.tune_predict_command import predict
from ui.commands.tune_prepare_command import prepare
from ui.commands.tune_sweep_command import sweep
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from finetune.recipe_changes import RecipeChanges
    from finetune.run_folder import RunFolder

_STYLES = {"done": "green", "running": "cyan", "preparing": "cyan", "failed": "bold red"}


@click.group()
def command() -> None:
    """Train adapters.

    RUN is the name of a run, or that of an adapter for its newest run.
    """


command.add_command(prepare)
command.add_command(predict)
command.add_command(sweep)
command.add_command(compare)


detach = click.option("--detach", is_flag=True, help="Do not wait; `ragsmith tune status` shows the progress.")
which = click.argument("run", metavar="[RUN]", required=False)


@command.command("run")
@click.argument("recipe")
@data_option
@click.option(
    "--to",
    "target",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Copy the result there when the run is done, replacing what is there.",
)
@click.option(
    "--resume",
    "resumes",
    is_flag=True,
    help="Continue the newest run of the same recipe, start and data, or only copy its result if it is done. "
    "Without such a run, begin one.",
)
@click.option("--dry-run", is_flag=True, help="Show the data, the first batch and the estimate, and do not train.")
@recipe_options
@detach
@pass_context
def run_command(context: Context, /, recipe: str, data: str, changes: RecipeChanges, **options: Any) -> None:
    """Train an adapter by RECIPE in a separate process.

    RECIPE is a TOML file, or the name of a shipped recipe. Ctrl-C stops it after a checkpoint, from which
    `ragsmith tune resume` continues.
    """
    from finetune.measured_run import new_measured_run
    from finetune.run_folder import RESULT, new_run, run_like
    from rag.workspace import open_workspace

    workspace = open_workspace(context.settings.home)
    parsed, text = changed_text(recipe, changes, workspace)
    target: Path | None = options["target"]
    if target is not None and (options["detach"] or options["dry_run"]):
        raise click.UsageError("--to cannot be combined with --detach or --dry-run: it needs the end of the run.")
    folder = data_folder(data, workspace)
    tracking = context.settings.tracking
    if options["dry_run"]:
        _preview(context, new_measured_run(workspace, parsed, text, folder, tracking))
        return
    resumed = run_like(workspace.runs, parsed, text, folder) if options["resumes"] else None
    run = resumed or new_run(workspace.runs, parsed, text, folder, tracking)
    _work(context, run, options["detach"], "The same command with --resume" if target is not None else None)
    if target is not None:
        from finetune.adapter_card import copy_result

        copy_result(run.path / RESULT, target)
        click.echo(f"Copied to {target}")


def _preview(context: Context, run: RunFolder) -> None:
    """Show what a run would do, and delete it."""
    import shutil

    from finetune.training_preview import read_preview
    from ui.commands._preview_text import print_preview

    try:
        launch(run, context.config, preview=True)
        end = follow(run)
        preview = read_preview(run.path)
    finally:
        if not run.is_active:
            shutil.rmtree(run.path, ignore_errors=True)
    if end.state == "failed":
        raise click.ClickException(end.message)
    if preview is None:
        raise click.ClickException(f"The recipe {run.name} has no preview: it does not learn replies.")
    print_preview(preview)


@command.command()
@which
@detach
@pass_context
def resume(context: Context, run: str | None, detach: bool) -> None:
    """Continue RUN, by default the newest, from its last checkpoint."""
    _work(context, _find(context, run), detach)


@command.command()
@which
@pass_context
def stop(context: Context, run: str | None) -> None:
    """Stop RUN, by default the newest, after a checkpoint."""
    found = _find(context, run)
    if not found.is_active:
        note(f"{found.name} is not running.")
        return
    found.request_stop()
    note(f"{found.name} will stop after a checkpoint; `ragsmith tune resume {found.name}` continues it.")


@command.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list with one object per run.")
@pass_context
def status(context: Context, as_json: bool) -> None:
    """List the runs, newest first."""
    from dataclasses import asdict

    from finetune.run_folder import all_runs
    from rag.workspace import open_workspace

    runs = all_runs(open_workspace(context.settings.home).runs)
    if as_json:
        print_json([{"run": run.name, **asdict(run.status)} for run in runs], indent=2)
        return
    if not runs:
        note("There are no runs yet. Start one with `ragsmith tune run RECIPE --data FOLDER`.")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in ("run", "state", "progress", "loss"):
        table.add_column(column)
    for run in runs:
        now = run.status
        loss = f"{now.loss:.4f}" if now.loss is not None else ""
        progress = now.message if now.state == "failed" else pace_of(now)
        state = Text(now.state, style=_STYLES.get(now.state, "yellow"))
        table.add_row(Text(run.name), state, Text(progress), loss)
    open_console().print(table)


@command.command()
@which
@click.option("--json", "as_json", is_flag=True, help="Print status, curve and card as one JSON object.")
@pass_context
def show(context: Context, run: str | None, as_json: bool) -> None:
    """Show the metrics of RUN, by default the newest, and its result."""
    from dataclasses import asdict

    from finetune.run_folder import RESULT
    from rag.encoders.adapters import read_adapter

    found = _find(context, run)
    curve = list(found.points())
    result = found.path / RESULT
    card = read_adapter(result).card if result.is_dir() else None
    if as_json:
        print_json(
            {
                "run": found.name,
                "status": asdict(found.status),
                "curve": [asdict(step) for step in curve],
                "card": card.model_dump() if card else None,
                "predictions": [asdict(one) for one in found.predictions()],
                "folder": str(found.path),
            },
            indent=2,
        )
        return
    click.echo(f"{found.name}: {found.status.state}, {pace_of(found.status)}")
    for step in curve:
        if step.figures:
            metrics = "  ".join(f"{name} {value:.4f}" for name, value in step.figures.items())
            click.echo(
                f"  {step.stage} {step.step}/{step.steps}  training loss {step.loss:.4f}  validation {metrics}"
            )
    print_samples(curve)
    if card is None:
        return
    click.echo(f"\n{result}: rank {card.rank} on {card.base}")
    for name, value in card.figures.items():
        click.echo(f"  {name} {value:.4f}" if isinstance(value, float) else f"  {name} {value}")
    print_predictions(found.predictions())
    click.echo("Licences of the data: " + ("; ".join(card.licences) or "not stated"))


def _find(context: Context, name: str | None) -> RunFolder:
    from finetune.run_folder import find_run
    from rag.workspace import open_workspace

    return find_run(open_workspace(context.settings.home).runs, name)


def _work(context: Context, run: RunFolder, detach: bool, again: str | None = None) -> None:
    """Start a run, unless it is done or active, and follow it.

    Args:
        context: Names the settings file.
        run: The run.
        detach: Whether to leave it to itself.
        again: The command that continues it after a stop; by default ``ragsmith tune resume``.
    """
    if run.status.state == "done":
        note(f"{run.name} is done: {run.path / 'result'}")
        return
    if run.is_active:
        note(f"{run.name} is running already.")
    else:
        launch(run, context.config)
    if detach:
        note(f"{run.name} has started; `ragsmith tune status` shows the progress.")
        return
    end = follow(run)
    if end.state == "failed":
        raise click.ClickException(end.message)
    if end.state == "done":
        click.echo(f"Done: {run.path / 'result'}")
    else:
        note(f"Stopped. {again or f'`ragsmith tune resume {run.name}`'} continues it.")
        raise click.exceptions.Exit(130)
