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
from rag.documents.loaders._fields import LONGEST_VALUE, date_in, scalars, take_title, too_long
from rag.documents.loaders._losses import Losses
from rag.documents.loaders._tables import write_table
from rag.documents.loaders._text import OnProblem, decode
from rag.documents.loaders.html import write_page
from rag.errors import LoadError
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
_PIPE = re.compile(r"(?<!\\)\|")
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_ANCHOR = re.compile(r"\{[^{}]*\}$")


def load(path: Path, data: bytes, on_problem: OnProblem) -> Iterator[Document]:
    """Yield one document; the stored text is the decoded file with tables and HTML written as they are read.

    Its front matter belongs to no block.
    """
    text = decode(path, data, on_problem)
    fields, body = _front_matter(text, on_problem)
    sections = Sections()
    losses = Losses(on_problem)
    shown, found = scan(text[body:], sections, losses, body)
    losses.report()
    text = text[:body] + shown
    blocks = finished(path, text, found)
    title = take_title(fields) or sections.title
    yield Document(text, blocks, title=title, metadata=scalars(fields), date=date_in(fields))


def scan(source: str, sections: Sections, losses: Losses, base: int = 0) -> tuple[str, list[Block]]:
    r"""Return Markdown source with its tables written as named values, HTML as text, and its untrimmed blocks.

    Args:
        source: The text, with ``\n`` line ends.
        sections: The current headings, updated during the scan.
        losses: Counts what is not read.
        base: Offset of the source in the stored text.
    """
    rows = source.split("\n")
    starts = [0, *accumulate(len(row) + 1 for row in rows)]
    parser = _parser()
    tokens = parser.parse("\n".join(row[:_LINE_START] for row in rows))
    pieces: list[str] = []
    blocks: list[Block] = []
    written = 0  # Characters of the source that are in `pieces`; `base` grows with all that is written anew.
    for position, token in enumerate(tokens):
        kind = _KINDS.get(token.type)
        if kind is None or token.map is None:
            continue
        first, last = token.map
        lines = rows[first:last]
        if _is_invisible(token.type, lines):
            continue
        if kind == "row" or token.type == "html_block":
            anew = _table(lines, sections.path) if kind == "row" else _page(lines, sections, losses)
            start, end = starts[first], starts[last] - 1
            pieces += source[written:start], anew.text
            blocks += (shifted(block, base + start) for block in anew.blocks)
            base += len(anew.text) - (end - start)
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


def _page(lines: list[str], sections: Sections, losses: Losses) -> Builder:
    """Write a block of HTML as a web page is written; one that cannot be read as such stays as it is."""
    builder = Builder()
    # In a quotation, every line begins with its mark.
    source = "\n".join(line.lstrip(" >") if line.lstrip().startswith(">") else line for line in lines)
    try:
        write_page(Path(), source, builder, sections, losses)
    except LoadError:
        builder.add(source, "text", sections.path)
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
    """Whether these lines are invisible when rendered: a comment, or link definitions."""
    if kind == "paragraph_open":
        return all(_DEFINITION.match(line) for line in lines)
    html = "\n".join(lines).strip() if kind == "html_block" else ""
    return html.startswith("<!--") and html.find("-->") in (len(html) - 3, -1)


def _front_matter(text: str, on_problem: OnProblem) -> tuple[dict[str, object], int]:
    """Return the fields of YAML front matter and the offset of the body; no fields and 0 without any."""
    if not text.startswith(("---\n", "--- \n")):
        return {}, 0
    start = text.index("\n") + 1
    end = _FRONT_MATTER_END.search(text, start, _FRONT_MATTER_LIMIT)
    if end is None:
        return {}, 0
    try:
        fields = plain_yaml.load(text[start : end.start()], unique_keys=False)
    except yaml.YAMLError as error:
        on_problem(f"the front matter is not valid YAML and was read as text: {_reason(error)}")
        return {}, 0
    if not isinstance(fields, dict):
        return {}, 0  # Two rules with a paragraph between them.
    try:
        plain_yaml.check(text[start : end.start()])
    except yaml.YAMLError as error:
        on_problem(f"the front matter names a field twice, and only the last value was read: {_reason(error)}")
    fields = {str(key): value for key, value in fields.items()}
    for name in too_long(fields):
        on_problem(f"the field {name} of the front matter was not read: longer than {LONGEST_VALUE:,} characters")
    return fields, end.end()


def _reason(error: yaml.YAMLError) -> str:
    return str(error).split("\n", 1)[0]
