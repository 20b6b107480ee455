"""Safe HTML from untrusted text: nothing that a document or a model wrote becomes markup of its own.

Answers are Markdown. The parser reads no raw HTML, images become their alternative text, and links are limited to
``http``, ``https`` and ``mailto``. The HTML is one line, so that the Markdown parser of Gradio's chatbot takes it
for a single block.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from rag.evaluation.report_rendering import visible
from ui.pages.rendering import render

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.renderer import RendererHTML
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token
    from markdown_it.utils import EnvType, OptionsDict

_MARKER = re.compile(r"\[(\d{1,3})\]")
_SAFE_SCHEME = re.compile(r"(?:https?|mailto):", re.IGNORECASE)
_CITE = "citation"
# Signs for the beginning and the end of a marked span while Markdown is parsed; they mean nothing to the parser.
_OPEN, _CLOSE = "\ue000", "\ue001"
_MARKED = re.compile(f"{_OPEN}([^<>{_OPEN}{_CLOSE}]+){_CLOSE}")
# Signs for an unsupported sentence. Emphasis depends on the adjacent characters, which are white space at the edge
# of a sentence; punctuation, such as these double parentheses, has the same effect.
_DOUBT, _SURE = "\u2e28", "\u2e29"
_DOUBTS = re.compile(f"(?:({_DOUBT}|%E2%B8%A8)|{_SURE}|%E2%B8%A9)")
_PIECES = re.compile(f"(<[^>]*>|[{_DOUBT}{_SURE}])")
# Sentences that are tried one by one where the signs of all of them would change the Markdown.
_MOST_TRIED = 20
_LINE_SIGNS = "#>*+-| \t\n"


@dataclass(frozen=True, slots=True)
class Reference:
    """The target of a marker.

    Attributes:
        href: An address of ours.
        title: The tooltip.
    """

    href: str
    title: str


Resolve = Callable[[int], Reference | None]
"""Returns the target of a marker's number; None leaves the marker plain text."""


def markers(text: str) -> set[int]:
    """Return the numbers of the markers in a text."""
    return {int(number) for number in _MARKER.findall(text)}


def fragment(template: str, **values: object) -> str:
    """Render a template as one line of HTML, without characters that hide text or change its direction."""
    return _one_line(render(template, **values))


def note(text: str, kind: str = "rs-none") -> str:
    """Render a sentence of the page, such as what to do where there is nothing to show."""
    return fragment("page_note.html.jinja", kind=kind, text=text)


def _plain(text: str) -> str:
    # The lines of the text stay lines where ``white-space`` keeps them.
    return _one_line(escape(text))


def _one_line(html: str) -> str:
    return visible(html).replace("\n", "&#10;")


def plain_with_citations(text: str, resolve: Resolve) -> str:
    """Return the text escaped, on one line of HTML, with each known marker ``[n]`` as a link."""
    parts: list[str] = []
    end = 0
    for found in _MARKER.finditer(text):
        link = citation(int(found[1]), resolve)
        if link:
            parts += (_plain(text[end : found.start()]), link)
            end = found.end()
    parts.append(_plain(text[end:]))
    return "".join(parts)


def _clean(text: str) -> str:
    return text.translate(_UNKNOWN)


_UNKNOWN = str.maketrans(dict.fromkeys((_OPEN, _CLOSE), "\ufffd") | {_DOUBT: "⦅", _SURE: "⦆"})


def underlined(
    text: str,
    spans: Sequence[tuple[int, int]],
    doubtful: Sequence[tuple[int, int]],
    rendered: Callable[[str], str],
    around: tuple[str, str] = ('<span class="rs-doubt" title="Not supported by the sources">', "</span>"),
) -> tuple[Markup, tuple[tuple[int, int], ...]]:
    """Render a text with its spans marked and its doubtful sentences underlined.

    Args:
        spans, doubtful: Offsets of the first character and one past the last, ascending, without overlap.
        rendered: Renders the text with signs in it as safe HTML.
        around: The tags around the text of a doubtful sentence.

    Returns:
        The HTML, and the sentences that could not be underlined, because a sign would change the meaning of the
        Markdown, as in the middle of a link.
    """
    bare = rendered(_signed(text, spans, ()))
    if not doubtful:
        return Markup(shown_marks(bare)), ()  # noqa: S704 - safe by the contract of ``rendered``

    def fits(some: Sequence[tuple[int, int]]) -> bool:
        return _DOUBTS.sub("", rendered(_signed(text, spans, some))) == bare

    chosen = tuple(doubtful)
    if not fits(chosen):
        chosen = tuple(span for span in doubtful[:_MOST_TRIED] if fits((span,)))
        chosen = chosen if fits(chosen) else ()
    html = _underlined(shown_marks(rendered(_signed(text, spans, chosen))), around)
    left = tuple(span for span in doubtful if span not in chosen)
    return Markup(html), left  # noqa: S704 - safe by the contract of ``rendered``


def _signed(text: str, spans: Sequence[tuple[int, int]], doubtful: Sequence[tuple[int, int]]) -> str:
    """Insert the signs; of two at one offset, the one that ends something comes first."""
    signs: list[tuple[int, int, str]] = []
    for opening, closing, found in ((_OPEN, _CLOSE, spans), (_DOUBT, _SURE, doubtful)):
        last = 0
        for start, end in found:
            if last <= start < end <= len(text):
                signs += ((start, 1, opening), (end, 0, closing))
                last = end
    parts: list[str] = []
    last = 0
    for offset, _, sign in sorted(signs):
        parts += (_clean(text[last:offset]), sign)
        last = offset
    return "".join((*parts, _clean(text[last:])))


def _underlined(html: str, around: tuple[str, str]) -> str:
    """Put tags around the text between two signs, but not around the tags between them."""
    parts: list[str] = []
    doubted = False
    for piece in _PIECES.split(html):
        if piece in (_DOUBT, _SURE):
            doubted = piece == _DOUBT
        elif piece.startswith("<"):
            # A sentence may begin or end inside an address.
            for sign in _DOUBTS.finditer(piece):
                doubted = sign[1] is not None
            parts.append(_DOUBTS.sub("", piece))
        elif doubted and piece.strip():
            parts += (around[0], piece, around[1])
        else:
            parts.append(piece)
    return "".join(parts)


def shown_marks(html: str) -> str:
    """Mark the spans; one that overlaps other markup is left plain."""
    marked = _MARKED.sub(r'<mark class="rs-span">\1</mark>', html)
    return marked.replace(_OPEN, "").replace(_CLOSE, "")


def markdown(text: str, resolve: Resolve) -> str:
    """Render Markdown as safe HTML on one line, with each known marker ``[n]`` as a link."""
    rendered: str = _parser().render(visible(text), {"resolve": resolve})
    # Again, for characters that were entities in the text.
    return visible(rendered).strip().replace("\n", " ")


def passage_html(text: str, spans: Sequence[tuple[int, int]] = (), *, formatted: bool) -> Markup:
    """Render a passage with some of it marked.

    Args:
        spans: Offsets of the first character and one past the last of what is marked, ascending, without overlap.
        formatted: Whether the passage is Markdown. Where its markup would survive no mark, it stays plain.
    """
    if formatted:
        within = [span for span in (_within_line_signs(text, *span) for span in spans) if span[0] < span[1]]
        html, left = underlined(text, (), within, partial(markdown, resolve=lambda _: None), ("<mark>", "</mark>"))
        if len(left) < len(within) or not within:
            return html
    ends = [0, *(end for span in spans for end in span), len(text)]
    # What is marked alternates with what is not.
    pieces = [text[start:end] for start, end in pairwise(ends)]
    return Markup(fragment("page_passage.html.jinja", pieces=pieces))  # noqa: S704 - the template escapes


def _within_line_signs(text: str, start: int, end: int) -> tuple[int, int]:
    """Return a span without the signs of a heading, a list or a row of a table, which must begin their line."""
    marked = text[start:end].strip(_LINE_SIGNS)
    first = text.find(marked, start) if marked else start
    return first, first + len(marked)


def citation(number: int, resolve: Resolve) -> str:
    """Render the link of a marker; empty where it has no target."""
    target = resolve(number)
    if target is None:
        return ""
    return fragment("page_citation.html.jinja", number=number, reference=target)


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False, "breaks": True, "xhtmlOut": False})
    parser.enable(["table", "strikethrough"])
    # A text that defines [1] as a link of its own would redirect our markers.
    parser.disable(["reference", "html_block", "html_inline"])
    parser.inline.ruler.before("link", _CITE, _parse_marker)
    parser.core.ruler.push("drop_unsafe_links", _drop_unsafe_links)
    for name, rule in _RULES.items():
        parser.add_render_rule(name, rule)
    return parser


def _parse_marker(state: StateInline, silent: bool) -> bool:
    found = _MARKER.match(state.src, state.pos)
    if found is None:
        return False
    if not silent:
        token = state.push(_CITE, "", 0)
        token.content = found[1]
    state.pos = found.end()
    return True


def _drop_unsafe_links(state: Any) -> None:
    """Replace links of other schemes by their text."""
    for token in state.tokens:
        if token.type == "inline" and token.children:
            token.children = list(_without_unsafe_links(token.children))


def _without_unsafe_links(tokens: Sequence[Token]) -> list[Token]:
    kept: list[Token] = []
    open_links: list[bool] = []
    for token in tokens:
        if token.type == "link_open":
            href = str(token.attrs.get("href", ""))
            safe = _SAFE_SCHEME.match(href) is not None
            open_links.append(safe)
            if not safe:
                continue
            token.attrs = {
                "class": "rs-out",
                "href": href,
                "title": href,
                "target": "_blank",
                "rel": "noopener noreferrer nofollow",
            }
        elif token.type == "link_close" and not open_links.pop():
            continue
        elif token.type == _CITE and any(open_links):
            # Links cannot be nested, and the outer one came first.
            token.type, token.content = "text", f"[{token.content}]"
        kept.append(token)
    return kept


Tokens = Sequence["Token"]


def _render_marker(_self: RendererHTML, tokens: Tokens, index: int, _options: OptionsDict, env: EnvType) -> str:
    number = tokens[index].content
    return citation(int(number), env["resolve"]) or f"[{number}]"


def _render_image(_self: RendererHTML, tokens: Tokens, index: int, _options: OptionsDict, _env: EnvType) -> str:
    return _plain(tokens[index].content)


def _render_code(_self: RendererHTML, tokens: Tokens, index: int, _options: OptionsDict, _env: EnvType) -> str:
    return fragment("page_code.html.jinja", text=tokens[index].content)


_RULES: dict[str, Callable[..., str]] = {
    _CITE: _render_marker,
    "image": _render_image,
    "fence": _render_code,
    "code_block": _render_code,
}
