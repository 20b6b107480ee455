"""PowerPoint: every slide is a page with its title as heading, then text, tables, charts, notes and comments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rag.documents.loaders._blocks import Builder, finished, one_line
from rag.documents.loaders._charts import write_chart
from rag.documents.loaders._fields import written_title
from rag.documents.loaders._losses import Losses
from rag.documents.loaders._office import GENERATED, SMALL, described, unpacked
from rag.documents.loaders._tables import Cell, grid, write_table
from rag.documents.loaders._text import OnProblem, refused
from rag.types import Document

_EQUATION = "{http://schemas.openxmlformats.org/officeDocument/2006/math}oMath"
_DIAGRAM = "{http://schemas.openxmlformats.org/drawingml/2006/diagram}relIds"


def load(path: Path, data: bytes, on_problem: OnProblem) -> Iterator[Document]:
    """Yield one document; the stored text is a rendering of all slides."""
    import pptx

    stream = unpacked(path, data, "ppt/presentation.xml")
    try:
        file = pptx.Presentation(stream)
        slides = list(file.slides)
    except MemoryError:
        raise
    except Exception as error:  # python-pptx does not translate the errors of its parser.
        fix = "Open it in a presentation program and save it again, or leave it out."
        raise refused(path, f"is not a readable PowerPoint file ({error})", fix) from error
    builder = Builder()
    losses = Losses(on_problem)
    for number, slide in enumerate(slides, start=1):
        _write_slide(builder, losses, slide, number)
    losses.report()
    properties = file.core_properties
    first = next((block.headings[0] for block in builder.blocks if block.kind == "heading"), None)
    yield Document(
        builder.text,
        finished(path, builder.text, builder.blocks),
        title=written_title(properties.title) or first,
        metadata=described(properties) | {"slides": len(slides)},
        date=properties.created.date() if properties.created else None,
    )


def _write_slide(builder: Builder, losses: Losses, slide: Any, number: int) -> None:
    shape = slide.shapes.title
    title = one_line(shape.text_frame.text) if shape is not None else ""
    headings = (title,) if title else ()
    builder.add(title, "heading", headings, number)
    for other in _shapes(slide.shapes):
        if shape is not None and other.shape_id == shape.shape_id:
            continue
        if getattr(other, "has_table", False):
            write_table(builder, grid(_rows(other.table)), headings, number)
        elif getattr(other, "has_chart", False):
            if not write_chart(builder, other.chart.element, headings, number):
                losses.add("chart", f"slide {number}")
        elif other.has_text_frame:
            for paragraph in other.text_frame.paragraphs:
                builder.add(paragraph.text.replace("\v", "\n"), "text", headings, number, "\n")
        else:
            _write_unread(builder, losses, other, headings, number)
    for _ in slide.element.iter(_EQUATION):
        losses.add("equation", f"slide {number}")
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        notes = slide.notes_slide.notes_text_frame.text.replace("\v", "\n").strip()
        builder.add(notes and f"Notes: {notes}", "text", headings, number)
    for comment in _comments(slide):
        builder.add(f"Comment: {comment}", "text", headings, number)


def _rows(table: Any) -> Iterator[list[Cell]]:
    for row in table.rows:
        yield [
            Cell(cell.text, cell.span_width, cell.span_height) if cell.is_merge_origin else Cell(cell.text)
            for cell in row.cells
            if not cell.is_spanned
        ]


def _write_unread(builder: Builder, losses: Losses, shape: Any, headings: tuple[str, ...], number: int) -> None:
    """Write the alternative text of a picture, diagram or embedded object, and count it as not read."""
    properties = next((e for e in shape.element.iter() if str(e.tag).endswith("}cNvPr")), None)
    alternative = (properties.get("descr") or "").strip() if properties is not None else ""
    if GENERATED not in alternative.lower():
        builder.add(alternative and f"Picture: {alternative}", "text", headings, number)
    tag = shape.element.tag.rpartition("}")[2]
    if tag == "pic":
        if max(shape.width or SMALL, shape.height or SMALL) >= SMALL:
            losses.add("picture", f"slide {number}", "text in pictures is not recognized")
    elif tag == "graphicFrame":
        kind = "diagram" if next(shape.element.iter(_DIAGRAM), None) is not None else "embedded object"
        losses.add(kind, f"slide {number}")


def _comments(slide: Any) -> Iterator[str]:
    """Yield the texts of the comments on a slide, of both formats that programs write."""
    from pptx.oxml import parse_xml

    for relation in slide.part.rels.values():
        if relation.is_external or not relation.reltype.endswith("/comments"):
            continue
        for element in parse_xml(relation.target_part.blob).iter():
            if str(element.tag).endswith(("/main}text", "}txBody")):
                text = " ".join("".join(element.itertext()).split())
                if text:
                    yield text


def _shapes(shapes: Any) -> Iterator[Any]:
    """Yield shapes in order, including those inside groups, without recursion."""
    waiting = list(reversed(list(shapes)))
    while waiting:
        shape = waiting.pop()
        if hasattr(shape, "shapes"):
            waiting.extend(reversed(list(shape.shapes)))
        else:
            yield shape
