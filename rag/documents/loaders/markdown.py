"""Markdown: markdown-it says on which lines each block stands, so that offsets into the text are exact."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from prompts import plain_yaml
from rag.documents.loaders._blocks import Sections, finished
from rag.documents.loaders._fields import date_in, scalars, take_title
from rag.documents.loaders._text import OnProblem, decode
from rag.types import Block, BlockKind, Document

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

# Structure shows at the start of a line, and the parser walks lines character by character in Python: it is
# given no more of a line than this.
_LINE_START = 1_000
_FRONT_MATTER_LIMIT = 65_536

_KINDS: dict[str, BlockKind] = {
    "heading_open": "heading",
    "paragraph_open": "text",
    "fence": "code",
    "code_block": "code",
    "tr_open": "row",
    "html_block": "text",
}
_FRONT_MATTER_END = re.compile(r"^(?:---|\.\.\.)[ \t]*$", re.MULTILINE)
_DEFINITION = re.compile(r"[ >]*\[[^\]^\n][^\]\n]*\]: *\S")
_TAG = re.compile(r"<[^<>]*>")
_ANCHOR = re.compile(r"\{[^{}]*\}$")


def load(path: Path, data: bytes, on_problem: OnProblem) -> Iterator[Document]:
    """One document; the stored text is the decoded file, front matter included but outside the blocks."""
    text = decode(path, data, on_problem)
    fields, body = _front_matter(text, on_problem)
    sections = Sections()
    blocks = finished(path, text, scan(text[body:], sections, body))
    title = take_title(fields) or sections.title
    yield Document(text, blocks, title=title, metadata=scalars(fields), date=date_in(fields))


def scan(source: str, sections: Sections, base: int = 0) -> Iterator[Block]:
    r"""The blocks of Markdown source, not yet trimmed.

    Args:
        source: The text, with ``\n`` line ends.
        sections: The headings open before it; those of the source are opened in it.
        base: Offset of the source in the stored text.
    """
    rows = source.split("\n")
    starts = [0, *accumulate(len(row) + 1 for row in rows)]
    parser = _parser()
    tokens = parser.parse("\n".join(row[:_LINE_START] for row in rows))
    for position, token in enumerate(tokens):
        kind = _KINDS.get(token.type)
        if kind is None or token.map is None:
            continue
        first, last = token.map
        lines = rows[first:last]
        if _unseen(token.type, lines):
            continue
        if kind == "heading":
            sections.enter(int(token.tag[1]), _heading(parser, tokens[position + 1].content))
        # The last line end is the file's, not the block's, and starts[] counts one past the text.
        yield Block(base + starts[first], base + starts[last] - 1, kind, sections.path)


@cache
def _parser() -> MarkdownIt:
    """A parser of block structure alone: what is inside a paragraph moves no offset and costs most."""
    from markdown_it import MarkdownIt

    # Link definitions are left to _unseen: searching for them can take quadratic time.
    parser = MarkdownIt("commonmark").enable("table").disable("reference")
    parser.core.ruler.enableOnly(["block"])
    return parser


def _heading(parser: MarkdownIt, source: str) -> str:
    """The words of a heading, without its marks, links and anchor (``{#name}``)."""
    from markdown_it.token import Token

    tokens: list[Token] = []
    parser.inline.parse(_ANCHOR.sub("", source.strip()[:_LINE_START]).rstrip(), parser, {}, tokens)
    breaks = ("softbreak", "hardbreak")
    return "".join(" " if t.type in breaks else t.content for t in tokens if t.type != "html_inline")


def _unseen(kind: str, lines: list[str]) -> bool:
    """Whether the rendered page shows nothing of these lines: a comment, bare tags, link definitions."""
    if kind == "paragraph_open":
        return all(_DEFINITION.match(line) for line in lines)
    if kind != "html_block":
        return False
    html = "\n".join(lines).strip()
    if html.startswith("<!--"):
        return html.find("-->") in (len(html) - 3, -1)
    return not _TAG.sub("", html).strip()


def _front_matter(text: str, on_problem: OnProblem) -> tuple[dict[str, object], int]:
    """The fields of YAML front matter and the offset where the body begins; no fields and 0 without any."""
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
