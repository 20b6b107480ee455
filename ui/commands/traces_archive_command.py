"""``ragsmith traces export|import``: traces as files."""

from __future__ import annotations

from pathlib import Path

import click

from ui.commands._app import command_app
from ui.commands._terminal_text import note, one_line, unpaired
from ui.context import Context, pass_context

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(name="export")
@click.argument("file", type=_FILE)
@click.option("--filter", "filter_text", default="", help="Only traces that this filter keeps.")
@click.option("--sort", default="", metavar="COLUMN", help="Their order, as in `ragsmith traces list`.")
@pass_context
def export_command(context: Context, file: Path, filter_text: str, sort: str) -> None:
    """Write traces with their steps and feedback to FILE.

    FILE ends in .jsonl or .jsonl.gz.
    Without a filter these are all traces but those of evaluations and the lab; --filter "purpose = any" takes
    these as well. The file has questions, passages and answers in plain text.
    """
    from rag.tracing.figures import counted
    from rag.tracing.trace_archive import write_traces
    from rag.tracing.trace_query import query_of

    with command_app(context) as app:
        query = query_of(unpaired(filter_text), unpaired(sort))
        ids = list(app.stores.trace_queries.walk(query))
        written = write_traces(file, (app.stores.traces.get(trace_id) for trace_id in ids))
    click.echo(f"Wrote {counted(written, 'trace')} to {one_line(str(file))}.")


@click.command(name="import")
@click.argument("file", type=_FILE)
@pass_context
def import_command(context: Context, file: Path) -> None:
    """Store the traces of an exported FILE.

    Every trace keeps its id; one that is stored already stays as it is. If a line is no trace, none is stored.
    """
    from rag.tracing.figures import counted
    from rag.tracing.trace_archive import import_traces

    with command_app(context) as app:
        stored, known = import_traces(file, app.stores.traces)
    click.echo(f"Stored {counted(stored, 'trace')} of {one_line(str(file))}.")
    if known:
        note(f"{counted(known, 'trace')} had been stored before.")
