"""Markdown: markdown-it reports the lines of every block, so that offsets are exact."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from prompts import plain_yaml
from rag.documents.loaders._blocks import Builder, Sections, finished, shifted
from rag.documents.loaders._fields import date_in, scalars, take_title
from rag.documents.loaders._tables import write_table
from rag.documents.loaders._text import OnProblem, decode
from rag.types import Block, BlockKind, Document

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

# Characters of a line that the parser gets: structure shows at the start of a line, and the parser is slow.
_LINE_START = 1_000
_FRONT_MATTER_LIMIT = 65_536

_KINDS: dict[str, BlockKind] = {
    "heading_open": "heading",
    "paragraph_open": "text",
    "fence": "code",
    "code_block": "code",
    "table_open": "row",
    "html_block": "text",
}
_FRONT_MATTER_END = re.compile(r"^(?:---|\.\.\.)[ \t]*$", re.MULTILINE)
_DEFINITION = re.compile(r"[ >]*\[[^\]^\n][^\]\n]*\]: *\S")
_TAG = re.compile(r"<[^<>]*>")
_PIPE = re.compile(r"(?<!\\)\|")
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_ANCHOR = re.compile(r"\{[^{}]*\}$")


def load(path: Path, data: bytes, on_problem: OnProblem) -> Iterator[Document]:
    """Yield one document; the stored text is the decoded file with its tables written as named values.

    Its front matter belongs to no block.
    """
    text = decode(path, data, on_problem)
    fields, body = _front_matter(text, on_problem)
    sections = Sections()
    shown, found = scan(text[body:], sections, body)
    text = text[:body] + shown
    blocks = finished(path, text, found)
    title = take_title(fields) or sections.title
    yield Document(text, blocks, title=title, metadata=scalars(fields), date=date_in(fields))


def scan(source: str, sections: Sections, base: int = 0) -> tuple[str, list[Block]]:
    r"""Return Markdown source with its tables written as named values, and its untrimmed blocks.

    Args:
        source: The text, with ``\n`` line ends.
        sections: The current headings, updated during the scan.
        base: Offset of the source in the stored text.
    """
    rows = source.split("\n")
    starts = [0, *accumulate(len(row) + 1 for row in rows)]
    parser = _parser()
    tokens = parser.parse("\n".join(row[:_LINE_START] for row in rows))
    pieces: list[str] = []
    blocks: list[Block] = []
    written = 0  # Characters of the source that are in `pieces`; `base` grows with every table.
    for position, token in enumerate(tokens):
        kind = _KINDS.get(token.type)
        if kind is None or token.map is None:
            continue
        first, last = token.map
        lines = rows[first:last]
        if _is_invisible(token.type, lines):
            continue
        if kind == "row":
            table = _table(lines, sections.path)
            start, end = starts[first], starts[last] - 1
            pieces += source[written:start], table.text
            blocks += (shifted(block, base + start) for block in table.blocks)
            base += len(table.text) - (end - start)
            written = end
            continue
        if kind == "heading":
            sections.enter(int(token.tag[1]), _heading(parser, tokens[position + 1].content))
        # Leave out the block's last line end.
        blocks.append(Block(base + starts[first], base + starts[last] - 1, kind, sections.path))
    return "".join([*pieces, source[written:]]), blocks


def _table(lines: list[str], headings: tuple[str, ...]) -> Builder:
    """Write a table whose second line is the rule below the column names."""
    rows = [[_cell(cell) for cell in _cells(line)] for line in (lines[0], *lines[2:])]
    builder = Builder()
    write_table(builder, rows, headings, header_rows=1 if any(rows[0]) else 0)
    return builder


def _cells(line: str) -> list[str]:
    line = line.strip(" \t>")
    ends = line.endswith("|") and not line.endswith("\\|")
    return _PIPE.split(line.removeprefix("|")[: -1 if ends else None])


def _cell(source: str) -> str:
    return _BREAK.sub(" ", source.replace("\\|", "|")).strip()


@cache
def _parser() -> MarkdownIt:
    """Return a parser of block structure only: inline mark-up moves no offsets and costs most of the time."""
    from markdown_it import MarkdownIt

    # _is_invisible handles link definitions, because parsing them can take quadratic time.
    parser = MarkdownIt("commonmark").enable("table").disable("reference")
    parser.core.ruler.enableOnly(["block"])
    return parser


def _heading(parser: MarkdownIt, source: str) -> str:
    """Return the text of a heading, without mark-up, links and anchor (``{#name}``)."""
    from markdown_it.token import Token

    tokens: list[Token] = []
    parser.inline.parse(_ANCHOR.sub("", source.strip()[:_LINE_START]).rstrip(), parser, {}, tokens)
    breaks = ("softbreak", "hardbreak")
    return "".join(" " if t.type in breaks else t.content for t in tokens if t.type != "html_inline")


def _is_invisible(kind: str, lines: list[str]) -> bool:
    """Whether these lines are invisible when rendered: a comment, bare tags, link definitions."""
    if kind == "paragraph_open":
        return all(_DEFINITION.match(line) for line in lines)
    if kind != "html_block":
        return False
    html = "\n".join(lines).strip()
    if html.startswith("<!--"):
        return html.find("-->") in (len(html) - 3, -1)
    return not _TAG.sub("", html).strip()


def _front_matter(text: str, on_problem: OnProblem) -> tuple[dict[str, object], int]:
    """Return the fields of YAML front matter and the offset of the body; no fields and 0 without any."""
    if not text.startswith(("---\n", "--- \n")):
        return {}, 0
    start = text.index("\n") + 1
    end = _FRONT_MATTER_END.search(text, start, _FRONT_MATTER_LIMIT)
    if end is None:
        return {}, 0
    try:
        fields = plain_yaml.load(text[start : end.start()])
    except yaml.YAMLError as error:
        reason = str(error).split("\n", 1)[0]
        on_problem(f"the front matter is not valid YAML and was read as text: {reason}")
        return {}, 0
    if not isinstance(fields, dict):
        return {}, 0  # Two rules with a paragraph between them.
    return {str(key): value for key, value in fields.items()}, end.end()
