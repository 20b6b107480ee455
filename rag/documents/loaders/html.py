"""HTML: the readable text of a page with headings, list items, table rows and preformatted parts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rag.documents.loaders._blocks import Builder, Sections, finished, one_line
from rag.documents.loaders._fields import date_in, scalars, title_or_none
from rag.documents.loaders._hidden import Hidden, hidden_in
from rag.documents.loaders._html_table import HtmlTable
from rag.documents.loaders._losses import Losses
from rag.documents.loaders._tables import Cell, grid, write_table
from rag.documents.loaders._text import OnProblem, decode, refused
from rag.types import BlockKind, Document

_DECLARED = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?([A-Za-z0-9_-]{2,40})""", re.IGNORECASE)
_SPACE = re.compile(r"\s+")
_DROPPED = {
    "button", "canvas", "embed", "head", "iframe", "math", "nav", "noscript", "object", "rp", "rt", "script",
    "select", "style", "svg", "template", "title",
}  # fmt: skip
# Of what is dropped, that which readers see.
_UNREAD = {"canvas": "drawing", "embed": "embedded object", "iframe": "embedded page", "object": "embedded object"}
_BLOCKS = {
    "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "dialog", "div",
    "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "header", "hr", "legend", "li", "main", "ol",
    "p", "pre", "section", "summary", "table", "tbody", "tfoot", "thead", "tr", "ul",
}  # fmt: skip
_MOST_SPANNED = 1_000
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_META = {"author": "author", "description": "description", "keywords": "keywords", "date": "date",
         "article:published_time": "date", "article:author": "author"}  # fmt: skip


def load(path: Path, data: bytes, on_problem: OnProblem) -> Iterator[Document]:
    """Yield one document; the stored text is the page's text, its blocks separated by blank lines."""
    builder = Builder()
    sections = Sections()
    losses = Losses(on_problem)
    root = write_page(path, decode(path, data, on_problem, declared_encoding(data)), builder, sections, losses)
    losses.report()
    fields: dict[str, object] = {}
    title = None
    if root is not None:
        fields = _meta(root)
        title = next((title_or_none(e.text) for e in root.iter("title") if e.getparent().tag != "svg"), None)
    yield Document(
        builder.text,
        finished(path, builder.text, builder.blocks),
        title=title or sections.title,
        metadata=scalars(fields),
        date=date_in(fields),
    )


def write_page(path: Path, text: str, builder: Builder, sections: Sections, losses: Losses) -> Any:
    """Write the readable text of a page and return its root element; None if it has no elements.

    What readers see but is not read is counted in ``losses``.

    Raises:
        LoadError: It is nested too deeply.
    """
    root = _parse(path, text)
    if root is not None:
        _Reader(hidden_in(root), builder, sections, losses).read(root)
    return root


def declared_encoding(data: bytes) -> str | None:
    """Return the encoding in ``<meta charset>``, with Latin-1 read as Windows-1252, as browsers do."""
    found = _DECLARED.search(data, 0, 4096)
    if found is None:
        return None
    name = found[1].decode("ascii").lower()
    return "cp1252" if name in ("iso-8859-1", "latin1", "ascii", "us-ascii") else name


def _parse(path: Path, text: str) -> Any:
    """Parse a page, or return None if it has no elements; nothing is fetched, and no entities are expanded."""
    from lxml import etree  # type: ignore[import-untyped]

    parser = etree.HTMLParser(
        encoding="utf-8", no_network=True, huge_tree=True, remove_comments=True, remove_pis=True
    )
    # As bytes, because lxml refuses a str with an encoding declaration.
    root = etree.fromstring(text.encode(), parser)
    if any("depth" in entry.message.lower() for entry in parser.error_log):
        # The parser stops there and would return half of the page.
        raise refused(path, "is nested too deeply to be read", "Save the page as plain text and add that.")
    return root


def _meta(root: Any) -> dict[str, object]:
    """Return the metadata in ``<meta>`` and ``<html lang>``."""
    fields: dict[str, object] = {}
    for element in root.iter("meta"):
        name = _META.get((element.get("name") or element.get("property") or "").lower())
        if name:
            fields.setdefault(name, element.get("content"))
    if root.get("lang"):
        fields["language"] = root.get("lang")
    return fields


class _Reader:
    """Walks the tree once, without recursion, and writes a block wherever the page starts a new line.

    Everything inside a table row is inline; a nested table is a table of its own.
    """

    def __init__(self, hidden: Hidden, builder: Builder, sections: Sections, losses: Losses) -> None:
        self.builder = builder
        self.sections = sections
        self._losses = losses
        self._hidden = hidden
        self._inline: list[str] = []
        self._tables: list[HtmlTable] = []
        self._pre = 0
        self._bullet = False

    def read(self, root: Any) -> None:
        """Read every element below ``root``."""
        from lxml import etree

        walker = etree.iterwalk(root, events=("start", "end"))
        for event, element in walker:
            hidden = self._hidden.covers(element)
            gone = hidden or element.tag in _DROPPED
            if event == "start":
                if gone:
                    walker.skip_subtree()
                    if not hidden:
                        self._replace(element)
                    continue
                self._open(element)
                self._write(element.text)
            else:
                if not gone:
                    self._close(element.tag)
                self._write(element.tail)
        self._flush()

    def _replace(self, element: Any) -> None:
        """Write what stands for an element that is dropped, or count it as lost."""
        tag = element.tag
        if tag == "math":
            written = element.get("alttext") or next(element.itertext("annotation"), "")
            if not written.strip():
                written = " ".join(element.itertext())
                place = f"under “{self.sections.path[-1]}”" if self.sections.path else ""
                self._losses.add("equation", place, "only its characters are, without fractions and powers")
            self._write(f" {written} ")
        elif tag == "button" and _opens_text(element):
            self._flush()
            self._write("".join(element.itertext()))
            self._flush()
        elif tag == "svg":
            self._write(" ".join(["", *(" ".join(text.itertext()) for text in element.iter("text")), ""]))
        elif tag in _UNREAD:
            self._losses.add(_UNREAD[tag], one_line(element.get("src") or element.get("data") or ""))

    @property
    def _in_row(self) -> bool:
        return bool(self._tables) and self._tables[-1].in_row

    def _open(self, element: Any) -> None:
        tag = element.tag
        if tag == "img":
            self._write(f" {element.get('alt')} " if element.get("alt") else None)
        elif tag == "table":
            # A table inside a cell follows what is above it in the outer one.
            self._flush_cell()
            self._write_table()
            self._flush()
            self._tables.append(HtmlTable())
        elif tag in ("thead", "tbody", "tfoot") and self._tables:
            self._tables[-1].in_head = tag == "thead"
        elif tag == "tr" and self._tables:
            self._flush()
            self._tables[-1].open_row()
        elif self._in_row and tag in ("td", "th"):
            self._flush_cell()
            table = self._tables[-1]
            table.rows[-1].append(Cell("", _span(element, "colspan"), _span(element, "rowspan")))
            table.heads[0] += tag == "th"
            table.heads[1] += 1
        elif self._in_row and (tag in _BLOCKS or tag in _HEADINGS or tag == "br"):
            self._inline.append(" ")
        elif tag == "br":
            self._inline.append("\n")
        elif tag in _BLOCKS or tag in _HEADINGS:
            self._flush()
            self._bullet = tag == "li" or (self._bullet and tag not in ("ul", "ol"))
            self._pre += tag == "pre"

    def _close(self, tag: str) -> None:
        if tag == "table" and self._tables:
            self._flush_cell()
            self._flush()
            self._write_table()
            self._tables.pop()
        elif tag == "tr" and self._in_row:
            self._flush_cell()
            self._tables[-1].close_row()
        elif self._in_row:
            if tag in _BLOCKS or tag in _HEADINGS:
                self._inline.append(" ")
        elif tag in _HEADINGS:
            title = " ".join("".join(self._inline).split())
            if title:
                self.sections.enter(_HEADINGS[tag], title)
            self._flush("heading")
        elif tag == "caption" and self._tables:
            self._tables[-1].caption = "".join(self._inline)
            self._inline.clear()
        elif tag == "thead" and self._tables:
            self._tables[-1].in_head = False
        elif tag == "pre":
            self._flush("code")
            self._pre = max(self._pre - 1, 0)
        elif tag in _BLOCKS:
            self._flush()
            self._bullet = self._bullet and tag != "li"

    def _flush_cell(self) -> None:
        """Move the collected text into the current cell."""
        if self._in_row:
            row = self._tables[-1].rows[-1]
            text = "".join(self._inline)
            self._inline.clear()
            if row:
                row[-1] = replace(row[-1], text=f"{row[-1].text} {text}")
            elif text.strip():
                row.append(Cell(text))

    def _write_table(self) -> None:
        """Write the rows collected so far."""
        if not self._tables:
            return
        table = self._tables[-1]
        declared = table.declared
        if table.caption.strip():
            table.rows.insert(0, [Cell(table.caption)])
            declared = declared and declared + 1
        if table.rows:
            write_table(self.builder, grid(table.rows), self.sections.path, header_rows=declared)
        table.rows = [[]] if table.in_row else []
        table.header_rows = table.named_rows = 0
        table.caption = ""

    def _write(self, piece: str | None) -> None:
        if piece:
            keep = self._pre and not self._in_row
            self._inline.append(piece if keep else _SPACE.sub(" ", piece))

    def _flush(self, kind: BlockKind = "text") -> None:
        """Write the collected text as one block."""
        joined = "".join(self._inline)
        self._inline.clear()
        if not self._pre:
            joined = "\n".join(" ".join(line.split()) for line in joined.split("\n")).strip()
        if not joined or joined.isspace():
            return
        if self._pre:
            kind = "code"
        bullet = self._bullet and kind == "text"
        if bullet:
            joined = f"- {joined}"
            self._bullet = False
        self.builder.add(joined.strip("\n"), kind, self.sections.path, gap="\n" if bullet else "\n\n")


def _opens_text(button: Any) -> bool:
    """Whether a button is the question or the heading of a text that it opens, as in lists of questions."""
    words = "".join(button.itertext()).split()
    return bool(words) and (
        words[-1].endswith(("?", "？")) or ("aria-expanded" in button.attrib and len(words) > 2)
    )


def _span(element: Any, name: str) -> int:
    value = (element.get(name) or "").strip()
    return min(int(value), _MOST_SPANNED) if value.isdecimal() and len(value) < 9 else 1
