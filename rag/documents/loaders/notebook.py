"""Jupyter notebooks: Markdown cells as Markdown, code cells as code, and short text outputs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from rag.documents.loaders._blocks import Builder, Sections, finished, shifted
from rag.documents.loaders._fields import scalars
from rag.documents.loaders._losses import Losses
from rag.documents.loaders._text import OnProblem, clean, decode, refused
from rag.documents.loaders.markdown import scan
from rag.types import Block, Document

_OUTPUT_LIMIT = 1_000
"""Maximum characters of a cell's output; the rest is dropped."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def load(path: Path, data: bytes, on_problem: OnProblem) -> Iterator[Document]:
    """Yield one document; the stored text is the cells' sources and outputs, separated by blank lines.

    Raises:
        LoadError: The file is not a notebook.
    """
    try:
        value = json.loads(decode(path, data, on_problem))
    except json.JSONDecodeError as error:
        problem = f"is not valid JSON in line {error.lineno}, column {error.colno}: {error.msg}"
        raise refused(path, problem, "Open it in Jupyter and save it again.") from error
    builder = Builder()
    sections = Sections()
    losses = Losses(on_problem)
    blocks: list[Block] = []
    for cell in _cells(path, value):
        _write_cell(builder, blocks, sections, cell, losses)
    losses.report()
    text = builder.text
    yield Document(
        text,
        finished(path, text, blocks),
        title=sections.title,
        metadata=scalars({"language": _language(value)}),
    )


def _cells(path: Path, value: object) -> list[dict[str, object]]:
    """Return the cells of format 4 (``cells``) or 3 (``worksheets``)."""
    cells = value.get("cells") if isinstance(value, dict) else None
    if cells is None and isinstance(value, dict) and isinstance(value.get("worksheets"), list):
        sheets = [sheet for sheet in value["worksheets"] if isinstance(sheet, dict)]
        cells = [cell for sheet in sheets for cell in sheet.get("cells") or []]
    if not isinstance(cells, list):
        raise refused(path, "is JSON but not a notebook: it has no cells", "Check what kind of file it is.")
    return [cell for cell in cells if isinstance(cell, dict)]


def _language(value: object) -> object:
    metadata = value.get("metadata") if isinstance(value, dict) else None
    kernel = metadata.get("kernelspec") if isinstance(metadata, dict) else None
    return kernel.get("language") if isinstance(kernel, dict) else None


def _write_cell(
    builder: Builder, blocks: list[Block], sections: Sections, cell: dict[str, object], losses: Losses
) -> None:
    """Append a cell and its outputs, and their blocks."""
    source = clean(_joined(cell.get("source", cell.get("input")))).strip()
    kind = cell.get("cell_type")
    code = kind == "code"
    found: list[Block] = []
    if kind == "markdown":
        source, found = scan(source, sections, losses)
    start = builder.add(source, "code" if code else "text", sections.path)
    if start is None:
        return
    if kind == "markdown":
        blocks.extend(shifted(block, start) for block in found)
    else:
        blocks.append(builder.blocks[-1])
    before = len(builder.blocks)
    for output in _outputs(cell, losses) if code else ():
        builder.add(output, "code", sections.path)
    blocks.extend(builder.blocks[before:])


def _joined(value: object) -> str:
    """Join text that a notebook stores whole or as a list of lines."""
    if isinstance(value, list):
        return "".join(line for line in value if isinstance(line, str))
    return value if isinstance(value, str) else ""


def _outputs(cell: dict[str, object], losses: Losses) -> Iterator[str]:
    """Yield the text outputs of a code cell, without images and HTML."""
    outputs = cell.get("outputs")
    room = _OUTPUT_LIMIT
    for output in outputs if isinstance(outputs, list) else []:
        if not isinstance(output, dict):
            continue
        data = output.get("data")
        if output.get("output_type") == "error":
            text = f"{output.get('ename', '')}: {output.get('evalue', '')}"
        elif isinstance(data, dict):
            text = _joined(data.get("text/plain"))
            if any(kind.startswith("image/") for kind in data):
                losses.add("picture", "", "text in pictures is not recognized")
        else:
            text = _joined(output.get("text"))
        if len(text) > room:
            losses.add("long output", "", f"only its first {_OUTPUT_LIMIT:,} characters are")
        text = text[:room]
        room -= len(text)
        yield _COLOUR.sub("", clean(text))
