"""The author of a change and the reason for it, kept with what is saved."""

from __future__ import annotations

from typing import Any

import click

from ui.app.login_name import login_name
from ui.commands._terminal_text import unpaired


def signed(function: Any) -> Any:
    """Add the options ``--by`` and ``--message`` to a command."""
    by = click.option("--by", metavar="WHO", help="Who does it; your login name is the default.")
    why = click.option("-m", "--message", metavar="WHY", help="Why; kept with the version.")
    return why(by(function))


def author(by: str | None) -> str:
    """The name that was given, else the login name, else ``unknown``."""
    return unpaired(by) if by else login_name()
