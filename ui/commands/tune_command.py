"""``ragsmith tune``: train an adapter by a recipe, follow it, stop it, go on; export a language model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ui.commands._console import open_console
from ui.commands._terminal_text import note, print_json
from ui.commands._training import follow, launch, pace_of
from ui.commands.tune_export_command import export
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from finetune.run_folder import RunFolder

_STYLES = {"done": "green", "running": "cyan", "preparing": "cyan", "failed": "bold red"}


@click.group()
def command() -> None:
    """Train adapters, and export a language model."""


command.add_command(export)
detach = click.option("--detach", is_flag=True, help="Do not wait: `ragsmith tune status` tells how it goes.")
which = click.argument("run", metavar="[RUN]", required=False)


@command.command()
@click.argument("recipe")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="The folder of training data that the recipe's sources are in.",
)
@click.option(
    "--to",
    "target",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Copy the result there when it is done; what is there is replaced.",
)
@click.option(
    "--resume",
    "resumes",
    is_flag=True,
    help="Take up the newest run of the same recipe, start and data: one that is not done goes on, one that is "
    "done is only copied. Without one, begin it.",
)
@detach
@pass_context
def run(context: Context, recipe: str, data: Path, target: Path | None, resumes: bool, detach: bool) -> None:
    """Train by RECIPE, a TOML file or the name of one that ships, in a process of its own.

    Ctrl-C stops it after a checkpoint; `ragsmith tune resume` goes on from there.
    """
    from finetune.recipe import find_recipe, parse_recipe, read_recipe
    from finetune.run_folder import RESULT, new_run, run_like
    from rag.errors import TuningError
    from rag.workspace import open_workspace

    path = find_recipe(recipe)
    text = read_recipe(path)
    parsed = parse_recipe(text, str(path))
    if target is not None and detach:
        raise click.UsageError("--to waits for the end, and --detach does not.")
    if not data.is_dir():
        raise TuningError(f"There is no folder {data}.", fix="Name the folder of training data with --data.")
    settings = context.settings
    runs = open_workspace(settings.home).runs
    taken_up = run_like(runs, parsed, text, data) if resumes else None
    made = taken_up or new_run(runs, parsed, text, data, settings.tracking)
    _work(made, detach, "The same command with --resume" if target is not None else None)
    if target is not None:
        from finetune.adapter_card import copy_result

        copy_result(made.path / RESULT, target)
        click.echo(f"Copied to {target}")


@command.command()
@which
@detach
@pass_context
def resume(context: Context, run: str | None, detach: bool) -> None:
    """Go on with RUN, or with the newest, from its last checkpoint."""
    _work(_find(context, run), detach)


@command.command()
@which
@pass_context
def stop(context: Context, run: str | None) -> None:
    """Stop RUN, or the newest, after a checkpoint."""
    found = _find(context, run)
    if not found.is_active:
        note(f"{found.name} is not running.")
        return
    found.request_stop()
    note(f"{found.name} will stop after a checkpoint; `ragsmith tune resume {found.name}` goes on.")


@command.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each run, one a line.")
@pass_context
def status(context: Context, as_json: bool) -> None:
    """List the runs, the newest first."""
    from dataclasses import asdict

    from finetune.run_folder import all_runs
    from rag.workspace import open_workspace

    runs = all_runs(open_workspace(context.settings.home).runs)
    if as_json:
        for each in runs:
            print_json({"run": each.name, **asdict(each.status)})
        return
    if not runs:
        note("There are no runs yet. Start one with `ragsmith tune run RECIPE --data FOLDER`.")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in ("run", "state", "how far", "loss"):
        table.add_column(column)
    for each in runs:
        now = each.status
        loss = f"{now.loss:.4f}" if now.loss is not None else ""
        told = now.message if now.state == "failed" else pace_of(now)
        table.add_row(Text(each.name), Text(now.state, style=_STYLES.get(now.state, "yellow")), Text(told), loss)
    open_console().print(table)


@command.command()
@which
@click.option("--json", "as_json", is_flag=True, help="Print status, curve and card as one JSON object.")
@pass_context
def show(context: Context, run: str | None, as_json: bool) -> None:
    """Show the validation figures along RUN, or the newest, and what came of it."""
    from dataclasses import asdict

    from finetune.run_folder import RESULT
    from rag.encoders.adapters import read_adapter

    found = _find(context, run)
    points = list(found.points())
    result = found.path / RESULT
    card = read_adapter(result).card if result.is_dir() else None
    if as_json:
        told = {"run": found.name, "status": asdict(found.status), "curve": [asdict(each) for each in points]}
        print_json({**told, "card": card.model_dump() if card else None, "folder": str(found.path)}, indent=2)
        return
    click.echo(f"{found.name}: {found.status.state}, {pace_of(found.status)}")
    looked = [each for each in points if each.figures]
    for each in looked:
        figures = "  ".join(f"{name} {value:.4f}" for name, value in (each.figures or {}).items())
        click.echo(f"  {each.stage} {each.step}/{each.steps}  training loss {each.loss:.4f}  validation {figures}")
    if card is None:
        return
    click.echo(f"\n{result}: rank {card.rank} on {card.base}")
    for name, value in card.figures.items():
        click.echo(f"  {name} {value:.4f}" if isinstance(value, float) else f"  {name} {value}")
    click.echo("Licences of the data: " + "; ".join(card.licences))


def _find(context: Context, name: str | None) -> RunFolder:
    from finetune.run_folder import find_run
    from rag.workspace import open_workspace

    return find_run(open_workspace(context.settings.home).runs, name)


def _work(run: RunFolder, detach: bool, again: str | None = None) -> None:
    """Start it where it is not done and nobody works on it, and follow it.

    Args:
        run: The run.
        detach: Do not follow it.
        again: What goes on where it is stopped; by default ``ragsmith tune resume``.
    """
    if run.status.state == "done":
        note(f"{run.name} is done: {run.path / 'result'}")
        return
    if run.is_active:
        note(f"{run.name} is running already.")
    else:
        launch(run)
    if detach:
        note(f"{run.name} is on its way; `ragsmith tune status` tells how it goes.")
        return
    end = follow(run)
    if end.state == "failed":
        raise click.ClickException(end.message)
    if end.state == "done":
        click.echo(f"Done: {run.path / 'result'}")
    else:
        note(f"Stopped. {again or f'`ragsmith tune resume {run.name}`'} goes on.")
        raise click.exceptions.Exit(130)
