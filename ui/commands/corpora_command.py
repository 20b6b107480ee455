"""``ragsmith corpora``: list and remove corpora."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ui.commands._app import command_app, prepare_encoder
from ui.commands._console import open_console
from ui.commands._terminal_text import counted, print_json
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from rag.indexing.corpora import CorpusSummary


@click.group()
def command() -> None:
    """List and remove corpora."""


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, one object for each corpus.")
@pass_context
def list_command(context: Context, as_json: bool) -> None:
    """List the corpora and what is in them."""
    with command_app(context) as app:
        prepare_encoder(app.settings, app.stores)
        summaries = app.stores.corpora.summaries()
        if as_json:
            from dataclasses import asdict

            print_json([asdict(each) for each in summaries], indent=2)
        elif summaries:
            _show(summaries)
        else:
            click.echo("There is no corpus yet. Make one with `ragsmith ingest PATH --corpus NAME`.")


@command.command(name="remove")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
@pass_context
def remove_command(context: Context, ctx: click.Context, name: str, yes: bool) -> None:
    """Remove the corpus NAME with its index; the files that it was made from stay where they are."""
    with command_app(context) as app:
        prepare_encoder(app.settings, app.stores)
        summary = next((each for each in app.stores.corpora.summaries() if each.name == name), None)
        if summary is not None and not yes:
            if not sys.stdin.isatty():
                raise click.ClickException("There is no terminal to confirm on: add --yes to remove the corpus.")
            size = f"{counted(summary.files, 'file')}, {counted(summary.passages, 'passage')}"
            if not click.confirm(f"Remove the corpus {name} ({size})?", err=True):
                click.echo("Nothing was removed.", err=True)
                ctx.exit(1)
        with app.workspace.writing(f"remove {name}"):
            app.stores.corpora.remove(name)
        click.echo(f"Removed the corpus {name}.")


def _show(summaries: Sequence[CorpusSummary]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("corpus", overflow="fold")
    for heading in ("files", "documents", "passages"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for each in summaries:
        state = "" if each.current else "indexed with another encoder or passage size: ingest it again"
        table.add_row(each.name, f"{each.files:,}", f"{each.documents:,}", f"{each.passages:,}", state)
    open_console().print(table)
