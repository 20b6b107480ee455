"""``ragsmith ingest``: add files, folders and pages of the web to a corpus."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import click

from rag.tracing.figures import counted
from ui.commands._app import command_app, prepare_encoder
from ui.commands._console import open_console
from ui.commands._progress import ingest_progress
from ui.commands._terminal_text import note, one_line, print_json
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from rag.indexing.ingest_report import IngestReport

STOPPED = "Stopped. Finished files are kept; run the same command again to continue."


@click.command()
@click.argument("given", metavar="PATH...", nargs=-1, required=True)
@click.option("--corpus", metavar="NAME", help="The corpus to add them to; by default the one in the settings.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as a JSON object.")
@click.pass_context
@pass_context
def command(
    context: Context, ctx: click.Context, given: tuple[str, ...], corpus: str | None, as_json: bool
) -> None:
    """Add files, folders and pages of the web to a corpus, or bring it up to date with them.

    PATH is a file, a folder, or the address of a page with http or https; the page is fetched and kept in the
    workspace, and the same address again renews it.

    Only changed files are processed again, and files deleted from a folder leave the corpus. A file that cannot
    be read is reported and skipped; the exit status is 1 if nothing could be read at all.
    """
    from rag.documents.fetching import is_address
    from rag.indexing.ingestion import existing_path

    addresses = [one for one in given if is_address(one)]
    paths = [Path(one) for one in given if not is_address(one)]
    with command_app(context) as app:
        for path in paths:
            existing_path(path)
        name = corpus or app.settings.corpus
        prepare_encoder(app.settings, app.stores)
        try:
            with _stopped_by_ctrl_c() as stop, ingest_progress() as show:
                report = app.stores.ingest(name, paths, show, stop, addresses)
        except KeyboardInterrupt:
            note(f"\n{STOPPED}")
            ctx.exit(130)
        _print_report(name, report, as_json)
        if report.stopped:
            note(STOPPED)
            ctx.exit(130)
        if not (report.added or report.changed or report.unchanged or report.deleted):
            raise click.ClickException(_nothing(report))


def _print_report(corpus: str, report: IngestReport, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        print_json({"corpus": corpus, **asdict(report)}, indent=2)
        return
    _show(corpus, report)
    if report.skipped:
        note(f"Files of other formats: {one_line(report.skipped_files)}")
    for problem in report.problems:
        note(f"{problem.path}: {one_line(problem.reason)}")


def _nothing(report: IngestReport) -> str:
    if report.problems:
        return f"Nothing could be read: {counted(len(report.problems), 'problem')}."
    if report.skipped:
        names = one_line(report.skipped_files)
        return f"Nothing could be read: {counted(report.skipped, 'file')} of unknown formats ({names})."
    return "Nothing could be read: there are no files."


@contextmanager
def _stopped_by_ctrl_c() -> Iterator[threading.Event]:
    """Let the first Ctrl-C finish and keep the current batch, and the second one stop at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    # A signal may interrupt a write to stderr, which is not reentrant: a thread prints the message.
    messages: SimpleQueue[str] = SimpleQueue()

    def print_message() -> None:
        if message := messages.get():
            note(message)

    def on_interrupt(_number: int, _frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        messages.put("\nStopping after this batch; Ctrl-C again stops at once.")

    printer = threading.Thread(target=print_message, name="ragsmith-ctrl-c", daemon=True)
    printer.start()
    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
        messages.put("")
        printer.join()


def _show(corpus: str, report: IngestReport) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    rows = {
        "files added": report.added,
        "files changed": report.changed,
        "files unchanged": report.unchanged,
        "files deleted": report.deleted,
        "files of other formats": report.skipped,
        "problems": len(report.problems),
        "passages embedded": report.passages,
    }
    for name, number in rows.items():
        style = "bold red" if name == "problems" and number else None
        table.add_row(name, f"{number:,}", style=style)
    table.add_row("seconds", f"{report.seconds:.1f}")
    console = open_console()
    console.print(f"Corpus {corpus}")
    console.print(table)
