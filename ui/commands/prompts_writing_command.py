"""``ragsmith prompts new|edit|import|export``: write prompts, and exchange them with other programs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ui.commands._prompt_library import open_library, prompt_file, read_text, show_changes
from ui.commands._signed import Signature, signed
from ui.commands._terminal_text import note, unpaired, visible
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from prompts import PromptLibrary, PromptTemplate
    from prompts.formats import Format
    from ui.app.prompt_labels import PromptLabels

FORMATS = ("langchain", "openai", "text")
UNCHANGED = "Nothing was changed, so nothing was saved."

file_option = click.option(
    "--file", type=prompt_file, help="Read this YAML file, - for standard input, instead of opening an editor."
)


@click.command()
@click.argument("name")
@click.option("--from", "reference", metavar="REF", help="The version to start from.")
@file_option
@signed
@pass_context
def new(context: Context, name: str, reference: str | None, file: Path | None, signature: Signature) -> None:
    """Write the first version of a prompt NAME."""
    from prompts.template import check_name

    with open_library(context) as library:
        check_name(name)
        if name in library.names():
            raise click.ClickException(
                f"The prompt {name} exists already: change it with `ragsmith prompts edit {name}`."
            )
        base = library.load(unpaired(reference)) if reference else None
        _Writer.of(context, library, signature).write(name, base, file, copies=True)


@click.command()
@click.argument("reference", metavar="REF")
@file_option
@signed
@pass_context
def edit(context: Context, reference: str, file: Path | None, signature: Signature) -> None:
    """Change a version in your editor, and save it as the next one.

    The chat keeps its version until the label `production` is moved.
    """
    with open_library(context) as library:
        base = library.load(unpaired(reference))
        _Writer.of(context, library, signature).write(base.name, base, file)


@click.command("import")
@click.argument("file", type=prompt_file)
@click.option("--name", required=True, help="The name of the prompt in this workspace.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="The format of FILE; detected by default.")
@signed
@pass_context
def import_command(context: Context, file: Path, name: str, form: Format | None, signature: Signature) -> None:
    """Import a prompt of another program.

    FILE is LangChain's JSON, OpenAI's messages or request, or plain text. It becomes the next version of the
    prompt.
    """
    from prompts.formats import read_prompt

    text = read_text(file)
    why = signature.message_or(f"imported from {file.name}")
    with open_library(context) as library:
        imported = read_prompt(text, name, description=why, form=form, file=file.name)
        _Writer.of(context, library, signature).save(imported.draft, why)
    if imported.note:
        note(imported.note)


@click.command()
@click.argument("reference", metavar="REF")
@click.option("--format", "form", type=click.Choice(("yaml", *FORMATS)), default="yaml", show_default=True)
@click.option("--to", type=click.Path(path_type=Path, dir_okay=False), help="The file to write.")
@pass_context
def export(context: Context, reference: str, form: Any, to: Path | None) -> None:
    """Write a prompt for another program."""
    from prompts.files import as_yaml
    from prompts.formats import write_prompt_as

    with open_library(context) as library:
        prompt = library.find(unpaired(reference))
        text = as_yaml(prompt) if form == "yaml" else write_prompt_as(prompt, form)
    for kind, left_out in (("fragments", prompt.fragments), ("settings", prompt.settings.given)):
        if form != "yaml" and left_out:
            note(f"The format has no {kind}, so these are left out: {', '.join(left_out)}.")
    if to is None:
        click.echo(visible(text) if sys.stdout.isatty() else text, nl=False)
        return
    try:
        to.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{to} cannot be written: {error.strerror}.") from error
    click.echo(f"Wrote {prompt.label} to {to}.")


@dataclass(frozen=True, slots=True)
class _Writer:
    """Saves the versions of one call."""

    library: PromptLibrary
    labels: PromptLabels
    signature: Signature

    @classmethod
    def of(cls, context: Context, library: PromptLibrary, signature: Signature) -> _Writer:
        from ui.app.prompt_labels import PromptLabels

        return cls(library, PromptLabels(library, context.settings.answer_prompt), signature)

    def write(self, name: str, base: PromptTemplate | None, file: Path | None, *, copies: bool = False) -> None:
        """Get a draft from the file or the editor, show its changes, and save it.

        Args:
            base: The version to start from.
            copies: Whether a file that equals its base is saved.
        """
        from prompts import PromptTemplateError
        from prompts.diff import diff
        from prompts.files import SKELETON, as_draft, parse_draft

        before = as_draft(base) if base else SKELETON
        text = read_text(file) if file else click.edit(before, extension=".yaml")
        copies = copies and file is not None
        if text is None or (base and text == before and not copies):
            click.echo(UNCHANGED)
            return
        try:
            draft = parse_draft(text, name, base.version if base else 1)
            changes = diff(base, draft) if base else ()
            if base and not changes and not copies:
                click.echo(UNCHANGED)
                return
            show_changes(changes)
            self.save(draft, self._reason())
        except (PromptTemplateError, click.Abort) as error:
            if file is None:
                # A mistake does not cost what was written in the editor.
                path = self.library.keep_draft(name, text)
                note(f"Your draft is in {path}; `ragsmith prompts edit {name} --file {path}` reads it.")
            if isinstance(error, PromptTemplateError):
                raise
            raise click.ClickException("Nothing was saved.") from error

    def _reason(self) -> str:
        if self.signature.message is not None:
            return self.signature.message
        return click.prompt("Why", default="", show_default=False, err=True) if sys.stdin.isatty() else ""

    def save(self, draft: PromptTemplate, why: str) -> None:
        """Save a draft, and say what a person should know about it."""
        from prompts import PRODUCTION

        saved = self.library.save(draft, by=self.signature.by, message=why)
        click.echo(f"Saved {saved.label}.")
        for warning in self.labels.warnings(saved):
            note(f"Warning: {warning}")
        current = self.library.labels(saved.name)[PRODUCTION]
        if current != saved.version:
            click.echo(
                f"{saved.name}@{current} stays in production; "
                f"`ragsmith prompts label {saved.name} {PRODUCTION} {saved.version}` changes that."
            )
