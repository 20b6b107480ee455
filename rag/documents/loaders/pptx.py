"""PowerPoint: every slide is a page with its title as heading, then text, table rows and notes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rag.documents.loaders._blocks import Builder, finished, one_line
from rag.documents.loaders._fields import written_title
from rag.documents.loaders._office import described, unpacked
from rag.documents.loaders._text import OnProblem, refused
from rag.types import Document


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
    for number, slide in enumerate(slides, start=1):
        _write_slide(builder, slide, number)
    properties = file.core_properties
    first = next((block.headings[0] for block in builder.blocks if block.kind == "heading"), None)
    yield Document(
        builder.text,
        finished(path, builder.text, builder.blocks),
        title=written_title(properties.title) or first,
        metadata=described(properties) | {"slides": len(slides)},
        date=properties.created.date() if properties.created else None,
    )


def _write_slide(builder: Builder, slide: Any, number: int) -> None:
    shape = slide.shapes.title
    title = one_line(shape.text_frame.text) if shape is not None else ""
    headings = (title,) if title else ()
    builder.add(title, "heading", headings, number)
    for other in _shapes(slide.shapes):
        if shape is not None and other.shape_id == shape.shape_id:
            continue
        if getattr(other, "has_table", False):
            for row in other.table.rows:
                cells = (" ".join(cell.text.split()) for cell in row.cells)
                builder.add(" | ".join(cell for cell in cells if cell), "row", headings, number, "\n")
        elif other.has_text_frame:
            for paragraph in other.text_frame.paragraphs:
                builder.add(paragraph.text.replace("\v", "\n"), "text", headings, number, "\n")
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        notes = slide.notes_slide.notes_text_frame.text.replace("\v", "\n").strip()
        builder.add(notes and f"Notes: {notes}", "text", headings, number)


def _shapes(shapes: Any) -> Iterator[Any]:
    """Yield shapes in order, including those inside groups, without recursion."""
    waiting = list(reversed(list(shapes)))
    while waiting:
        shape = waiting.pop()
        if hasattr(shape, "shapes"):
            waiting.extend(reversed(list(shape.shapes)))
        else:
            yield shape
