"""``ragsmith prompts``: versions, labels, and what goes to a model."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ui.commands._console import open_console
from ui.commands._signed import author, signed
from ui.commands._terminal_text import note, one_line, print_json, unpaired, visible
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from prompts import Message, PromptLibrary, PromptTemplate
    from prompts.diff import Change
    from prompts.formats import Format

FORMATS = ("langchain", "openai", "text")
_FILE = click.Path(path_type=Path, dir_okay=False, allow_dash=True)


LONGEST_FILE = 4_000_000
"""Bytes of a file with a prompt; a device never ends."""


@click.group()
def command() -> None:
    """Versions of prompts, their labels, and what they send.

    REF is NAME (its label `production`), NAME@VERSION or NAME@LABEL.
    """


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, one object for each prompt.")
@pass_context
def list_command(context: Context, as_json: bool) -> None:
    """List the prompts with their labels."""
    with _library(context) as library:
        told = [_summary(library, name) for name in library.names()]
    if as_json:
        print_json(told, indent=2)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("prompt", "versions", "labels", ""):
        table.add_column(heading, overflow="fold")
    for each in told:
        labels = ", ".join(f"{label} → {version}" for label, version in each["labels"].items())
        table.add_row(each["name"], str(len(each["versions"])), labels, one_line(each["description"]))
    open_console().print(table)


@command.command(name="show")
@click.argument("reference", metavar="REF")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON, with its hash.")
@pass_context
def show_command(context: Context, reference: str, as_json: bool) -> None:
    """Show a version as its file has it."""
    with _library(context) as library:
        prompt = library.load(unpaired(reference))
    if as_json:
        print_json(prompt.model_dump(mode="json") | {"sha256": prompt.sha256}, indent=2)
        return
    from prompts.files import as_yaml

    click.echo(visible(as_yaml(prompt)), nl=False)


@command.command(name="new")
@click.argument("name")
@click.option("--from", "reference", metavar="REF", help="Begin with this one.")
@click.option("--file", type=_FILE, help="Take this YAML file, - for standard input, and open no editor.")
@signed
@pass_context
def new_command(
    context: Context,
    name: str,
    reference: str | None,
    file: Path | None,
    message: str | None,
    by: str | None,
) -> None:
    """Write the first version of a prompt NAME."""
    with _library(context) as library:
        if name in library.names():
            raise click.ClickException(f"There is a prompt {name} already: `ragsmith prompts edit {name}`.")
        begin = library.load(unpaired(reference)) if reference else None
        _write(library, name, begin, file, message, by)


@command.command(name="edit")
@click.argument("reference", metavar="REF")
@click.option("--file", type=_FILE, help="Take this YAML file, - for standard input, and open no editor.")
@signed
@pass_context
def edit_command(context: Context, reference: str, file: Path | None, message: str | None, by: str | None) -> None:
    """Change a version in your editor, and save it as the next one.

    What the chat runs stays as it is until the label `production` is moved.
    """
    with _library(context) as library:
        begin = library.load(unpaired(reference))
        _write(library, begin.name, begin, file, message, by)


@command.command(name="diff")
@click.argument("old", metavar="REF")
@click.argument("new", metavar="REF")
@click.option("--json", "as_json", is_flag=True, help="Print the changes as a JSON list.")
@pass_context
def diff_command(context: Context, old: str, new: str, as_json: bool) -> None:
    """Show what differs between two versions, word by word."""
    from prompts.diff import diff

    with _library(context) as library:
        changes = diff(library.load(unpaired(old)), library.load(unpaired(new)))
    if as_json:
        from dataclasses import asdict

        print_json([asdict(each) for each in changes], indent=2)
        return
    if not changes:
        click.echo("They are the same.")
    _show_changes(changes)


@command.command(name="label")
@click.argument("name")
@click.argument("label")
@click.argument("version", type=click.IntRange(1), required=False)
@click.option("--remove", is_flag=True, help="Take the label away.")
@signed
@pass_context
def label_command(
    context: Context,
    name: str,
    label: str,
    version: int | None,
    remove: bool,
    message: str | None,
    by: str | None,
) -> None:
    """Let a LABEL of the prompt NAME point to VERSION. Going back is a move like any other."""
    if remove is (version is not None):
        raise click.UsageError("Give a version, or --remove.")
    with _library(context) as library:
        before = library.labels(name).get(label)
        library.move(name, label, version, by=author(by), message=message or "")
        after = library.labels(name).get(label)
    click.echo(f"{name}: {label} {before or 'nowhere'} → {after or 'nowhere'}")


@command.command(name="log")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, the newest first.")
@pass_context
def log_command(context: Context, name: str, as_json: bool) -> None:
    """Tell how a prompt came to be: versions and moves of labels, the newest first."""
    with _library(context) as library:
        told = _history(library, name)
    if as_json:
        print_json(told, indent=2)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("when", "who", "what", "why"):
        table.add_column(heading, overflow="fold")
    for each in told:
        table.add_row(
            each["at"][:16].replace("T", " "), one_line(each["by"]), each["what"], one_line(each["message"])
        )
    open_console().print(table)


@command.command(name="render")
@click.argument("reference", metavar="REF")
@click.option("--set", "given", multiple=True, metavar="NAME=VALUE", help="The value of a variable; repeat it.")
@click.option("--values", type=_FILE, help="A JSON file with an object of values, - for standard input.")
@click.option("--json", "as_json", is_flag=True, help="Print the messages as a JSON list.")
@pass_context
def render_command(
    context: Context, reference: str, given: Sequence[str], values: Path | None, as_json: bool
) -> None:
    """Show the messages that a prompt sends for these values."""
    filled = _values(values) if values else {}
    for each in given:
        name, equals, value = unpaired(each).partition("=")
        if not equals:
            raise click.BadParameter(f"{each} is no NAME=VALUE", param_hint="--set")
        filled[name] = value
    with _library(context) as library:
        messages = library.find(unpaired(reference)).render(filled)
    if as_json:
        print_json([message.model_dump() for message in messages], indent=2)
    else:
        _show_messages(messages)


@command.command(name="import")
@click.argument("file", type=_FILE)
@click.option("--name", required=True, help="How the prompt is to be called here.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="What it is; found out by default.")
@signed
@pass_context
def import_command(
    context: Context, file: Path, name: str, form: Format | None, message: str | None, by: str | None
) -> None:
    """Take over a prompt: LangChain's JSON, OpenAI's messages, or plain text.

    It becomes the next version of the prompt.
    """
    from prompts.formats import read_prompt

    text = _text_of(file)
    told = message if message is not None else f"imported from {file.name}"
    with _library(context) as library:
        draft = read_prompt(text, name, description=told, form=form)
        _report_saved(library, library.save(draft, by=author(by), message=told))


@command.command(name="export")
@click.argument("reference", metavar="REF")
@click.option("--format", "form", type=click.Choice(("yaml", *FORMATS)), default="yaml", show_default=True)
@click.option("--to", type=click.Path(path_type=Path, dir_okay=False), help="The file to write.")
@pass_context
def export_command(context: Context, reference: str, form: Any, to: Path | None) -> None:
    """Write a prompt for another program."""
    from prompts.files import as_yaml
    from prompts.formats import write_prompt_as

    with _library(context) as library:
        prompt = library.find(unpaired(reference))
        text = as_yaml(prompt) if form == "yaml" else write_prompt_as(prompt, form)
    if form != "yaml" and prompt.fragments:
        note(f"Left out, since the format has no like of them: the fragments {', '.join(prompt.fragments)}.")
    if to is None:
        click.echo(visible(text) if sys.stdout.isatty() else text, nl=False)
        return
    try:
        to.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{to} cannot be written: {error.strerror}.") from error
    click.echo(f"Wrote {prompt.label} to {to}.")


@contextmanager
def _library(context: Context) -> Iterator[PromptLibrary]:
    from prompts import PromptLibrary
    from rag.errors import prompt_errors
    from rag.workspace import open_workspace

    with prompt_errors():
        yield PromptLibrary(open_workspace(context.settings.home).prompts)


def _write(
    library: PromptLibrary,
    name: str,
    begin: PromptTemplate | None,
    file: Path | None,
    message: str | None,
    by: str | None,
) -> None:
    """Have a draft written, show what it changes, and save it."""
    from prompts import PromptTemplateError
    from prompts.diff import diff
    from prompts.files import SKELETON, as_draft, parse_draft

    before = as_draft(begin) if begin else SKELETON
    text = _text_of(file) if file else click.edit(before, extension=".yaml")
    if text is None or (begin and text == before):
        click.echo("Nothing was changed, and nothing saved.")
        return
    try:
        draft = parse_draft(text, name, begin.version if begin else 1)
        changes = diff(begin, draft) if begin else ()
        if begin and not changes:
            click.echo("Nothing was changed, and nothing saved.")
            return
        _show_changes(changes)
        if message is None:
            message = click.prompt("Why", default="", show_default=False, err=True) if sys.stdin.isatty() else ""
        saved = library.save(draft, by=author(by), message=message)
    except (PromptTemplateError, click.Abort) as error:
        if file is None:
            _keep(library, name, text)
        if isinstance(error, PromptTemplateError):
            raise
        raise click.ClickException("Nothing was saved.") from error
    _report_saved(library, saved)


def _keep(library: PromptLibrary, name: str, text: str) -> None:
    """What somebody wrote in an editor is not lost with the mistake in it."""
    path = library.keep_draft(name, text)
    note(f"What you wrote is in {path}; `ragsmith prompts edit {name} --file {path}` takes it.")


def _report_saved(library: PromptLibrary, saved: PromptTemplate) -> None:
    click.echo(f"Saved {saved.label}.")
    from prompts import PRODUCTION

    runs = library.labels(saved.name)[PRODUCTION]
    if runs != saved.version:
        click.echo(
            f"In production is {saved.name}@{runs}; "
            f"`ragsmith prompts label {saved.name} {PRODUCTION} {saved.version}` changes that."
        )


def _summary(library: PromptLibrary, name: str) -> dict[str, Any]:
    labels = library.labels(name)
    prompt = library.load(f"{name}@production")
    return {
        "name": name,
        "versions": library.versions(name),
        "labels": labels,
        "tags": list(prompt.tags),
        "description": prompt.description.strip(),
    }


def _history(library: PromptLibrary, name: str) -> list[dict[str, Any]]:
    told = []
    for version in library.versions(name):
        saved = library.load(f"{name}@{version}").saved
        told.append(
            {
                "at": saved.at.isoformat() if saved else "",
                "by": saved.by if saved else "",
                "what": f"version {version}",
                "message": saved.message if saved else "",
            }
        )
    for move in library.moves(name):
        where = "taken away" if move.version is None else f"→ {move.version}"
        told.append(
            {
                "at": move.at.isoformat(),
                "by": move.by,
                "what": f"{move.label} {where}",
                "message": move.message,
            }
        )
    # Sorting keeps what happened in the same second in its order.
    return sorted(told, key=lambda each: each["at"])[::-1]


def _show_changes(changes: Sequence[Change]) -> None:
    from rich.text import Text

    console = open_console()
    marks = {"same": ("", "", ""), "removed": ("[-", "-]", "red"), "added": ("{+", "+}", "green")}
    for change in changes:
        console.print(Text(change.where, style="bold"))
        line = Text()
        for piece in change.pieces:
            before, after, style = marks[piece.kind]
            line.append(f"{before}{visible(piece.text)}{after}", style=style)
        console.print(line)


def _show_messages(messages: Sequence[Message]) -> None:
    for message in messages:
        click.secho(message.role, bold=True)
        click.echo(visible(message.content))


def _text_of(file: Path) -> str:
    try:
        if str(file) == "-":
            return sys.stdin.read()
        with file.open("rb") as opened:
            data = opened.read(LONGEST_FILE + 1)
        if len(data) > LONGEST_FILE:
            raise click.ClickException(f"{file} is larger than {LONGEST_FILE:,} bytes, which no prompt is.")
        return data.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise click.ClickException(f"{file} cannot be read: {reason}.") from error


def _values(file: Path) -> dict[str, str]:
    import json

    try:
        told = json.loads(_text_of(file))
    except (ValueError, RecursionError) as error:
        raise click.ClickException(f"{file} is no JSON: {error}.") from error
    if not isinstance(told, dict) or not all(isinstance(value, str) for value in told.values()):
        raise click.ClickException(f"{file} is no JSON object of texts.")
    return told
