"""reStructuredText, by a light line scan.

docutils would parse it fully, but takes minutes for a corpus of 14 MB and provides no offsets. What retrieval
needs can be recognized at the start of lines: section titles, paragraphs, literal blocks, tables.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from itertools import accumulate
from pathlib import Path

from rag.documents.loaders._blocks import Sections, finished
from rag.documents.loaders._fields import date_in, scalars, take_title
from rag.documents.loaders._text import OnProblem, decode
from rag.types import Block, BlockKind, Document

_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
_FIELD = re.compile(r":?([A-Za-z][A-Za-z0-9 _-]{0,40}):(?:[ \t]+(.*))?$")
_DIRECTIVE = re.compile(r"\.\. +([A-Za-z][\w.+:-]*?)::(?:[ \t]|$)")
_OPTION = re.compile(r"\s+:[\w -]+:")
_LIST_MARKER = re.compile(r"\s*(?:[-*+•]|\(?\w{1,3}[.)]|\.\.)[ \t]+(?=\S)")
_TABLE_BORDER = re.compile(r"\s*(?:\+[-=+]+\+|=+(?: +=+)+|-+(?: +-+)+)\s*$")

_CODE = {"code", "code-block", "sourcecode", "parsed-literal", "math", "doctest", "testcode", "prompt"}
# Directives without visible text.
_INVISIBLE = {
    "contents", "currentmodule", "default-role", "highlight", "image", "include", "index", "meta", "module",
    "raw", "role", "sectnum", "toctree",
}  # fmt: skip


def load(path: Path, data: bytes, on_problem: OnProblem) -> Iterator[Document]:
    """Yield one document; the stored text is the decoded file."""
    text = decode(path, data, on_problem)
    scan = _Scan(text)
    blocks = finished(path, text, scan.blocks())
    title = take_title(scan.fields) or scan.sections.title
    yield Document(text, blocks, title=title, metadata=scalars(scan.fields), date=date_in(scan.fields))


class _Scan:
    """One pass over the lines of a file.

    Attributes:
        fields: Header fields at the top (``Title: …`` as in PEPs, or ``:Author: …``), once scanned.
        sections: The current headings.
    """

    def __init__(self, text: str) -> None:
        self.fields: dict[str, object] = {}
        self.sections = Sections()
        self._lines = text.split("\n")
        self._starts = [0, *accumulate(len(line) + 1 for line in self._lines)]
        self._styles: list[str] = []  # Adornments in order of appearance, which is their level.

    def blocks(self) -> Iterator[Block]:
        """Yield the untrimmed blocks of the file."""
        at = self._header()
        if at:
            # The header stays searchable, because author and date of a proposal are often asked for.
            yield self._block(0, at)
        while at < len(self._lines):
            line = self._lines[at]
            if not line or line.isspace():
                at += 1
            elif heading := self._heading(at):
                yield heading[0]
                at = heading[1]
            elif line.lstrip().startswith(".. ") or line.strip() == "..":
                at = yield from self._markup(at)
            else:
                at = yield from self._paragraph(at)

    def _block(self, first: int, last: int, kind: BlockKind = "text") -> Block:
        """Return a block of the lines ``[first, last)``."""
        return Block(self._starts[first], self._starts[last] - 1, kind, self.sections.path)

    def _header(self) -> int:
        """Read the header fields at the top and return the line after them; 0 without any."""
        at = next((i for i, line in enumerate(self._lines) if line.strip()), 0)
        fields: dict[str, list[str]] = {}
        name = ""
        plain = 0
        while at < len(self._lines) and self._lines[at].strip():
            line = self._lines[at]
            found = _FIELD.match(line)
            if found:
                name = found[1]
                plain += not line.startswith(":")
                fields[name] = [(found[2] or "").strip()]
            elif name and line[0].isspace():
                fields[name].append(line.strip())
            else:
                break
            at += 1
        # One "Note: …" is a paragraph; one ":orphan:" is a field.
        ends = at >= len(self._lines) or not self._lines[at].strip()
        if not fields or not ends or plain == 1:
            return 0
        self.fields = {name: " ".join(parts) for name, parts in fields.items()}
        return at

    def _heading(self, at: int) -> tuple[Block, int] | None:
        """Return the heading that starts at a line and the line after it, or None."""
        line = self._lines[at].rstrip()
        following = [other.rstrip() for other in self._lines[at + 1 : at + 3]]
        if line[0] == " ":
            return None
        if _is_adornment(line):
            if len(following) == 2 and following[1] == line and following[0] and following[0] != line:
                return self._section(following[0].strip(), line[0] * 2, at, 3)
            return None
        fits = following and _is_adornment(following[0]) and len(following[0]) >= min(len(line), 4)
        return self._section(line, following[0][0], at, 2) if fits else None

    def _section(self, title: str, style: str, at: int, count: int) -> tuple[Block, int]:
        if style not in self._styles:
            self._styles.append(style)
        self.sections.enter(self._styles.index(style) + 1, title)
        return self._block(at, at + count, "heading"), at + count

    def _markup(self, at: int) -> Generator[Block, None, int]:
        """Yield the visible part of explicit markup (``.. ``), and return the line after it."""
        line = self._lines[at].strip()
        directive = _DIRECTIVE.match(line)
        if directive is None:
            if line.startswith(".. ["):
                return (yield from self._paragraph(at))  # A footnote or citation.
            if line.startswith((".. _", ".. |")):
                return self._paragraph_end(at)  # A link target or a substitution.
            empty = line == ".." and at + 1 < len(self._lines) and not self._lines[at + 1].strip()
            return at + 1 if empty else self._body_end(at)
        name = directive[1].lower()
        if name in _CODE or name in _INVISIBLE:
            end = self._body_end(at)
            if name in _CODE:
                yield self._block(self._after_options(at + 1), end, "code")
            return end
        if directive.end() < len(line):
            return (yield from self._paragraph(at))
        return self._after_options(at + 1)

    def _paragraph(self, at: int) -> Generator[Block, None, int]:
        """Yield a paragraph, table or doctest and the literal block after it, and return the line after them."""
        end = self._paragraph_end(at)
        first = self._lines[at]
        if _TABLE_BORDER.match(first):
            yield from self._rows(at, end)
        elif first.lstrip().startswith(">>>"):
            yield self._block(at, end, "code")
        elif end - at > 1 or first.strip() != "::":
            yield self._block(at, end)
        if not self._lines[end - 1].rstrip().endswith("::"):
            return end
        marker = _LIST_MARKER.match(first)
        literal_end = self._body_end(end - 1, marker.end() if marker else _indent(first))
        if literal_end > end:
            yield self._block(end, literal_end, "code")
        return literal_end

    def _rows(self, at: int, end: int) -> Iterator[Block]:
        """Yield the rows of a table: between the borders of a grid table, otherwise one per line."""
        grid = self._lines[at].lstrip().startswith("+")
        first = at
        for i in range(at, end):
            border = _TABLE_BORDER.match(self._lines[i]) is not None
            if first < i and (border or not grid):
                yield self._block(first, i, "row")
                first = i
            if border:
                first = i + 1
        if first < end:
            yield self._block(first, end, "row")

    def _paragraph_end(self, at: int) -> int:
        """Return the line after the paragraph that starts at a line: blank, or explicit markup."""
        at += 1
        while at < len(self._lines):
            line = self._lines[at].lstrip()
            if not line or line.startswith(".. "):
                break
            at += 1
        return at

    def _body_end(self, at: int, indent: int | None = None) -> int:
        """Return the line after the body below a line: indented more than ``indent``, by default than the line."""
        base = _indent(self._lines[at]) if indent is None else indent
        end = at + 1
        for i in range(at + 1, len(self._lines)):
            line = self._lines[i]
            if line.strip():
                if _indent(line) <= base:
                    break
                end = i + 1
        return end

    def _after_options(self, at: int) -> int:
        """Return the first line that is not an option (``:name: value``) of a directive."""
        while at < len(self._lines) and _OPTION.match(self._lines[at]):
            at += 1
        return at


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _is_adornment(line: str) -> bool:
    """Whether a line, without trailing white space, repeats one punctuation mark."""
    if len(line) < 2 or line[0] not in _PUNCTUATION or line in ("..", "::"):
        return False
    return line == line[0] * len(line)
