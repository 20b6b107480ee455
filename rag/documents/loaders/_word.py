"""The markup of Word files: walking it without recursion, and the texts of its elements."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rag.documents.loaders._office import GENERATED, SMALL
from rag.documents.loaders._tables import Cell

_MARKUP = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_MATH = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_OFFICE = "{urn:schemas-microsoft-com:office:office}"
_DRAWN = "{http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing}"
_PICTURE = "{http://schemas.openxmlformats.org/drawingml/2006/picture}pic"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"

PARAGRAPH, TABLE, _ROW, _CELL = (f"{_MARKUP}{tag}" for tag in ("p", "tbl", "tr", "tc"))
ID = f"{_MARKUP}id"
RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
CHART = "{http://schemas.openxmlformats.org/drawingml/2006/chart}chart"
DRAWING = f"{_MARKUP}drawing"
EQUATION = f"{_MATH}oMath"
REFERENCES = {f"{_MARKUP}{kind}Reference": kind for kind in ("footnote", "endnote", "comment")}
UNREAD = {
    f"{_OFFICE}OLEObject": "embedded object",
    f"{_MARKUP}altChunk": "embedded document",
    f"{_MARKUP}subDoc": "linked document",
    "{http://schemas.openxmlformats.org/drawingml/2006/diagram}relIds": "diagram",
    "{urn:schemas-microsoft-com:vml}imagedata": "picture",
}
_BOX = f"{_MARKUP}txbxContent"
_BREAKS = {f"{_MARKUP}tab": "\t", f"{_MARKUP}br": "\n", f"{_MARKUP}cr": "\n", f"{_MARKUP}noBreakHyphen": "-"}
_TEXTS = {f"{_MARKUP}t", f"{_MATH}t"}
# Deleted text, moved text at its old position, tab stops, and the fallback drawing of a text box.
_HIDDEN = {f"{_MARKUP}del", f"{_MARKUP}moveFrom", f"{_MARKUP}pPr", f"{_MARKUP}rPr", _FALLBACK}
_MOST_COLUMNS = 200
_SYMBOL = f"{_MARKUP}sym"
_SYMBOLS = {
    "symbol": {
        **dict(zip(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "ΑΒΧΔΕΦΓΗΙϑΚΛΜΝΟΠΘΡΣΤΥςΩΞΨΖ", strict=True)),
        **dict(zip(b"abcdefghijklmnopqrstuvwxyz", "αβχδεφγηιϕκλμνοπθρστυϖωξψζ", strict=True)),
        **dict(zip(b"\xa3\xa5\xae\xb0\xb1\xb3\xb4\xb7\xb8\xb9\xbb\xe5\xd6", "≤∞→°±≥×•÷≠≈∑√", strict=True)),
    },
    "wingdings": dict(zip(b"\x6f\xa8\xd8\xe0\xfb\xfc\xfd\xfe", "☐☐➢→✗✓☒☑", strict=True)),
}
"""Characters of symbol fonts by their numbers: letters and signs of calculation of Symbol, marks of Wingdings."""


@dataclass(frozen=True, slots=True)
class Note:
    """A footnote, endnote or comment; only a comment has an author."""

    text: str
    author: str


def parsed(part: Any) -> Any:
    """Return the root element of a part of the archive."""
    from docx.oxml import parse_xml

    return parse_xml(part.blob)


def content(body: Any, *, whole_tables: bool = True) -> Iterator[Any]:
    """Yield paragraphs and tables in order, including those in content controls and text boxes.

    Text boxes follow the paragraph they are anchored in. The content of a table is not yielded, except with
    ``whole_tables`` off.
    """
    waiting = [body]
    while waiting:
        element = waiting.pop()
        if element.tag == PARAGRAPH or (element.tag == TABLE and whole_tables):
            yield element
            waiting.extend(reversed(list(_boxes(element))))
        elif element.tag not in _HIDDEN:
            waiting.extend(reversed(element))


def visible(element: Any, outside: frozenset[str] = frozenset({_BOX})) -> Iterator[Any]:
    """Yield the elements below one in order, without hidden ones and the content of those ``outside``."""
    waiting = list(reversed(element))
    while waiting:
        child = waiting.pop()
        yield child
        if child.tag not in _HIDDEN and child.tag not in outside:
            waiting.extend(reversed(child))


def _boxes(element: Any) -> Iterator[Any]:
    return (child for child in visible(element) if child.tag == _BOX)


def text(element: Any) -> str:
    """Return the visible text, with tracked insertions and without tracked deletions and text boxes."""
    pieces: list[str] = []
    for child in visible(element):
        if child.tag in _TEXTS:
            pieces.append(child.text or "")
        elif child.tag in _FIELDS:
            pieces.append(_FIELDS[child.tag](child))
        elif child.tag in _BREAKS and child.getparent().tag != f"{_MARKUP}tabs":
            pieces.append(_BREAKS[child.tag])
        elif child.tag == PARAGRAPH:
            pieces.append("\n")
    return "".join(pieces)


def _symbol(element: Any) -> str:
    """Return a character of a symbol font, whose numbers are those of the font; empty if it is not known."""
    table = _SYMBOLS.get(element.get(f"{_MARKUP}font", "").lower(), {})
    code = element.get(f"{_MARKUP}char", "")
    return table.get(int(code, 16) & 0xFF, "") if re.fullmatch("[0-9A-Fa-f]{1,4}", code) else ""


def is_unknown_symbol(element: Any) -> bool:
    """Whether an element is a character of a symbol font that is not read."""
    return element.tag == _SYMBOL and not _symbol(element)


def _checked(box: Any) -> str:
    """Return the state of a check box of a form."""
    states = [box.find(f"{_MARKUP}{name}") for name in ("checked", "default")]
    state = next((found for found in states if found is not None), None)
    off = state is None or state.get(f"{_MARKUP}val", "1") in ("0", "false", "off")
    return "☐" if off else "☒"


def _chosen(choices: Any) -> str:
    """Return the chosen entry of a list of a form."""
    entries = [entry.get(f"{_MARKUP}val", "") for entry in choices.findall(f"{_MARKUP}listEntry")]
    result = _number(choices, "result")
    return entries[result] if result < len(entries) else ""


_FIELDS = {_SYMBOL: _symbol, f"{_MARKUP}checkBox": _checked, f"{_MARKUP}ddList": _chosen}


def table_rows(table: Any) -> list[tuple[list[Cell], bool]]:
    """Return the cells of every row, and whether it is marked as a header; a nested table is text of its cell."""
    found: list[tuple[list[Cell], bool]] = []
    opened: dict[int, tuple[int, int]] = {}  # Row and place of the cell that reaches down into a column.
    for row in _below(table, _ROW):
        properties = row.find(f"{_MARKUP}trPr")
        if properties is not None and properties.find(f"{_MARKUP}del") is not None:
            continue
        before = _number(properties, "gridBefore") if properties is not None else 0
        cells = [Cell("") for _ in range(before)]
        column = before
        for cell in _below(row, _CELL):
            details = cell.find(f"{_MARKUP}tcPr")
            across = max(_number(details, "gridSpan"), 1)
            merged = details.find(f"{_MARKUP}vMerge") if details is not None else None
            if merged is not None and merged.get(f"{_MARKUP}val") != "restart" and column in opened:
                above, place = opened[column]
                known = found[above][0][place]
                found[above][0][place] = Cell(known.text, known.across, known.down + 1)
            else:
                opened.pop(column, None)
                if merged is not None:
                    opened[column] = (len(found), len(cells))
                cells.append(Cell(text(cell), across))
            column += across
        found.append((cells, properties is not None and properties.find(f"{_MARKUP}tblHeader") is not None))
    return found


def _below(element: Any, tag: str) -> Iterator[Any]:
    """Yield the nearest elements with a tag, including those in content controls."""
    return (child for child in visible(element, frozenset({tag, _BOX})) if child.tag == tag)


def _number(element: Any, tag: str) -> int:
    child = element.find(f"{_MARKUP}{tag}") if element is not None else None
    value = child.get(f"{_MARKUP}val", "") if child is not None else ""
    return min(int(value), _MOST_COLUMNS) if value.isdecimal() else 0


def notes(roots: Iterable[Any]) -> dict[str, Note]:
    """Return the notes in the parts of one kind, by id, without separators."""
    return {
        note.get(ID): Note(shown, note.get(f"{_MARKUP}author", ""))
        for root in roots
        for note in root
        if note.get(ID) and (shown := " ".join(text(note).split()))
    }


def picture(drawing: Any) -> tuple[str, bool]:
    """Return the alternative text of a drawing, and whether it is a picture that is large enough to hold text."""
    described = next(drawing.iter(f"{_DRAWN}docPr"), None)
    alternative = (described.get("descr") or "").strip() if described is not None else ""
    if GENERATED in alternative.lower():
        alternative = ""
    extent = next(drawing.iter(f"{_DRAWN}extent"), None)
    sides = [int(extent.get(side, "0")) for side in ("cx", "cy")] if extent is not None else [SMALL]
    return alternative, next(drawing.iter(_PICTURE), None) is not None and max(sides) >= SMALL
