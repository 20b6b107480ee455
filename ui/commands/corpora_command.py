"""``ragsmith corpora``: list and remove corpora."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from rag.tracing.figures import counted
from ui.commands._app import command_app, prepare_encoder
from ui.commands._console import print_table
from ui.commands._terminal_text import print_json
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from rag.indexing.corpora import CorpusSummary


@click.group()
def command() -> None:
    """List and remove corpora."""


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list with one object per corpus.")
@pass_context
def list_command(context: Context, as_json: bool) -> None:
    """List the corpora and their contents."""
    with command_app(context) as app:
        summaries = app.stores.corpus_summaries()
        if as_json:
            from dataclasses import asdict

            print_json([asdict(summary) for summary in summaries], indent=2)
        elif summaries:
            _show(summaries)
        else:
            click.echo("There is no corpus yet. Create one with `ragsmith ingest PATH --corpus NAME`.")


@command.command(name="remove")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
@pass_context
def remove_command(context: Context, ctx: click.Context, name: str, yes: bool) -> None:
    """Remove the corpus NAME with its index. Its source files stay where they are."""
    with command_app(context) as app:
        summary = next((found for found in app.stores.corpus_summaries() if found.name == name), None)
        if summary is not None and not yes:
            if not sys.stdin.isatty():
                raise click.ClickException("Without a terminal to confirm on, pass --yes to remove the corpus.")
            size = f"{counted(summary.files, 'file')}, {counted(summary.passages, 'passage')}"
            if not click.confirm(f"Remove the corpus {name} ({size})?", err=True):
                click.echo("Nothing was removed.", err=True)
                ctx.exit(1)
        prepare_encoder(app.settings, app.stores)
        with app.workspace.writing(f"remove {name}"):
            app.stores.corpora.remove(name)
        click.echo(f"Removed the corpus {name}.")


def _show(summaries: Sequence[CorpusSummary]) -> None:
    numbers = ("files", "documents", "passages")
    rows = [
        (
            summary.name,
            f"{summary.files:,}",
            f"{summary.documents:,}",
            f"{summary.passages:,}",
            "" if summary.current else "indexed with another encoder or passage size: ingest it again",
        )
        for summary in summaries
    ]
    print_table(("corpus", *numbers, ""), rows, numbers)
