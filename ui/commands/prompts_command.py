"""``ragsmith prompts``: versions, labels, and the messages that go to a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ui.commands import prompts_archive_command as archiving
from ui.commands import prompts_writing_command as writing
from ui.commands._console import print_table
from ui.commands._prompt_library import VersionNumber, open_library, prompt_file, read_text, show_changes
from ui.commands._signed import Signature, signed
from ui.commands._terminal_text import print_json, print_names, unpaired, visible
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from prompts import PromptLibrary


@click.group()
def command() -> None:
    """Write, compare and label versions of prompts.

    REF is NAME (its label `production`), NAME@VERSION, NAME@LABEL, or NAME@latest for the newest version.
    """


_OTHERS = (writing.new, writing.edit, writing.import_command, writing.export, archiving.archive, archiving.restore)
for _subcommand in _OTHERS:
    command.add_command(_subcommand)


@command.command(name="list")
@click.option("--archived", is_flag=True, help="List the archived versions instead.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list with one object per prompt.")
@pass_context
def list_command(context: Context, archived: bool, as_json: bool) -> None:
    """List the prompts with their labels."""
    if archived:
        from prompts.archive import PromptArchive
        from rag.workspace import open_workspace

        print_names(PromptArchive(open_workspace(context.settings.home).prompts).archived(), as_json)
        return
    with open_library(context) as library:
        summaries = [_summary(library, name) for name in library.names()]
    if as_json:
        print_json([asdict(summary) for summary in summaries], indent=2)
        return
    rows = [
        (
            summary.name,
            str(len(summary.versions)),
            ", ".join(f"{label} → {version}" for label, version in summary.labels.items()),
            summary.description,
        )
        for summary in summaries
    ]
    print_table(("prompt", "versions", "labels", ""), rows)


@command.command(name="show")
@click.argument("reference", metavar="REF")
@click.option("--json", "as_json", is_flag=True, help="Print the version as JSON, with its hash.")
@pass_context
def show_command(context: Context, reference: str, as_json: bool) -> None:
    """Show a version in the form of its file."""
    with open_library(context) as library:
        prompt = library.load(unpaired(reference))
    if as_json:
        print_json(prompt.model_dump(mode="json") | {"sha256": prompt.sha256}, indent=2)
        return
    from prompts.files import as_yaml

    click.echo(visible(as_yaml(prompt)), nl=False)


@command.command(name="diff")
@click.argument("old", metavar="REF")
@click.argument("new", metavar="REF")
@click.option("--json", "as_json", is_flag=True, help="Print the changes as a JSON list.")
@pass_context
def diff_command(context: Context, old: str, new: str, as_json: bool) -> None:
    """Show the differences between two versions, word by word."""
    from prompts.diff import diff

    with open_library(context) as library:
        changes = diff(library.load(unpaired(old)), library.load(unpaired(new)))
    if as_json:
        print_json([asdict(change) for change in changes], indent=2)
        return
    if not changes:
        click.echo("The two versions are the same.")
    show_changes(changes)


@command.command(name="label")
@click.argument("name")
@click.argument("label")
@click.argument("version", type=VersionNumber(1), required=False)
@click.option("--remove", is_flag=True, help="Remove the label.")
@signed
@pass_context
def label_command(
    context: Context, name: str, label: str, version: int | None, remove: bool, signature: Signature
) -> None:
    """Move a LABEL of the prompt NAME to VERSION. A rollback is a move to an earlier version.

    A label that the chat runs does not move to a version that the chat cannot fill. The label `latest` is
    reserved: NAME@latest is always the newest version.
    """
    if remove is (version is not None):
        raise click.UsageError("Name a version, or pass --remove.")
    from ui.app.prompt_labels import PromptLabels

    with open_library(context) as library:
        before = library.labels(name).get(label)
        labels = PromptLabels(library, context.settings.answer_prompt)
        labels.move(name, label, version, by=signature.by, message=signature.message_or(""))
        after = library.labels(name).get(label)
    if remove:
        now = f"; without it, {name}@{label} is {name}@{after}" if after else ""
        click.echo(f"Removed the label {label} from {name}@{before}{now}.")
    else:
        click.echo(f"{name}: {label} {before or 'nowhere'} → {after}")


@command.command(name="log")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, newest first.")
@pass_context
def log_command(context: Context, name: str, as_json: bool) -> None:
    """Show the versions of a prompt and the moves of its labels. The newest come first."""
    with open_library(context) as library:
        events = _history(library, name)
    if as_json:
        print_json([asdict(event) for event in events], indent=2)
        return
    rows = [(event.at[:16].replace("T", " "), event.by, event.what, event.message) for event in events]
    print_table(("when", "by", "change", "reason"), rows)


@command.command(name="render")
@click.argument("reference", metavar="REF")
@click.option(
    "--set", "given", multiple=True, metavar="NAME=VALUE", help="The value of a variable; can be repeated."
)
@click.option("--values", type=prompt_file, help="A JSON file with an object of values, - for standard input.")
@click.option("--json", "as_json", is_flag=True, help="Print the messages as a JSON list.")
@pass_context
def render_command(
    context: Context, reference: str, given: Sequence[str], values: Path | None, as_json: bool
) -> None:
    """Show the messages that a prompt sends for these values."""
    filled = _values(values) if values else {}
    for pair in given:
        name, equals, value = unpaired(pair).partition("=")
        if not equals:
            raise click.BadParameter(f"{pair} must be NAME=VALUE", param_hint="--set")
        filled[name] = value
    with open_library(context) as library:
        messages = library.find(unpaired(reference)).render(filled)
    if as_json:
        print_json([message.model_dump() for message in messages], indent=2)
        return
    for message in messages:
        click.secho(message.role, bold=True)
        click.echo(visible(message.content))


@dataclass(frozen=True, slots=True)
class _Summary:
    """A prompt in the list."""

    name: str
    versions: list[int]
    labels: dict[str, int]
    tags: tuple[str, ...]
    description: str


def _summary(library: PromptLibrary, name: str) -> _Summary:
    prompt = library.load(f"{name}@production")
    return _Summary(name, library.versions(name), library.labels(name), prompt.tags, prompt.description.strip())


@dataclass(frozen=True, slots=True)
class _Event:
    """A saved version or the move of a label; ``at`` is in ISO format."""

    at: str
    by: str
    what: str
    message: str


def _history(library: PromptLibrary, name: str) -> list[_Event]:
    events = []
    for version in library.versions(name):
        saved = library.load(f"{name}@{version}").saved
        by, at, message = (saved.by, saved.at.isoformat(), saved.message) if saved else ("", "", "")
        events.append(_Event(at, by, f"version {version}", message))
    for move in library.moves(name):
        target = "removed" if move.version is None else f"→ {move.version}"
        events.append(_Event(move.at.isoformat(), move.by, f"{move.label} {target}", move.message))
    # A stable sort keeps the order of events in the same second.
    return sorted(events, key=lambda event: event.at)[::-1]


def _values(file: Path) -> dict[str, str]:
    try:
        values = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        raise click.ClickException(f"{file} must be valid JSON: {error}.") from error
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise click.ClickException(f"{file} must be a JSON object of strings.")
    return values
