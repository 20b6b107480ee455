"""Who does something, and why: kept with what is saved."""

from __future__ import annotations

from typing import Any

import click

from ui.app.login_name import login_name
from ui.commands._terminal_text import unpaired


def signed(function: Any) -> Any:
    """Give a command the options ``--by`` and ``--message``."""
    by = click.option("--by", metavar="WHO", help="Who does it; your login name is the default.")
    why = click.option("-m", "--message", metavar="WHY", help="Why; kept with the version.")
    return why(by(function))


def who(by: str | None) -> str:
    """The name that was given, else the login name, else ``unknown``."""
    return unpaired(by) if by else login_name()
