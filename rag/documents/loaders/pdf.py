"""PDF, through PDFium: the text of every page, split into paragraphs by line length.

PDFium is not thread-safe, even across documents: only one thread of a process may load PDFs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from rag.documents.loaders._blocks import Builder, Sections, finished, one_line
from rag.documents.loaders._fields import date_in, scalars, to_date, written_title
from rag.documents.loaders._text import OnProblem, refused
from rag.errors import first_line
from rag.types import Document

_PASSWORD_ERROR = 4  # FPDF_ERR_PASSWORD
_OUTLINE_LIMIT = 10_000
# PDFium writes U+FFFE (or U+0002) for a hyphen at a line end; it becomes a plain hyphen.
_SIGNS = str.maketrans({"\ufffe": "-", "\x02": "-", "\r": None})
_INFO = {"Author": "author", "Subject": "subject", "Keywords": "keywords"}

Outline = dict[int, dict[str, int]]
"""Maps pages, from 0, to the titles on them and their levels, from 1."""


def load(path: Path, data: bytes, on_problem: OnProblem) -> Iterator[Document]:
    """Yield one document; the stored text is that of the pages in order, paragraphs on lines of their own.

    Raises:
        LoadError: The file is damaged, needs a password, or has no text (scanned pages).
    """
    file = _open(path, data)
    try:
        pages, scanned, info, outline = _read(file)
    finally:
        file.close()
    if not any(page.strip() for page in pages):
        raise refused(
            path,
            "has no text: its pages seem to be scanned images",
            "Run text recognition first (OCR, for example with ocrmypdf) and add the result.",
        )
    if scanned:
        shown = ", ".join(map(str, scanned[:20])) + (" and more" if len(scanned) > 20 else "")
        on_problem(f"pages with images but no text were not read: {shown}")
    builder = Builder()
    sections = Sections()
    for number, page in enumerate(pages, start=1):
        _write_page(builder, sections, page, number, outline.get(number - 1, {}))
    created = to_date(info.get("CreationDate"))
    yield Document(
        builder.text,
        finished(path, builder.text, builder.blocks),
        title=written_title(info.get("Title")),
        metadata=scalars({name: info.get(key) for key, name in _INFO.items()} | {"pages": len(pages)}),
        date=created or date_in(info),
    )


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


def _read(file: Any) -> tuple[list[str], list[int], dict[str, str], Outline]:
    """Return the text of every page, the numbers (from 1) of pages with images only, the info, the outline."""
    info: dict[str, str] = file.get_metadata_dict()
    count = len(file)
    outline = _outline(file)
    pages: list[str] = []
    scanned: list[int] = []
    for index in range(count):
        text, images = _read_page(file, index)
        pages.append(text)
        if images:
            scanned.append(index + 1)
    return pages, scanned, info, outline


def _read_page(file: Any, index: int) -> tuple[str, bool]:
    """Return the text of a page, and whether it has images instead of text."""
    from pypdfium2 import PdfiumError, raw

    try:
        page = file[index]
    except PdfiumError:
        return "", False  # The page is listed but missing: read the others.
    try:
        content = page.get_textpage()
        try:
            text = content.get_text_range().translate(_SIGNS)
        finally:
            content.close()
        if text.strip():
            return text, False
        images = page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE], max_depth=2)
        return "", next(iter(images), None) is not None
    finally:
        page.close()


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


def _write_page(builder: Builder, sections: Sections, page: str, number: int, titles: dict[str, int]) -> None:
    """Write a page's paragraphs; lines that the outline names are headings."""
    gap = "\n\n"
    for paragraph in _paragraphs(page, titles):
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
