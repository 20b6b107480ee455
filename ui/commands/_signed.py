"""The author of a change and the reason for it, which are saved with the change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import click

from ui.app.login_name import login_name
from ui.commands._terminal_text import unpaired


@dataclass(frozen=True, slots=True)
class Signature:
    """The author of a change, and the reason for it.

    Attributes:
        by: The author; by default the login name.
        message: The reason; None if none was given.
    """

    by: str
    message: str | None

    def message_or(self, default: str) -> str:
        """Return the reason, else the default."""
        return unpaired(default) if self.message is None else self.message


def signed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options ``--by`` and ``--message`` to a command, which gets them as ``signature``."""

    @click.option("-m", "--message", metavar="WHY", help="The reason; saved with the change.")
    @click.option("--by", metavar="WHO", help="The author; by default your login name.")
    @wraps(function)
    def command(*arguments: Any, by: str | None, message: str | None, **options: Any) -> Any:
        author = unpaired(by) if by else login_name()
        reason = None if message is None else unpaired(message)
        return function(*arguments, signature=Signature(author, reason), **options)

    return command
