"""Excel workbooks: every sheet is a section, its tables written as named values."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from itertools import chain
from pathlib import Path
from typing import Any

from rag.documents.loaders._blocks import Builder, finished, one_line
from rag.documents.loaders._charts import write_chart
from rag.documents.loaders._fields import written_title
from rag.documents.loaders._losses import Losses
from rag.documents.loaders._office import described, unpacked
from rag.documents.loaders._tables import Cell, grid, write_table
from rag.documents.loaders._text import OnProblem, refused
from rag.types import Document

_MERGED = re.compile(rb'<mergeCell ref="([A-Z]{1,3})(\d{1,7}):([A-Z]{1,3})(\d{1,7})"')
# A formula whose result the program has not stored.
_UNSOLVED = re.compile(rb"<f(?:\s[^>]*)?(?:/>|>[^<]*</f>)(?:<v\s*/>|<v></v>)?</c>")
_PERCENT = re.compile(r"0(?:\.(0+))?%")
_MOST_COLUMNS = 1_000
_MOST_MERGED = 100
"""Maximum columns and rows of a merged cell."""


def load(path: Path, data: bytes, on_problem: OnProblem) -> Iterator[Document]:
    """Yield one document; the stored text is a rendering of all sheets, with the results of formulas."""
    import openpyxl

    stream = unpacked(path, data, "xl/workbook.xml")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # About features that openpyxl does not keep, and nothing else.
            book = openpyxl.load_workbook(stream, read_only=True, data_only=True)
    except MemoryError:
        raise
    except Exception as error:  # openpyxl does not translate the errors of its parser.
        fix = "Open it in a spreadsheet program and save it again, or leave it out."
        raise refused(path, f"is not a readable Excel file ({error})", fix) from error
    builder = Builder()
    losses = Losses(on_problem)
    names: list[str] = []
    with zipfile.ZipFile(stream) as archive:
        for sheet in book.worksheets:
            names.append(sheet.title)
            _write_sheet(builder, losses, archive, sheet)
        _write_beside(builder, losses, archive)
    losses.report()
    properties = book.properties
    text, blocks = builder.text, builder.blocks
    if all(block.kind == "heading" for block in blocks):
        raise refused(path, "has no cells to read", "Leave it out.")
    yield Document(
        text,
        finished(path, text, blocks),
        title=written_title(properties.title),
        metadata=_described(properties) | {"sheets": ", ".join(names)[:2_000]},
        date=properties.created.date() if isinstance(properties.created, datetime) else None,
    )


def _described(properties: Any) -> dict[str, Any]:
    """Return the metadata of a workbook, whose author has another name than in other Office files."""
    found = described(_Named(properties))
    return {key: value for key, value in found.items() if value != "openpyxl"}


class _Named:
    """Core properties under the names that Word and PowerPoint files have."""

    def __init__(self, properties: Any) -> None:
        self.author = properties.creator or ""
        self.subject = properties.subject or ""
        self.keywords = properties.keywords or ""
        self.category = properties.category or ""


def _write_sheet(builder: Builder, losses: Losses, archive: zipfile.ZipFile, sheet: Any) -> None:
    title = one_line(sheet.title)
    builder.add(title, "heading", (title,))
    with archive.open(sheet._worksheet_path) as part:
        source = part.read()
    for _ in range(len(_UNSOLVED.findall(source))):
        losses.add("formula", f"sheet {title}", "its result is missing; save the file in its program")
    merged = _merged(source)
    del source
    for rows in _tables(_rows(sheet, merged)):
        write_table(builder, rows, (title,))


def _merged(source: bytes) -> dict[tuple[int, int], tuple[int, int]]:
    """Return how many columns and rows the merged cell at a row and column, from 1, covers."""
    found = {}
    for left, top, right, bottom in _MERGED.findall(source):
        row, column = int(top), _column(left)
        across, down = _column(right) - column + 1, int(bottom) - row + 1
        found[row, column] = (min(across, _MOST_MERGED), min(down, _MOST_MERGED))
    return found


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + letter - ord("A") + 1
    return number


def _rows(sheet: Any, merged: dict[tuple[int, int], tuple[int, int]]) -> Iterator[list[str]]:
    """Yield the rows as texts, merged cells repeated; an empty list is an empty row."""
    sheet.reset_dimensions()  # Programs write wrong ones.

    def cells() -> Iterator[list[Cell]]:
        covered: set[tuple[int, int]] = set()
        for number, row in enumerate(sheet.iter_rows(max_col=_MOST_COLUMNS), start=1):
            found: list[Cell] = []
            for column, cell in enumerate(row, start=1):
                if (number, column) in covered:
                    covered.remove((number, column))
                    continue
                across, down = merged.get((number, column), (1, 1))
                covered |= {(number + y, column + x) for y in range(down) for x in range(across) if x or y}
                found.append(Cell(_shown(cell), across, down))
            yield found

    yield from grid(cells())


def _shown(cell: Any) -> str:
    """Return a value as the sheet shows it, but for the number of decimals."""
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(" ", "minutes")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, time):
        return value.isoformat("minutes")
    if isinstance(value, int | float):
        percent = _PERCENT.search(str(cell.number_format))
        if percent:
            return f"{value * 100:.{len(percent[1] or '')}f}%"
        return str(value) if isinstance(value, int) else f"{value:.12g}"
    return str(value)


def _tables(rows: Iterator[list[str]]) -> Iterator[list[Sequence[str]]]:
    """Yield the tables of a sheet; one may have empty rows, and another begins below one with its own names."""
    table: list[Sequence[str]] = []
    part: list[Sequence[str]] = []
    for row in chain(rows, ([],)):
        if any(cell.strip() for cell in row):
            part.append(row)
            continue
        if table and part and _begins(part):
            yield _without_margin(table)
            table = []
        table += part
        part = []
    if table:
        yield _without_margin(table)


def _begins(rows: list[Sequence[str]]) -> bool:
    """Whether rows below an empty one are another table: with a caption, or names above columns of figures."""
    first, *others = ([cell.strip() for cell in row] for row in rows)
    if not others:
        return False
    if sum(1 for cell in first if cell) == 1:
        return True
    if any(c.isdecimal() for cell in first for c in cell):
        return False
    return any(
        name and all(at < len(row) and any(c.isdecimal() for c in row[at]) for row in others)
        for at, name in enumerate(first)
    )


def _without_margin(rows: list[Sequence[str]]) -> list[Sequence[str]]:
    """Return the rows without empty columns on the left."""
    margin = min(next(at for at, cell in enumerate(row) if cell.strip()) for row in rows)
    return [row[margin:] for row in rows]


def _write_beside(builder: Builder, losses: Losses, archive: zipfile.ZipFile) -> None:
    """Write charts, comments and text boxes, and count pictures."""
    from docx.oxml import parse_xml

    written: set[str] = set()
    for name in sorted(archive.namelist()):
        folder, _, file = name.rpartition("/")
        if folder == "xl/media":
            losses.add("picture", "", "text in pictures is not recognized")
        elif folder == "xl/charts" and file.startswith("chart"):
            if not write_chart(builder, parse_xml(archive.read(name)), ()):
                losses.add("chart")
        elif name.startswith(("xl/comments", "xl/threadedComments/", "xl/drawings/")) and name.endswith(".xml"):
            kind = "Text box" if folder == "xl/drawings" else "Comment"
            for text in _texts(parse_xml(archive.read(name))):
                # Programs store a comment for older ones too.
                if text not in written:
                    builder.add(f"{kind}: {text}")
                written.add(text)


def _texts(element: Any) -> Iterator[str]:
    """Yield the text of every comment or text box in a part."""
    for box in element.iter("*"):
        if _name(box) in ("comment", "threadedComment", "txBody"):
            parts = (part.text or "" for part in box.iter("*") if _name(part) in ("t", "text"))
            text = " ".join("".join(parts).split())
            if text:
                yield text


def _name(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]
