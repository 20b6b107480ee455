"""Word documents: paragraphs, headings by style, tables, notes, and what stands around the pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rag.documents.loaders import _word as word
from rag.documents.loaders._blocks import Builder, Sections, finished
from rag.documents.loaders._charts import write_chart
from rag.documents.loaders._fields import written_title
from rag.documents.loaders._losses import Losses
from rag.documents.loaders._office import described, unpacked
from rag.documents.loaders._tables import grid, write_table
from rag.documents.loaders._text import OnProblem, refused
from rag.types import Document

# A page header or footer that only counts the pages.
_PAGE_NUMBER = re.compile(
    r"(?:\W|\d|page|seite|sida|side|pagina|página|of|von|av|af|de|di|van|sur)*", re.IGNORECASE
)


def load(path: Path, data: bytes, on_problem: OnProblem) -> Iterator[Document]:
    """Yield one document; notes follow the paragraph or table that refers to them."""
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
    writer = _Writer(file.part, names, Losses(on_problem))
    writer.write(file.element.body)
    builder = writer.builder
    properties = file.core_properties
    yield Document(
        builder.text,
        finished(path, builder.text, builder.blocks),
        title=written_title(properties.title) or writer.sections.title,
        metadata=described(properties),
        date=properties.created.date() if properties.created else None,
    )


class _Writer:
    """Writes the parts of a file in reading order."""

    def __init__(self, part: Any, styles: dict[str, str], losses: Losses) -> None:
        self.builder = Builder()
        self.sections = Sections()
        self._parts = {rel.rId: rel.target_part for rel in part.rels.values() if not rel.is_external}
        self._kinds = {rel.rId: rel.reltype.rpartition("/")[2] for rel in part.rels.values()}
        self._styles = styles
        self._losses = losses
        self._notes = {kind: word.notes(self._roots(f"{kind}s")) for kind in ("footnote", "endnote", "comment")}
        self._count = dict.fromkeys(self._notes, 0)

    def write(self, body: Any) -> None:
        """Write page headers, the body with its notes, and page footers; then report what was not read."""
        self._write_around("header")
        for element in word.content(body):
            if element.tag == word.TABLE:
                rows = word.table_rows(element)
                write_table(
                    self.builder,
                    grid(cells for cells, _ in rows),
                    self.sections.path,
                    header_rows=sum(1 for _, heads in rows if heads) or None,
                )
            else:
                self._write_paragraph(element)
            self._write_beside(element)
        self._write_around("footer")
        self._losses.report()

    def _write_paragraph(self, element: Any) -> None:
        text = word.text(element).strip()
        style = self._styles.get(element.style or "", "")
        level = _level(style)
        if level is not None and text:
            self.builder.add(text, "heading", self.sections.enter(level, text))
        elif style.startswith("List"):
            self.builder.add(text and f"- {text}", "text", self.sections.path, gap="\n")
        else:
            self.builder.add(text, "text", self.sections.path)

    def _write_beside(self, element: Any) -> None:
        """Write what an element refers to: notes, comments and charts."""
        for found in word.visible(element):
            kind = word.REFERENCES.get(found.tag)
            if kind:
                self._count[kind] += 1
                note = self._notes[kind].get(found.get(word.ID))
                if note:
                    author = f" by {note.author}" if note.author else f" {self._count[kind]}"
                    self.builder.add(f"{kind.capitalize()}{author}: {note.text}", "text", self.sections.path)
            elif found.tag == word.CHART:
                part = self._parts.get(found.get(word.RELATION))
                if part is None or not write_chart(self.builder, word.parsed(part), self.sections.path):
                    self._losses.add("chart", self._place)
            elif found.tag == word.DRAWING:
                self._write_picture(found)
            elif found.tag == word.EQUATION:
                self._losses.add("equation", self._place, "only its characters are, without fractions and powers")
            elif word.is_unknown_symbol(found):
                self._losses.add("symbol", self._place, "its font is not known")
            elif found.tag in word.UNREAD:
                self._losses.add(word.UNREAD[found.tag], self._place)

    def _write_picture(self, drawing: Any) -> None:
        alternative, is_picture = word.picture(drawing)
        self.builder.add(alternative and f"Picture: {alternative}", "text", self.sections.path)
        if is_picture:
            self._losses.add("picture", self._place, "text in pictures is not recognized")

    @property
    def _place(self) -> str:
        return f"under “{self.sections.path[-1]}”" if self.sections.path else ""

    def _write_around(self, kind: str) -> None:
        """Write the texts of page headers or footers, each once."""
        found: dict[str, None] = {}
        for root in self._roots(kind):
            lines = (" ".join(word.text(one).split()) for one in word.content(root, whole_tables=False))
            text = "\n".join(line for line in lines if line)
            if text and not _PAGE_NUMBER.fullmatch(text):
                found[text] = None
        for text in found:
            self.builder.add(f"Page {kind}: {text}", "text")

    def _roots(self, kind: str) -> list[Any]:
        """Return the root elements of the parts of a kind, such as ``header``."""
        return [
            word.parsed(self._parts[rid])
            for rid, found in self._kinds.items()
            if found == kind and rid in self._parts
        ]


def _level(style: str) -> int | None:
    """Return the level of a heading style (0 for a title), or None for any other style."""
    if style == "Title":
        return 0
    name, _, number = style.partition(" ")
    return int(number) if name.lower() == "heading" and number.isdecimal() else None
