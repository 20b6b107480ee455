"""``ragsmith tune``: what is done to a language model before it answers."""

from __future__ import annotations

import click

from ui.commands.tune_export import export


@click.group()
def command() -> None:
    """Tune a language model, and export it."""


command.add_command(export)
