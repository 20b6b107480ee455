"""The rich console that tables and marked words are printed on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# In a file or a pipe nothing needs to fit a window, and what is cut off there is lost.
WIDE = 1_000
READABLE = 100


def open_console() -> Console:
    """A console on stdout that takes text as it is: no mark-up, no smileys, no guessed colours."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else WIDE
    return Console(highlight=False, markup=False, emoji=False, width=width)


def print_indented(console: Console, text: Text, indent: int) -> None:
    """Print a paragraph, wrapped and moved to the right."""
    from rich.text import Text

    for line in text.wrap(console, max(min(console.width, READABLE) - indent, 20)):
        line.rstrip()
        console.print(Text(" " * indent).append_text(line))
