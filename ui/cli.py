"""The command line: the global options, the list of commands, and the messages for failures.

A command's module is imported when it is called, so that ``ragsmith --help`` answers at once.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import click

from rag.errors import RagsmithError
from rag.workspace import private_files
from ui.context import Context, answer_options

PROGRAM = "ragsmith"


@dataclass(frozen=True, slots=True)
class Entry:
    """A command that is not imported yet.

    Attributes:
        target: ``module:attribute`` of its click command.
        help: Its line in the list of commands.
    """

    target: str
    help: str


COMMANDS: Mapping[str, Entry] = {
    "serve": Entry("ui.commands.serve_command:command", "Open the chat page."),
    "ingest": Entry("ui.commands.ingest_command:command", "Add files and folders to a corpus."),
    "search": Entry("ui.commands.search_command:command", "Show what is found for a query, and why."),
    "ask": Entry("ui.commands.ask_command:command", "Ask a question in the terminal."),
    "traces": Entry("ui.commands.traces_command:command", "List answered questions and show their steps."),
    "feedback": Entry(
        "ui.commands.feedback_command:command",
        "List and review what people said about answers.",
    ),
    "cost": Entry("ui.commands.cost_command:command", "Show what was spent, by day, model, user and more."),
    "alerts": Entry("ui.commands.alerts_command:command", "Watch metrics, and send notices of what is wrong."),
    "prompts": Entry("ui.commands.prompts_command:command", "Write, compare and label versions of prompts."),
    "corpora": Entry("ui.commands.corpora_command:command", "List and remove corpora."),
    "datasets": Entry("ui.commands.datasets_command:command", "Keep questions with known answers, in versions."),
    "eval": Entry("ui.commands.eval_command:command", "Measure the parts against known answers."),
    "data": Entry("ui.commands.data_command:command", "Explore and prepare prompts and completions for training."),
    "tune": Entry("ui.commands.tune_command:command", "Train adapters, and export a language model."),
    "teach": Entry("ui.commands.teach_command:command", "Train the adapter on accepted corrections."),
    "sync": Entry("ui.commands.sync_command:command", "Send pending traces and runs to the trackers."),
    "doctor": Entry("ui.commands.doctor_command:command", "Check everything a run needs."),
}


class Bug(click.ClickException):
    """An unexpected failure."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message without click's prefix ``Error:``."""
        click.echo(self.format_message(), file=file, err=file is None)


class Commands(click.Group):
    """A group that finds its commands in ``COMMANDS`` and reports every failure on one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order in which a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; return None if there is none of that name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        command = getattr(import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{entry.target} must be a click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; suggest the closest one, which click does only among imported commands."""
        close = () if args[0] in COMMANDS else get_close_matches(args[0], COMMANDS, 1)
        if close:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {close[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and turn an exception into a message and an exit status."""
        try:
            outcome = super().invoke(ctx)
            # Flushing may meet a closed pipe, which click hides here and Python would not hide at exit.
            sys.stdout.flush()
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise
        except KeyboardInterrupt as error:
            click.echo("\nStopped.", err=True)
            raise click.exceptions.Exit(130) from error
        except RagsmithError as error:
            _show_traceback(ctx, error)
            raise click.ClickException(_shown(str(error))) from error
        except Exception as error:
            _show_traceback(ctx, error)
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                # The workspace translates its own errors: this is the output, in a file or at a device.
                raise click.ClickException("Cannot write: no space is left on the device.") from error
            notes = getattr(error, "__notes__", [])
            where = "" if ctx.params["debug"] else f" ({notes[-1] if notes else '--debug shows where'})"
            what = _shown(f"{type(error).__name__}: {error}{where}")
            raise Bug(f"This is a bug in ragsmith: {what}") from error
        return outcome


def _show_traceback(ctx: click.Context, error: Exception) -> None:
    if ctx.params["debug"]:
        import traceback

        traceback.print_exception(error)


def _shown(text: str) -> str:
    """Return an error on one line, with secrets masked."""
    from rag.redaction import redact

    return redact(" ".join(text.split()))


def _print_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        number = version(PROGRAM)
    except PackageNotFoundError:
        number = "(not installed, run from its source)"
    click.echo(f"{PROGRAM} {number}")
    ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="The workspace folder; by default RAGSMITH_HOME, else .ragsmith here.",
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The settings file; by default RAGSMITH_CONFIG, else ragsmith.toml here.",
)
@answer_options
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version.",
)
@click.pass_context
def cli(
    ctx: click.Context, home: Path | None, config: Path | None, debug: bool, answering: dict[str, Any]
) -> None:
    """Talk to your documents, iterate on prompts, debug traces."""
    # For the workspace that every command, and every process it starts, writes to.
    ctx.with_resource(private_files())
    ctx.obj = Context(flags={"home": home, **answering}, config=config, debug=debug)


def _open_closed_streams() -> None:
    """Give closed standard streams the null device; their number would be that of the next file that is opened."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (for the whole process)


def _discard_unwritable() -> None:
    """Discard output that cannot be written and was reported: Python 3.11.2 reports it once more when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """Run the ``ragsmith`` script."""
    _open_closed_streams()
    try:
        cli(prog_name=PROGRAM)
    finally:
        _discard_unwritable()


if __name__ == "__main__":
    main()
