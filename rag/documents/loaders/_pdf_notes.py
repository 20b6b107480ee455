"""What is filled into the forms of a PDF, and the remarks on its pages."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from typing import Any

from rag.documents.loaders._blocks import LONGEST_HEADING
from rag.documents.loaders._losses import Losses

_HIDDEN = 2  # FPDF_ANNOT_FLAG_HIDDEN
_MOST_ANNOTATIONS = 5_000
_MOST_BYTES = 200_000
_SAME_LINE = 2.0
"""Points by which the label of a field may stand below or above its middle."""
_FARTHEST = 300.0
"""Points between a box to tick and the end of its label."""
_PIECES = re.compile(r"[\r\n]+|(?<=:)\s+|\s{3,}")


def filled_and_noted(file: Any, page: Any, content: Any, losses: Losses, place: str) -> Iterator[str]:
    """Yield the values of form fields with their labels, and the texts of remarks, in the order of the file.

    Args:
        file: The document, with its form opened.
        page: The page.
        content: Its text page, for the labels.
        losses: Counts attached files.
        place: The page, in words.
    """
    from pypdfium2 import raw

    for number in range(min(raw.FPDFPage_GetAnnotCount(page), _MOST_ANNOTATIONS)):
        annotation = raw.FPDFPage_GetAnnot(page, number)
        if not annotation:
            continue
        try:
            if raw.FPDFAnnot_GetFlags(annotation) & _HIDDEN:
                continue
            kind = raw.FPDFAnnot_GetSubtype(annotation)
            if kind == raw.FPDF_ANNOT_WIDGET:
                yield from _field(file.formenv, annotation, content) if file.formenv else ()
            elif kind == raw.FPDF_ANNOT_FILEATTACHMENT:
                losses.add("attached file", place)
            elif kind not in (raw.FPDF_ANNOT_LINK, raw.FPDF_ANNOT_POPUP):
                text = _string(raw.FPDFAnnot_GetStringValue, annotation, b"Contents").strip()
                if text:
                    yield f"Note: {text}"
        finally:
            raw.FPDFPage_CloseAnnot(annotation)


def _field(form: Any, annotation: Any, content: Any) -> Iterator[str]:
    from pypdfium2 import raw

    kind = raw.FPDFAnnot_GetFormFieldType(form, annotation)
    if kind in (raw.FPDF_FORMFIELD_CHECKBOX, raw.FPDF_FORMFIELD_RADIOBUTTON):
        value = "yes" if raw.FPDFAnnot_IsChecked(form, annotation) else ""
        after = True
    else:
        if kind in (raw.FPDF_FORMFIELD_PUSHBUTTON, raw.FPDF_FORMFIELD_SIGNATURE):
            return
        value = _string(raw.FPDFAnnot_GetFormFieldValue, form, annotation).strip()
        after = False
    if value:
        name = _label(annotation, content, after) or _string(
            raw.FPDFAnnot_GetFormFieldAlternateName, form, annotation
        )
        name = name or _string(raw.FPDFAnnot_GetFormFieldName, form, annotation)
        yield f"{name.strip().rstrip(':')}: {value}" if name.strip() else value


def _label(annotation: Any, content: Any, after: bool) -> str:
    """Return the text beside a field: before it, after a box to tick, or else above it."""
    from pypdfium2 import raw

    box = raw.FS_RECTF()
    if not raw.FPDFAnnot_GetRect(annotation, box):
        return ""
    bottom, top = min(box.bottom, box.top), max(box.bottom, box.top)
    left, right = min(box.left, box.right), max(box.left, box.right)
    middle = (bottom + top) / 2
    before = (0.0, middle - _SAME_LINE, left, middle + _SAME_LINE)
    lower = (0.0, bottom, left, top)
    beside = (right, middle - _SAME_LINE, right + _FARTHEST, middle + _SAME_LINE)
    above = (left - _SAME_LINE, top, right, top + 4 * _SAME_LINE)
    for place in (beside, before) if after else (before, lower, above):
        # Of several fields on a line, each has the text next to it.
        pieces = [piece for piece in _PIECES.split(content.get_text_bounded(*place)) if piece.strip()]
        if pieces:
            return str(pieces[0] if after else pieces[-1]).strip()[:LONGEST_HEADING]
    return ""


def _string(read: Any, *arguments: Any) -> str:
    """Call a function of PDFium that fills a buffer with UTF-16."""
    from pypdfium2 import raw

    size = min(int(read(*arguments, None, 0)), _MOST_BYTES)
    if size <= len("\0".encode("utf-16-le")):
        return ""
    buffer = ctypes.create_string_buffer(size)
    read(*arguments, ctypes.cast(buffer, ctypes.POINTER(raw.FPDF_WCHAR)), size)
    return buffer.raw[: size - 2].decode("utf-16-le", "ignore").replace("\r\n", "\n").replace("\r", "\n")
