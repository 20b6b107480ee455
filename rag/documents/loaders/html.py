"""HTML: the readable text of a page with headings, list items, table rows and preformatted parts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rag.documents.loaders._blocks import Builder, Sections, finished
from rag.documents.loaders._fields import date_in, scalars, title_or_none
from rag.documents.loaders._text import OnProblem, decode, refused
from rag.types import BlockKind, Document

_DECLARED = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?([A-Za-z0-9_-]{2,40})""", re.IGNORECASE)
_SPACE = re.compile(r"\s+")
_DROPPED = {
    "button", "head", "iframe", "math", "nav", "noscript", "object", "script", "select", "style", "svg",
    "template", "title",
}  # fmt: skip
_BLOCKS = {
    "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "div", "dl",
    "dt", "fieldset", "figcaption", "figure", "footer", "form", "header", "hr", "legend", "li", "main", "ol",
    "p", "pre", "section", "summary", "table", "tbody", "tfoot", "thead", "tr", "ul",
}  # fmt: skip
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_META = {"author": "author", "description": "description", "keywords": "keywords", "date": "date",
         "article:published_time": "date", "article:author": "author"}  # fmt: skip


def load(path: Path, data: bytes, on_problem: OnProblem) -> Iterator[Document]:
    """Yield one document; the stored text is the page's text, its blocks separated by blank lines."""
    root = _parse(path, decode(path, data, on_problem, _declared_encoding(data)))
    reader = _Reader()
    fields: dict[str, object] = {}
    title = None
    if root is not None:
        reader.read(root)
        fields = _meta(root)
        title = next((title_or_none(e.text) for e in root.iter("title") if e.getparent().tag != "svg"), None)
    text = reader.builder.text
    yield Document(
        text,
        finished(path, text, reader.builder.blocks),
        title=title or reader.sections.title,
        metadata=scalars(fields),
        date=date_in(fields),
    )


def _declared_encoding(data: bytes) -> str | None:
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

    Everything inside a table row is inline, with cells joined by ``|``; a nested table is a table of its own.
    """

    def __init__(self) -> None:
        self.builder = Builder()
        self.sections = Sections()
        self._inline: list[str] = []
        self._cells: list[int | None] = [None]  # Number of cells in the current row; None outside a row.
        self._pre = 0
        self._bullet = False

    def read(self, root: Any) -> None:
        """Read every element below ``root``."""
        from lxml import etree

        walker = etree.iterwalk(root, events=("start", "end"))
        for event, element in walker:
            if event == "start":
                if element.tag in _DROPPED:
                    walker.skip_subtree()
                    continue
                self._open(element.tag)
                self._write(element.text)
            else:
                if element.tag not in _DROPPED:
                    self._close(element.tag)
                self._write(element.tail)
        self._flush()

    def _open(self, tag: str) -> None:
        in_row = self._cells[-1] is not None
        if tag == "table":
            self._flush()
            self._cells.append(None)
        elif tag == "tr":
            self._flush()
            self._cells.append(0)
        elif in_row and tag in ("td", "th"):
            self._inline.append(" | " if self._cells[-1] else " ")
            self._cells[-1] = (self._cells[-1] or 0) + 1
        elif in_row and (tag in _BLOCKS or tag in _HEADINGS or tag == "br"):
            self._inline.append(" ")
        elif tag == "br":
            self._inline.append("\n")
        elif tag in _BLOCKS or tag in _HEADINGS:
            self._flush()
            self._bullet = tag == "li" or (self._bullet and tag not in ("ul", "ol"))
            self._pre += tag == "pre"

    def _close(self, tag: str) -> None:
        if tag in ("table", "tr"):
            self._flush("row" if tag == "tr" else "text")
            self._cells.pop()
        elif self._cells[-1] is not None:
            if tag in _BLOCKS or tag in _HEADINGS:
                self._inline.append(" ")
        elif tag in _HEADINGS:
            title = " ".join("".join(self._inline).split())
            if title:
                self.sections.enter(_HEADINGS[tag], title)
            self._flush("heading")
        elif tag == "pre":
            self._flush("code")
            self._pre = max(self._pre - 1, 0)
        elif tag in _BLOCKS:
            self._flush()
            self._bullet = self._bullet and tag != "li"

    def _write(self, piece: str | None) -> None:
        if piece:
            keep = self._pre and self._cells[-1] is None
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
        elif self._cells[-1] is not None:
            kind = "row"
            if not joined.strip("| "):
                return
        bullet = self._bullet and kind == "text"
        if bullet:
            joined = f"- {joined}"
            self._bullet = False
        close = bullet or kind == "row"
        self.builder.add(joined.strip("\n"), kind, self.sections.path, gap="\n" if close else "\n\n")
