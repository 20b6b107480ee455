"""Rich Text Format: its paragraphs, tables and notes, without pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from rag.documents.loaders._blocks import Builder, finished, lines
from rag.documents.loaders._fields import written_title
from rag.documents.loaders._losses import Losses
from rag.documents.loaders._tables import write_table
from rag.documents.loaders._text import OnProblem, clean, refused
from rag.types import Document

# What the converter leaves out, by the words that begin it.
_UNREAD = {"pict": "picture", "object": "embedded object", "moMath": "equation"}
_CONTROL = re.compile(r"\\(pict|object|moMath)(?![A-Za-z])")
# What it leaves out and can convert by itself; headers may be for left, right and first pages.
_BESIDE = {"footnote": "Footnote", "annotation": "Comment", "header": "Page header", "footer": "Page footer"}
_GROUP = re.compile(r"\{(?:\\\*)?\s*\\(footnote|annotation|header|footer)[lrf]?(?![a-z])")
_BRACE = re.compile(r"\\[\\{}]|[{}]")
_CODE_PAGE = re.compile(r"\\ansicpg\d+")
_TITLE = re.compile(r"\{\\title\b")


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
    for name, note in _beside(source, _GROUP):
        builder.add(f"{_BESIDE[name]}: {note}")
    title = next((written_title(text) for _, text in _beside(source, _TITLE)), None)
    yield Document(builder.text, finished(path, builder.text, builder.blocks), title=title)


def _beside(source: str, pattern: re.Pattern[str]) -> dict[tuple[str, str], None]:
    """Return the texts of the groups that begin with a pattern, each once, with what it captured."""
    from striprtf.striprtf import rtf_to_text

    code_page = _CODE_PAGE.search(source)
    head = rf"{{\rtf1\ansi{code_page[0] if code_page else ''} "
    found: dict[tuple[str, str], None] = {}
    end = 0
    for match in pattern.finditer(source):
        if match.start() < end:
            continue  # Inside the group before.
        end = _end_of_group(source, match.end())
        text = " ".join(clean(rtf_to_text(f"{head}{source[match.end() : end]}}}", errors="replace")).split())
        if text:
            found[match[1] if pattern.groups else "", text] = None
    return found


def _end_of_group(source: str, start: int) -> int:
    """Return the offset of the brace that closes the group which contains ``start``."""
    depth = 1
    for match in _BRACE.finditer(source, start):
        depth += (match[0] == "{") - (match[0] == "}")
        if not depth:
            return match.start()
    return len(source)


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
