"""Stored texts as pages of their own: the cited passage marked, everything else as it is stored.

The pages have no script and may load nothing but our own images, so that nothing in a document can act.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

from rag.documents.loaders.isolated import ParseLimits
from rag.errors import CorpusError, LoadError, RagsmithError
from ui.pages.documents.pdf_pages import Box, PdfPages

if TYPE_CHECKING:
    from rag.indexing.corpora import StoredDocument
    from rag.settings import IngestSettings
    from ui.app.stores import Stores

WINDOW = 100_000
"""Characters shown on each side of the span; a browser grows slow on many megabytes."""

LARGEST_ID = 2**63 - 1
"""What a database can count to."""

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
_HEADERS = {"content-security-policy": POLICY, "cache-control": "no-store"}

_STYLE = """
:root { color-scheme: light dark; --text: #1b2430; --muted: #5f6b7a; --line: #dfe3e8; --page: #fff;
  --mark: #fde68a; --warn: #fdf4e3; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e8ee; --muted: #98a3b3; --line: #2b323c; --page: #14171c; --mark: #6b5416; --warn: #2a2313; }
}
body { margin: 0 auto; max-width: 860px; padding: 20px 28px 60px; background: var(--page); color: var(--text);
  font: 15px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
h1 { font-size: 19px; margin: 0 0 2px; overflow-wrap: anywhere; }
.path { color: var(--muted); font-size: 12.5px; overflow-wrap: anywhere; }
header { border-bottom: 1px solid var(--line); padding-bottom: 10px; margin-bottom: 16px; }
.note { background: var(--warn); border-radius: 6px; padding: 7px 11px; margin: 10px 0; font-size: 13.5px; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; }
mark { background: var(--mark); color: inherit; border-radius: 2px; scroll-margin-top: 35vh; }
nav { display: flex; gap: 18px; font-size: 13.5px; margin: 10px 0; }
.sheet { position: relative; border: 1px solid var(--line); line-height: 0; background: #fff; }
.sheet img { width: 100%; height: auto; }
.sheet a { position: absolute; left: 0; scroll-margin-top: 35vh; }
details { margin-top: 18px; }
"""


@dataclass(frozen=True, slots=True)
class Span:
    """What is to be marked: offsets into the stored text; ``at`` alone only says where to look."""

    start: int | None = None
    end: int | None = None
    at: int | None = None

    def fits(self, length: int) -> bool:
        """Whether there is something to mark."""
        return self.start is not None and self.end is not None and 0 <= self.start < self.end <= length

    def focus(self, length: int) -> int | None:
        """The character to show; None where nothing was named."""
        for place in (self.start, self.at):
            if place is not None and 0 <= place < max(length, 1):
                return place
        return None


def source_routes(settings: IngestSettings, stores: Stores) -> APIRouter:
    """The routes below ``/documents``."""
    router = APIRouter()
    pages = PdfPages(ParseLimits.of(settings))

    @router.get("/documents/{document_id}", response_class=HTMLResponse)
    def show_document(
        document_id: int,
        start: int | None = None,
        end: int | None = None,
        at: int | None = None,
        page: int | None = None,
    ) -> Response:
        try:
            document = _stored(stores, document_id)
        except RagsmithError as error:
            return _page("Not there any more", "", f'<p class="note">{escape(str(error))}</p>', status=404)
        span = Span(start, end, at)
        pdf = pdf_of(document)
        body = _pdf_body(pages, document, pdf, span, page) if pdf else _text_body(document, span)
        return _page(document.title, document.source, body)

    @router.get("/documents/{document_id}/pages/{number}.png")
    def show_page(document_id: int, number: int, start: int | None = None, end: int | None = None) -> Response:
        try:
            document = _stored(stores, document_id)
            pdf = pdf_of(document)
            if pdf is None:
                raise LoadError(f"{document.name} is not there as a PDF any more.")
            quote, place = quote_on_page(document, number, Span(start, end))
            image = pages.render(pdf, number, quote, place)
        except RagsmithError as error:
            return Response(str(error), status_code=404, media_type="text/plain", headers=_HEADERS)
        return Response(image.png, media_type="image/png", headers=_HEADERS)

    return router


def _stored(stores: Stores, document_id: int) -> StoredDocument:
    """The stored text of a number that anybody may have written into an address.

    Raises:
        CorpusError: It is not there.
    """
    if not 0 <= document_id <= LARGEST_ID:
        raise CorpusError(f"There is no document {document_id}.")
    return stores.corpora.document(document_id)


def pdf_of(document: StoredDocument) -> Path | None:
    """The PDF that a text was read from; None where it was another format or is gone."""
    path = Path(document.path)
    return path if path.suffix.lower() == ".pdf" and path.is_file() else None


def page_of(document: StoredDocument, offset: int) -> int:
    """The page that a character stands on."""
    at = bisect_right([first for _, first in document.pages], offset)
    return document.pages[max(at - 1, 0)][0] if document.pages else 1


def quote_on_page(document: StoredDocument, number: int, span: Span) -> tuple[str, float]:
    """The part of a span that stands on a page, and where in the page's text it is, 0 to 1."""
    if not span.fits(len(document.text)) or span.start is None or span.end is None:
        return "", 0.0
    starts = dict(document.pages)
    first = starts.get(number, 0 if not document.pages else len(document.text))
    later = [start for page, start in document.pages if page > number]
    last = min(later, default=len(document.text))
    begin, stop = max(span.start, first), min(span.end, last)
    return document.text[begin:stop], (begin - first) / max(last - first, 1)


def _pdf_body(pages: PdfPages, document: StoredDocument, pdf: Path, span: Span, page: int | None) -> str:
    length = len(document.text)
    focus = span.focus(length)
    number = page or page_of(document, focus or 0)
    quote, place = quote_on_page(document, number, span)
    try:
        boxes = pages.find(pdf, number, quote, place)
    except LoadError as error:
        return f'<p class="note">{escape(str(error))} This is its stored text.</p>{_text_body(document, span)}'
    if boxes or (page is not None and not quote):
        note = ""
    elif quote:
        note = _note("The passage was not found on the image of the page, so nothing is marked there.")
    else:
        note = _missing(span, length)
    query = {"start": span.start, "end": span.end} if span.fits(length) else {}
    image = f"/documents/{document.id}/pages/{number}.png" + (f"?{urlencode(query)}" if query else "")
    # Without boxes the mark in the text is what the address leads to.
    text = _marked_text(document.text, span, anchor=not boxes)
    return (
        f"{note}{_pages_nav(document, number, query)}"
        f'<div class="sheet">{_anchor(boxes)}<img src="{escape(image)}" alt="Page {number}"></div>'
        f"{_pages_nav(document, number, query)}"
        f"<details{'' if boxes else ' open'}><summary>Stored text</summary>{text}</details>"
    )


def _anchor(boxes: tuple[Box, ...]) -> str:
    return f'<a id="cited" style="top:{min(box.top for box in boxes) * 100:.2f}%"></a>' if boxes else ""


def _pages_nav(document: StoredDocument, number: int, query: dict[str, int | None]) -> str:
    links = []
    numbers = [page for page, _ in document.pages]
    for label, other in (("‹ Previous page", number - 1), ("Next page ›", number + 1)):
        if numbers and numbers[0] <= other <= numbers[-1]:
            address = f"/documents/{document.id}?{urlencode({**query, 'page': other})}"
            links.append(f'<a href="{escape(address)}">{label}</a>')
    count = f" of {numbers[-1]}" if numbers else ""
    return f"<nav><span>Page {number}{count}</span>{''.join(links)}</nav>"


def _text_body(document: StoredDocument, span: Span) -> str:
    gone = ""
    if not Path(document.path).exists():
        gone = _note("The file is not there any more. This is the text that was stored when it was added.")
    note = "" if span.fits(len(document.text)) else _missing(span, len(document.text))
    return f"{gone}{note}{_marked_text(document.text, span, anchor=True)}"


def _missing(span: Span, length: int) -> str:
    if span.at is not None and span.focus(length) is not None:
        return _note("The cited sentence was not found word for word: nothing is marked, its passage begins here.")
    if span.start is None and span.end is None:
        return ""
    return _note("The cited span does not fit this text (it may have changed since), so nothing is marked.")


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def _marked_text(text: str, span: Span, *, anchor: bool) -> str:
    """The text, or a window of it, with the span marked."""
    focus = span.focus(len(text)) or 0
    fits = span.fits(len(text))
    start, end = (span.start or 0, span.end or 0) if fits else (focus, focus)
    first, last = max(start - WINDOW, 0), min(end + WINDOW, len(text))
    here = ' id="cited"' if anchor else ""
    middle = f"<span{here}></span>" if focus else ""
    if fits:
        middle = f"<mark{here}>{escape(text[start:end])}</mark>"
    cut = ""
    if last - first < len(text):
        cut = _note(
            f"This text is long: of its {len(text):,} characters those around the place are shown, "
            f"{first:,} to {last:,}."
        )
    return f'{cut}<div class="text">{escape(text[first:start])}{middle}{escape(text[end:last])}</div>'


def _page(title: str, source: str, body: str, status: int = 200) -> HTMLResponse:
    html = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f'<header><h1>{escape(title)}</h1><div class="path">{escape(source)}</div></header>{body}</body></html>'
    )
    return HTMLResponse(html, status_code=status, headers=_HEADERS)
