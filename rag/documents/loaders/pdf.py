"""PDF, through PDFium: the text of every page, split into paragraphs by line length.

PDFium is not thread-safe, even across documents: only one thread of a process may load PDFs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from rag.documents.loaders._blocks import Builder, Sections, finished, one_line
from rag.documents.loaders._fields import date_in, scalars, to_date, written_title
from rag.documents.loaders._hyphens import MARK, Hyphens
from rag.documents.loaders._losses import Losses
from rag.documents.loaders._ocr import INSTALL, Recognition
from rag.documents.loaders._page_layout import reordered
from rag.documents.loaders._page_lines import Part
from rag.documents.loaders._pdf_notes import filled_and_noted
from rag.documents.loaders._tables import write_table
from rag.documents.loaders._text import OnProblem, refused
from rag.errors import first_line
from rag.types import Document

_PASSWORD_ERROR = 4  # FPDF_ERR_PASSWORD
_OUTLINE_LIMIT = 10_000
_SIGNS = str.maketrans({"\x02": MARK, "\u00ad": None, "\r": None})
# A hyphen at the end of a line that PDFium has not marked, because it read the lines in another order.
_DIVIDED = re.compile(r"(?<=[^\W\d_])[-\u2010]\n(?=[^\W\d_])")
_NUMBER = re.compile(r"\d+")
_SCANNER = re.compile(r"\bscan|gescannt|numérisé|escaneado|skannad|skannet", re.IGNORECASE)
_LONGEST_STAMP = 200
"""Characters of text beside which a page of one image still counts as scanned."""
_SCANNED_SHARE = 0.5
_SHOWN_PAGES = 20
_MOST_IMAGES = 1_000
_MOST_ATTACHMENTS = 100
_INFO = {"Author": "author", "Subject": "subject", "Keywords": "keywords"}

Outline = dict[int, dict[str, int]]
"""Maps pages, from 0, to the titles on them and their levels, from 1."""


@dataclass(frozen=True, slots=True)
class _Page:
    """A page.

    Attributes:
        parts: Its text and tables in reading order.
        beside: Values of form fields and remarks.
        image: Whether it is an image, with hardly any text.
        recognized: Whether its text was recognized in the image.
    """

    parts: tuple[Part, ...] = ()
    beside: tuple[str, ...] = ()
    image: bool = False
    recognized: bool = False

    @property
    def text(self) -> str:
        return "\n".join(part if isinstance(part, str) else str(part) for part in self.parts)


def load(path: Path, data: bytes, on_problem: OnProblem, ocr_s: float = 0.0) -> Iterator[Document]:
    """Yield one document; the stored text is that of the pages in order, paragraphs on lines of their own.

    Args:
        path: See ``rag.documents.loaders.load``.
        data: The whole content.
        on_problem: Called with a sentence about every part that was not read.
        ocr_s: Seconds for text recognition in scanned pages; 0 turns it off.

    Raises:
        LoadError: The file is damaged, needs a password, or has no text (scanned pages).
    """
    file = _open(path, data)
    losses = Losses(on_problem)
    try:
        recognition = Recognition(ocr_s)
        pages, info, outline = _read(file, losses, recognition)
    finally:
        file.close()
    pages, scanned = _without_stamps(pages)
    if not any(page.text.strip() or page.beside for page in pages):
        raise refused(
            path,
            "has no text: its pages seem to be scanned images",
            "Run text recognition first (OCR, for example with ocrmypdf) and add the result."
            + _advice(recognition, ocr_s),
        )
    if scanned:
        on_problem(
            f"pages with images but no text were not read: {_numbers(scanned)}.{_advice(recognition, ocr_s)}"
        )
    recognized = [number for number, page in enumerate(pages, start=1) if page.recognized]
    if recognized:
        on_problem(f"the text of pages {_numbers(recognized)} was recognized in images and may contain mistakes")
    losses.report()
    builder = Builder()
    sections = Sections()
    hyphens = Hyphens(page.text for page in pages)
    for number, page in enumerate(pages, start=1):
        for part in page.parts:
            if isinstance(part, str):
                _write_text(builder, sections, hyphens.joined(part), number, outline.get(number - 1, {}))
            else:
                write_table(builder, part, sections.path, number)
        for text in page.beside:
            builder.add(text, "row", sections.path, number)
    created = to_date(info.get("CreationDate"))
    yield Document(
        builder.text,
        finished(path, builder.text, builder.blocks),
        title=written_title(info.get("Title")),
        metadata=scalars({name: info.get(key) for key, name in _INFO.items()} | {"pages": len(pages)}),
        date=created or date_in(info),
    )


def _numbers(pages: list[int]) -> str:
    return ", ".join(map(str, pages[:_SHOWN_PAGES])) + (" and more" if len(pages) > _SHOWN_PAGES else "")


def _advice(recognition: Recognition, ocr_s: float) -> str:
    """Return a sentence on how scanned pages would be read, after a space; empty if they were tried."""
    if recognition.available:
        return ""
    return f" {INSTALL}" if ocr_s else " Text recognition is turned off (ingest.ocr)."


def _open(path: Path, data: bytes) -> Any:
    import pypdfium2

    try:
        return pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == _PASSWORD_ERROR:
            fix = "Save a copy without the password and add that."
            raise refused(path, "is encrypted with a password", fix) from error
        fix = "Open it in a PDF viewer and save it again, or leave it out."
        raise refused(path, f"is not a readable PDF: {first_line(error)}", fix) from error


def _read(file: Any, losses: Losses, recognition: Recognition) -> tuple[list[_Page], dict[str, str], Outline]:
    """Return the pages, the information and the outline."""
    from pypdfium2 import raw

    info: dict[str, str] = file.get_metadata_dict()
    if file.get_formtype() != raw.FORMTYPE_NONE:
        file.init_forms()  # Before any page is opened.
    outline = _outline(file)
    for number in range(min(file.count_attachments(), _MOST_ATTACHMENTS)):
        losses.add("attached file", one_line(file.get_attachment(number).get_name()))
    pages = [_read_page(file, index, losses, recognition) for index in range(len(file))]
    return pages, info, outline


def _read_page(file: Any, index: int, losses: Losses, recognition: Recognition) -> _Page:
    from pypdfium2 import PdfiumError

    try:
        page = file[index]
    except PdfiumError:
        losses.add("page", f"page {index + 1}", "it is damaged")
        return _Page()  # Read the others.
    try:
        content = page.get_textpage()
        try:
            parts = reordered(content, page.get_rotation()) or [content.get_text_range()]
            beside = tuple(filled_and_noted(file, page, content, losses, f"page {index + 1}"))
        finally:
            content.close()
        found = _Page(tuple(map(_marked, parts)), beside)
        if len(found.text) > _LONGEST_STAMP or not _is_image(page, with_text=bool(found.text.strip())):
            return found
        text = recognition.text_of(page)
        if text.strip():
            return _Page((text,), beside, recognized=True)
        return replace(found, image=True)
    finally:
        page.close()


def _marked(part: Part) -> Part:
    """Mark the hyphens at line ends of a text."""
    return _DIVIDED.sub(MARK, part.translate(_SIGNS)) if isinstance(part, str) else part


def _is_image(page: Any, *, with_text: bool) -> bool:
    """Whether there are images on a page; beside text, they must cover most of it."""
    from pypdfium2 import raw

    width, height = page.get_size()
    covered = 0.0
    for image in islice(page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE], max_depth=2), _MOST_IMAGES):
        left, bottom, right, top = image.get_bounds()
        covered += abs(right - left) * abs(top - bottom)
    return covered > (width * height * _SCANNED_SHARE if with_text else 0.0)


def _without_stamps(pages: list[_Page]) -> tuple[list[_Page], list[int]]:
    """Empty pages that show nothing but an image and the stamp of a scanner, and return their numbers, from 1.

    A stamp names the program, or is the same on several pages but for its numbers. Other short text on an image is
    kept, and the page counts as scanned too.
    """
    same = Counter(_without_numbers(page.text) for page in pages if page.image)
    kept: list[_Page] = []
    scanned: list[int] = []
    for number, page in enumerate(pages, start=1):
        if page.image:
            scanned.append(number)
            if same[_without_numbers(page.text)] > 1 or _SCANNER.search(page.text):
                page = replace(page, parts=())
        kept.append(page)
    return kept, scanned


def _without_numbers(text: str) -> str:
    return " ".join(_NUMBER.sub("", text).split())


def _outline(file: Any) -> Outline:
    """Return the bookmarks, ignoring broken ones, because they only add headings."""
    from pypdfium2 import PdfiumError

    found: Outline = {}
    with suppress(PdfiumError):
        for entry in islice(file.get_toc(), _OUTLINE_LIMIT):
            target = entry.get_dest()
            page = target.get_index() if target else None
            if page is not None:
                found.setdefault(page, {})[one_line(entry.get_title()).casefold()] = entry.level + 1
    return found


def _write_text(builder: Builder, sections: Sections, page: str, number: int, titles: dict[str, int]) -> None:
    """Write the paragraphs of a text; lines that the outline names are headings."""
    for part in page.split("\n\n"):
        gap = "\n\n"
        for paragraph in _paragraphs(part, titles):
            level = titles.get(one_line(paragraph).casefold())
            if level:
                sections.enter(level, paragraph)
            builder.add(paragraph, "heading" if level else "text", sections.path, number, gap)
            gap = "\n"


def _paragraphs(page: str, titles: dict[str, int]) -> Iterator[str]:
    """Split a page after every line that is much shorter than a full one, since PDF text has no blank lines."""
    rows = [row.rstrip() for row in page.split("\n")]
    lengths = sorted(len(row) for row in rows if row)
    full = lengths[len(lengths) * 9 // 10] if lengths else 0
    gathered: list[str] = []
    for row in rows:
        named = bool(titles) and one_line(row).casefold() in titles
        if gathered and (not row or named):
            yield "\n".join(gathered)
            gathered = []
        if row:
            gathered.append(row)
        ends = row.endswith((".", ":", "!", "?", ";"))
        if gathered and (named or len(row) < full * (0.85 if ends else 0.6)):
            yield "\n".join(gathered)
            gathered = []
    if gathered:
        yield "\n".join(gathered)
