"""A table of a web page while it is read: its cells, and which of its rows name the columns."""

from __future__ import annotations

from rag.documents.loaders._tables import Cell


class HtmlTable:
    """A table that is being read.

    Attributes:
        caption: The line above it.
        rows: Its rows so far, the current one last.
        heads: Numbers of cells of the current row: those that are ``th``, and all.
        header_rows: Rows of column names at its top.
        named_rows: Rows of a name and a value.
        in_head: Whether the current row is in ``thead``.
        in_row: Whether a row is open.
    """

    def __init__(self) -> None:
        self.caption = ""
        self.rows: list[list[Cell]] = []
        self.heads = [0, 0]
        self.header_rows = 0
        self.named_rows = 0
        self.in_head = False
        self.in_row = False

    def open_row(self) -> None:
        """Begin a row."""
        self.rows.append([])
        self.heads = [0, 0]
        self.in_row = True

    def close_row(self) -> None:
        """Count the row as one of column names, or as one that begins with its own name."""
        self.in_row = False
        heads, cells = self.heads
        above = len(self.rows) - 1
        if cells and above == self.header_rows and (self.in_head or heads == cells):
            self.header_rows += 1
        elif heads and cells == 2:
            self.named_rows += 1

    @property
    def declared(self) -> int | None:
        """Number of header rows; None if the page does not mark any."""
        rest = len(self.rows) - self.header_rows
        return self.header_rows or (0 if self.named_rows and self.named_rows == rest else None)
