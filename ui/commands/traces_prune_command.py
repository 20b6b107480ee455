"""``ragsmith traces prune``: delete old traces."""

from __future__ import annotations

import sys
from dataclasses import replace

import click

from rag.tracing.figures import counted
from ui.commands._app import command_app
from ui.commands._finite_range import FiniteRange
from ui.context import Context, pass_context


@click.command(name="prune")
@click.option(
    "--older-than",
    type=FiniteRange(0),
    metavar="DAYS",
    help="By default tracing.keep_days and tracing.keep_mb.",
)
@click.option("--keep-rated", is_flag=True, help="Keep traces with a thumb.")
@click.option("--dry-run", is_flag=True, help="Only say how many would be deleted.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_context
def prune_command(context: Context, older_than: float | None, keep_rated: bool, dry_run: bool, yes: bool) -> None:
    """Delete old traces, and the texts that only they have."""
    from rag.tracing.trace_retention import Retention, prune
    from ui.app.pruning import retention_of

    with command_app(context) as app:
        kept = retention_of(app.settings.tracing)
        if older_than is not None:
            kept = Retention(older_than, keep_rated=kept.keep_rated)
        if kept.keeps_all:
            raise click.ClickException("Pass --older-than DAYS, or set tracing.keep_days or tracing.keep_mb.")
        if keep_rated:
            kept = replace(kept, keep_rated=True)
        # Those of dead processes are no longer running.
        app.stores.traces.flush()
        found = prune(app.stores.engine, kept, dry_run=True).traces
        if dry_run or not found:
            click.echo(f"{counted(found, 'trace')} would be deleted." if found else "There is nothing to delete.")
            return
        if not yes:
            if not sys.stdin.isatty():
                raise click.ClickException("Without a terminal to confirm on, pass --yes to delete traces.")
            if not click.confirm(f"Delete {counted(found, 'trace')}?", err=True):
                click.echo("Nothing was deleted.", err=True)
                return
        pruned = prune(app.stores.engine, kept)
        click.echo(f"Deleted {counted(pruned.traces, 'trace')} and {counted(pruned.texts, 'text')}.")
