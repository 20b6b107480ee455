"""Rich Text Format: its paragraphs and tables, without pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from rag.documents.loaders._blocks import Builder, finished, lines
from rag.documents.loaders._losses import Losses
from rag.documents.loaders._tables import write_table
from rag.documents.loaders._text import OnProblem, clean, refused
from rag.types import Document

# What the converter leaves out, by the words that begin it; headers may be for left, right and first pages.
_UNREAD = {"pict": "picture", "object": "embedded object", "header": "page header", "footer": "page footer"}
_CONTROL = re.compile(r"\\(pict|object|header|footer)[lrf]?(?![a-z])")


def load(path: Path, data: bytes, on_problem: OnProblem) -> Iterator[Document]:
    """Yield one document; the stored text is what a word processor shows, tables as named values.

    Raises:
        LoadError: It is not RTF, or has no text.
    """
    from striprtf.striprtf import rtf_to_text

    if not data.lstrip().startswith(b"{\\rtf"):
        raise refused(path, "is not in Rich Text Format", "Check what kind of file it is.")
    source = data.decode("cp1252", "replace")
    text = clean(rtf_to_text(source, errors="replace"))
    losses = Losses(on_problem)
    for match in _CONTROL.finditer(source):
        losses.add(_UNREAD[match[1]])
    losses.report()
    builder = Builder()
    _write(builder, text)
    yield Document(builder.text, finished(path, builder.text, builder.blocks))


def _write(builder: Builder, text: str) -> None:
    """Write the lines, each of which is a paragraph; a cell ends with a bar."""
    table: list[list[str]] = []
    for start, end in [*lines(text, 0, len(text)), (len(text), len(text))]:
        line = text[start:end]
        if line.endswith("|"):
            table.append(line[:-1].split("|"))
            continue
        write_table(builder, table)
        table = []
        builder.add(line)
