"""``ragsmith corpora``: list, show and remove corpora, and forget single files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from rag.tracing.figures import counted
from ui.commands._app import command_app, prepare_encoder
from ui.commands._console import print_table
from ui.commands._terminal_text import one_line, print_json
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from rag.indexing.corpora import CorpusSummary
    from rag.indexing.corpus_sources import CorpusSource

# Files that a question lists.
SHOWN = 10


@click.group()
def command() -> None:
    """List, show and remove corpora."""


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


@command.command(name="show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list with one object per file.")
@pass_context
def show_command(context: Context, name: str, as_json: bool) -> None:
    """Show the files of the corpus NAME, and their problems."""
    with command_app(context) as app:
        sources = app.stores.sources(name)
        if as_json:
            from dataclasses import asdict

            print_json([asdict(source) for source in sources], indent=2)
            return
        if not sources:
            click.echo(f"The corpus {name} is empty.")
            return
        _show_sources(sources)


@command.command(name="forget")
@click.argument("name")
@click.argument("path")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
@pass_context
def forget_command(context: Context, ctx: click.Context, name: str, path: str, yes: bool) -> None:
    """Remove a file or a folder from the corpus NAME.

    PATH is a path or a name as `ragsmith corpora show` prints it. The files themselves stay where they are; only
    what the workspace keeps itself, uploads and pages of the web, is deleted.
    """
    from rag.indexing.corpus_sources import named_sources

    with command_app(context) as app:
        found = named_sources(app.stores.sources(name), path, name)
        if not yes:
            if not sys.stdin.isatty():
                raise click.ClickException("Without a terminal to confirm on, pass --yes to forget files.")
            for source in found[:SHOWN]:
                click.echo(f"  {one_line(source.name)}", err=True)
            if len(found) > SHOWN:
                click.echo(f"  and {len(found) - SHOWN:,} more", err=True)
            if not click.confirm(f"Forget {counted(len(found), 'file')} of the corpus {name}?", err=True):
                click.echo("Nothing was removed.", err=True)
                ctx.exit(1)
        prepare_encoder(app.settings, app.stores)
        app.stores.forget(name, found)
        click.echo(f"Removed {counted(len(found), 'file')} from the corpus {name}.")


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


def _show_sources(sources: Sequence[CorpusSource]) -> None:
    numbers = ("documents", "passages")
    rows = [
        (
            one_line(source.name),
            f"{source.documents:,}",
            f"{source.passages:,}",
            _state(source),
        )
        for source in sources
    ]
    print_table(("file", *numbers, ""), rows, numbers)
    for source in sources:
        for remark in source.remarks:
            click.echo(f"{one_line(source.name)}: {one_line(remark)}")


def _state(source: CorpusSource) -> str:
    if not source.exists:
        return "the file no longer exists"
    return "could not be read" if source.id is None else ""


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
