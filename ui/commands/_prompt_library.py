"""The parts that the prompt commands share: the library, reading files, and showing changes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rag.errors import prompt_errors
from ui.commands._console import open_console
from ui.commands._terminal_text import visible
from ui.context import Context

if TYPE_CHECKING:
    from prompts import PromptLibrary
    from prompts.diff import Change

prompt_file = click.Path(path_type=Path, dir_okay=False, allow_dash=True)

LONGEST_FILE = 4_000_000
"""Bytes of a file with a prompt: a device file has no end."""


class VersionNumber(click.IntRange):
    """The number of a version, with an error that says so."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} must be the number of a version, such as 2.", param, ctx)


@contextmanager
def open_library(context: Context) -> Iterator[PromptLibrary]:
    """Open the prompts of the workspace.

    Raises:
        PromptError: A prompt is missing, malformed, or does not match its variables.
    """
    from prompts import PromptLibrary
    from rag.workspace import open_workspace

    with prompt_errors():
        yield PromptLibrary(open_workspace(context.settings.home).prompts)


def read_text(file: Path) -> str:
    """Read a UTF-8 file, or standard input for ``-``.

    Raises:
        click.ClickException: The file cannot be read, is too large, or is not UTF-8.
    """
    try:
        if str(file) == "-":
            return sys.stdin.read().removeprefix("\ufeff")
        with file.open("rb") as opened:
            data = opened.read(LONGEST_FILE + 1)
        if len(data) > LONGEST_FILE:
            raise click.ClickException(f"{file} must not be larger than {LONGEST_FILE:,} bytes.")
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it must be UTF-8"
        raise click.ClickException(f"{file} cannot be read: {reason}.") from error


def show_changes(changes: Sequence[Change]) -> None:
    """Print the differences between two versions, word by word."""
    from rich.text import Text

    console = open_console()
    marks = {"same": ("", "", ""), "removed": ("[-", "-]", "red"), "added": ("{+", "+}", "green")}
    for change in changes:
        console.print(Text(change.where, style="bold"))
        text = Text()
        for piece in change.pieces:
            before, after, style = marks[piece.kind]
            text.append(f"{before}{visible(piece.text)}{after}", style=style)
        console.print(text)
