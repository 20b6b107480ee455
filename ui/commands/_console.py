"""The rich console for tables and highlighted text."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from ui.commands._terminal_text import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# A file or a pipe has no window to fit, and truncated text would be lost.
WIDE = 1_000
READABLE = 100


def open_console() -> Console:
    """Return a console on stdout that prints text as it is: no mark-up, emoji or highlighting."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else WIDE
    return Console(highlight=False, markup=False, emoji=False, width=width)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], numbers: Collection[str] = ()) -> None:
    """Print rows of text under their headings; those in ``numbers`` align to the right."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold", justify="right" if heading in numbers else "left")
    for row in rows:
        table.add_row(*map(one_line, row))
    open_console().print(table)


def print_indented(console: Console, text: Text, indent: int) -> None:
    """Print a paragraph, wrapped and indented."""
    from rich.text import Text

    for line in text.wrap(console, max(min(console.width, READABLE) - indent, 20)):
        line.rstrip()
        console.print(Text(" " * indent).append_text(line))
