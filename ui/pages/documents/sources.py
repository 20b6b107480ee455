"""Stored texts as separate pages, with the cited passage marked.

The pages have no script and may load only our own images, so that no content of a document can act.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

from rag.documents.loaders.isolated import ParseLimits
from rag.errors import CorpusError, LoadError, RagsmithError
from ui.pages.documents.pdf_pages import PdfPages
from ui.pages.rendering import render

if TYPE_CHECKING:
    from rag.indexing.corpora import StoredDocument
    from rag.settings import IngestSettings
    from ui.app.stores import Stores

WINDOW = 100_000
"""Characters shown on each side of the span; many megabytes make the browser slow."""

LARGEST_ID = 2**63 - 1
"""The largest integer of a database."""
_NUMBER = re.compile("[0-9]{1,19}")

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
_HEADERS = {"content-security-policy": POLICY, "cache-control": "no-store"}


@dataclass(frozen=True, slots=True)
class Span:
    """The offsets to mark in the stored text; ``at`` alone is a position without a mark."""

    start: int | None = None
    end: int | None = None
    at: int | None = None

    def fits(self, length: int) -> bool:
        """Whether the span lies inside a text of this length."""
        return self.start is not None and self.end is not None and 0 <= self.start < self.end <= length

    def focus(self, length: int) -> int | None:
        """The offset to show; None where none is given."""
        for offset in (self.start, self.at):
            if offset is not None and 0 <= offset < max(length, 1):
                return offset
        return None


@dataclass(frozen=True, slots=True)
class _Text:
    """A stored text, or a window of it, split around the mark.

    Attributes:
        has_mark: Whether ``marked`` is marked.
        has_place: Whether the address leads to the end of ``before`` without a mark.
        is_target: Whether the address leads to the text, and not to the image of a page.
        window: Says which part of a long text is shown; empty for a whole text.
    """

    before: str
    marked: str
    after: str
    has_mark: bool
    has_place: bool
    is_target: bool
    window: str


@dataclass(frozen=True, slots=True)
class _Sheet:
    """A page of a PDF as an image.

    Attributes:
        image: Address of the image.
        last: Number of the last page; None where it is unknown.
        links: Labels and addresses of the previous and the next page.
        top: Top of the mark in percent of the height; None without a mark.
    """

    number: int
    image: str
    last: int | None
    links: tuple[tuple[str, str], ...]
    top: float | None


@dataclass(frozen=True, slots=True)
class _Body:
    """The notes, the text and the image of a page."""

    notes: tuple[str, ...]
    text: _Text | None = None
    sheet: _Sheet | None = None


def source_routes(settings: IngestSettings, stores: Stores) -> APIRouter:
    """The routes below ``/documents``."""
    router = APIRouter()
    pages = PdfPages(ParseLimits.of(settings))

    @router.get("/documents/{document_id}", response_class=HTMLResponse)
    def show_document(
        document_id: str,
        start: int | None = None,
        end: int | None = None,
        at: int | None = None,
        page: int | None = None,
    ) -> Response:
        try:
            document = _stored(stores, document_id)
        except RagsmithError as error:
            return _response("Not found", "", _Body((str(error),)), status=404)
        span = Span(start, end, at)
        pdf = pdf_of(document)
        body = _pdf_body(pages, document, pdf, span, page) if pdf else _text_body(document, span)
        return _response(document.title, document.source, body)

    @router.get("/documents/{document_id}/pages/{number}.png")
    def show_page(document_id: str, number: int, start: int | None = None, end: int | None = None) -> Response:
        try:
            document = _stored(stores, document_id)
            pdf = pdf_of(document)
            if pdf is None:
                raise LoadError(f"The PDF of {document.name} no longer exists.")
            quote, place = quote_on_page(document, number, Span(start, end))
            image = pages.render(pdf, number, quote, place)
        except RagsmithError as error:
            return Response(str(error), status_code=404, media_type="text/plain", headers=_HEADERS)
        return Response(image.png, media_type="image/png", headers=_HEADERS)

    return router


def _stored(stores: Stores, document_id: str) -> StoredDocument:
    """Return the stored text of an id from an address.

    Raises:
        CorpusError: There is no such document.
    """
    if not _NUMBER.fullmatch(document_id) or int(document_id) > LARGEST_ID:
        raise CorpusError(f"There is no document {document_id}.")
    return stores.corpora.document(int(document_id))


def pdf_of(document: StoredDocument) -> Path | None:
    """Return the PDF that a text was read from; None for another format or a deleted file."""
    path = Path(document.path)
    return path if path.suffix.lower() == ".pdf" and path.is_file() else None


def page_of(document: StoredDocument, offset: int) -> int:
    """Return the number of the page that contains an offset."""
    at = bisect_right([first for _, first in document.pages], offset)
    return document.pages[max(at - 1, 0)][0] if document.pages else 1


def quote_on_page(document: StoredDocument, number: int, span: Span) -> tuple[str, float]:
    """Return the part of a span on a page, and its relative position in the text of the page, 0 to 1."""
    if not span.fits(len(document.text)) or span.start is None or span.end is None:
        return "", 0.0
    starts = dict(document.pages)
    first = starts.get(number, 0 if not document.pages else len(document.text))
    later = [start for page, start in document.pages if page > number]
    last = min(later, default=len(document.text))
    begin, stop = max(span.start, first), min(span.end, last)
    return document.text[begin:stop], (begin - first) / max(last - first, 1)


def _pdf_body(pages: PdfPages, document: StoredDocument, pdf: Path, span: Span, page: int | None) -> _Body:
    length = len(document.text)
    focus = span.focus(length)
    number = page or page_of(document, focus or 0)
    quote, place = quote_on_page(document, number, span)
    try:
        boxes = pages.find(pdf, number, quote, place)
    except LoadError as error:
        shown = _text_body(document, span)
        return _Body((f"{error} This is its stored text.", *shown.notes), shown.text)
    notes: tuple[str, ...] = ()
    if not boxes and quote:
        notes = ("The passage was not found on the image of the page, so nothing is marked there.",)
    elif not boxes and page is None:
        notes = _missing(span, length)
    query = {"start": span.start, "end": span.end} if span.fits(length) else {}
    numbers = [first for first, _ in document.pages]
    sheet = _Sheet(
        number,
        f"/documents/{document.id}/pages/{number}.png" + (f"?{urlencode(query)}" if query else ""),
        last=numbers[-1] if numbers else None,
        links=tuple(
            (label, f"/documents/{document.id}?{urlencode({**query, 'page': other})}")
            for label, other in (("‹ Previous page", number - 1), ("Next page ›", number + 1))
            if numbers and numbers[0] <= other <= numbers[-1]
        ),
        top=min(box.top for box in boxes) * 100 if boxes else None,
    )
    # Without boxes the address leads to the mark in the text.
    return _Body(notes, _marked_text(document.text, span, is_target=not boxes), sheet)


def _text_body(document: StoredDocument, span: Span) -> _Body:
    notes: tuple[str, ...] = ()
    if not Path(document.path).exists():
        notes = ("The file no longer exists. This is the text that was stored when it was added.",)
    if not span.fits(len(document.text)):
        notes += _missing(span, len(document.text))
    return _Body(notes, _marked_text(document.text, span, is_target=True))


def _missing(span: Span, length: int) -> tuple[str, ...]:
    if span.at is not None and span.focus(length) is not None:
        return ("The cited sentence was not found word for word: nothing is marked, its passage begins here.",)
    if span.start is None and span.end is None:
        return ()
    return ("The cited span does not fit this text (it may have changed since), so nothing is marked.",)


def _marked_text(text: str, span: Span, *, is_target: bool) -> _Text:
    """Split the text, or a window of it, around the span."""
    focus = span.focus(len(text)) or 0
    fits = span.fits(len(text))
    start, end = (span.start or 0, span.end or 0) if fits else (focus, focus)
    first, last = max(start - WINDOW, 0), min(end + WINDOW, len(text))
    return _Text(
        text[first:start],
        text[start:end],
        text[end:last],
        has_mark=fits,
        has_place=not fits and focus > 0,
        is_target=is_target,
        window=f"This text is long: of its {len(text):,} characters, {first:,} to {last:,} are shown."
        if last - first < len(text)
        else "",
    )


def _response(title: str, source: str, body: _Body, status: int = 200) -> HTMLResponse:
    html = render("page_document.html.jinja", title=title, source=source, body=body)
    return HTMLResponse(html, status_code=status, headers=_HEADERS)
