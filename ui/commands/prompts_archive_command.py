"""``ragsmith prompts archive|restore``: versions that nobody uses any more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from ui.commands._app import command_app
from ui.commands._terminal_text import unpaired
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from ui.app.archiving import PromptArchiving


@click.command()
@click.argument("reference", metavar="REF")
@pass_context
def archive(context: Context, reference: str) -> None:
    """Archive a version, or a whole prompt.

    REF is NAME@VERSION, or NAME for all its versions. No label, setting, other prompt or unfinished
    evaluation run may need it; finished runs and traces keep the messages that were sent. An archived version is
    in no list and cannot be used, its number is not used again, and `ragsmith prompts restore` brings it back.
    """
    with _archiving(context) as archiving:
        archived = archiving.put_away(unpaired(reference))
    click.echo(f"Archived {', '.join(archived)}.")


@click.command()
@click.argument("reference", metavar="REF")
@pass_context
def restore(context: Context, reference: str) -> None:
    """Bring back an archived version or prompt.

    REF is NAME@VERSION, or NAME for all its archived versions.
    """
    with _archiving(context) as archiving:
        restored = archiving.bring_back(unpaired(reference))
    click.echo(f"Restored {', '.join(restored)}.")


@contextmanager
def _archiving(context: Context) -> Iterator[PromptArchiving]:
    from prompts.archive import PromptArchive
    from ui.app.archiving import PromptArchiving

    with command_app(context) as app:
        archive = PromptArchive(app.workspace.prompts)
        prompts, answer_prompt = app.stores.prompts, app.settings.answer_prompt
        yield PromptArchiving(prompts, archive, answer_prompt, lambda: app.evaluations.runs)
