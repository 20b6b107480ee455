"""Word documents: paragraphs, headings by style, table rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rag.documents.loaders._blocks import Builder, Sections, finished
from rag.documents.loaders._fields import written_title
from rag.documents.loaders._office import described, unpacked
from rag.documents.loaders._text import OnProblem, refused
from rag.types import Document

_MARKUP = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_PARAGRAPH, _TABLE, _ROW, _CELL = (f"{_MARKUP}{tag}" for tag in ("p", "tbl", "tr", "tc"))
_BREAKS = {f"{_MARKUP}tab": "\t", f"{_MARKUP}br": "\n", f"{_MARKUP}cr": "\n", f"{_MARKUP}noBreakHyphen": "-"}
_TEXT = f"{_MARKUP}t"
# Deleted text, moved text at its old position, tab stops, and the fallback drawing of a text box.
_HIDDEN = {f"{_MARKUP}del", f"{_MARKUP}moveFrom", f"{_MARKUP}pPr", f"{_MARKUP}rPr", _FALLBACK}


def load(path: Path, data: bytes, on_problem: OnProblem) -> Iterator[Document]:
    """Yield one document; the stored text separates paragraphs by blank lines and cells by ``|``."""
    import docx

    stream = unpacked(path, data, "word/document.xml")
    try:
        file = docx.Document(stream)
        names = {style.style_id: style.name or "" for style in file.styles}
    except MemoryError:
        raise
    except Exception as error:  # python-docx does not translate the errors of its parser.
        fix = "Open it in a word processor and save it again, or leave it out."
        raise refused(path, f"is not a readable Word file ({error})", fix) from error
    builder = Builder()
    sections = Sections()
    for element in _content(file.element.body):
        if element.tag == _ROW:
            builder.add(_row(element), "row", sections.path, gap="\n")
            continue
        text = _text(element).strip()
        style = names.get(element.style or "", "")
        level = _level(style)
        if level is not None and text:
            builder.add(text, "heading", sections.enter(level, text))
        elif style.startswith("List"):
            builder.add(text and f"- {text}", "text", sections.path, gap="\n")
        else:
            builder.add(text, "text", sections.path)
    properties = file.core_properties
    yield Document(
        builder.text,
        finished(path, builder.text, builder.blocks),
        title=written_title(properties.title) or sections.title,
        metadata=described(properties),
        date=properties.created.date() if properties.created else None,
    )


def _level(style: str) -> int | None:
    """Return the level of a heading style (0 for a title), or None for any other style."""
    if style == "Title":
        return 0
    name, _, number = style.partition(" ")
    return int(number) if name.lower() == "heading" and number.isdecimal() else None


def _content(body: Any) -> Iterator[Any]:
    """Yield paragraphs and table rows in order, including those in content controls, without recursion.

    The content of a row is not yielded again.
    """
    waiting = [body]
    while waiting:
        element = waiting.pop()
        if element.tag in (_PARAGRAPH, _ROW):
            yield element
        elif element.tag not in _HIDDEN:
            waiting.extend(reversed(element))


def _row(row: Any) -> str:
    """Join the cells of a row; a nested table counts as text of its cell."""
    cells = (" ".join(_text(cell).split()) for cell in row.iterchildren() if cell.tag != f"{_MARKUP}trPr")
    return " | ".join(cell for cell in cells if cell)


def _text(element: Any) -> str:
    """Return the visible text, with tracked insertions and without tracked deletions, without recursion."""
    pieces: list[str] = []
    waiting = [element]
    while waiting:
        child = waiting.pop()
        if child.tag == _TEXT:
            pieces.append(child.text or "")
        elif child.tag in _BREAKS:
            pieces.append(_BREAKS[child.tag])
        elif child.tag not in _HIDDEN:
            if child.tag == _PARAGRAPH and child is not element:
                pieces.append("\n")
            waiting.extend(reversed(child))
    return "".join(pieces)
