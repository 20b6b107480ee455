"""Loaders from bytes to documents, one module per family of formats.

``load`` works in the calling process; untrusted files go through the module ``isolated``. Nothing here opens a
file: the caller checks the size and reads the bytes, and the path only provides the suffix and the name for
messages. Every loader is a function ``(path, data, on_problem)`` that yields documents; text-like formats store
the decoded file unchanged, the others a plain rendering of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rag.documents.loaders import (
    code,
    docx,
    epub,
    html,
    json_records,
    mail,
    markdown,
    notebook,
    pdf,
    plain,
    pptx,
    python,
    rst,
    rtf,
    table,
    xlsx,
)
from rag.documents.loaders._blocks import LONGEST_RUN, opaque_runs
from rag.documents.loaders._foreign import foreign, misnamed
from rag.documents.loaders._text import Loader, OnProblem, refused
from rag.errors import RagsmithError
from rag.tracing.figures import counted
from rag.types import Document

__all__ = ["LOADER_VERSION", "OnProblem", "kind_of", "load", "suffixes"]

# Increment when a loader's output changes, so that unchanged files are loaded again.
LOADER_VERSION = 4

_LOADERS: dict[str, Loader] = {
    "markdown": markdown.load,
    "rst": rst.load,
    "text": plain.load,
    "html": html.load,
    "pdf": pdf.load,
    "docx": docx.load,
    "pptx": pptx.load,
    "xlsx": xlsx.load,
    "epub": epub.load,
    "mail": mail.load,
    "rtf": rtf.load,
    "table": table.load,
    "json": json_records.load,
    "jsonl": json_records.load_lines,
    "notebook": notebook.load,
    "python": python.load,
    "code": code.load,
}

_SUFFIXES: dict[str, str] = {
    **dict.fromkeys((".md", ".markdown"), "markdown"),
    ".rst": "rst",
    **dict.fromkeys((".txt", ".text", ".log"), "text"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
    ".pdf": "pdf",
    ".docx": "docx",
    ".pptx": "pptx",
    **dict.fromkeys((".xlsx", ".xlsm"), "xlsx"),
    ".epub": "epub",
    **dict.fromkeys((".eml", ".mht", ".mhtml"), "mail"),
    ".rtf": "rtf",
    **dict.fromkeys((".csv", ".tsv"), "table"),
    ".json": "json",
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    ".ipynb": "notebook",
    **dict.fromkeys((".py", ".pyi"), "python"),
    **dict.fromkeys(code.SUFFIXES, "code"),
}

# File names without a suffix.
_NAMES: dict[str, str] = {
    **dict.fromkeys(("readme", "license", "licence", "copying", "notice", "authors", "changelog"), "text"),
    **dict.fromkeys(("makefile", "dockerfile"), "code"),
}


def kind_of(path: Path) -> str | None:
    """Return the name of the loader for a path, by suffix or name; None for an unsupported format."""
    return _SUFFIXES.get(path.suffix.lower()) or _NAMES.get(path.name.lower())


# How files begin that are also found under other suffixes, or none.
_SIGNATURES = ((b"{\\rtf", "rtf"), (b"%PDF-", "pdf"))


def suffixes() -> list[str]:
    """Return all supported suffixes, with their dots, sorted."""
    return sorted(_SUFFIXES)


def load(
    path: Path, data: bytes, *, on_problem: OnProblem = lambda _: None, ocr_s: float = 0.0
) -> Iterator[Document]:
    """Turn the bytes of a file into documents.

    A path with an unknown suffix is read as plain text, unless the file is known to be something else. The work
    is linear in the bytes, and errors are raised while the documents are iterated, not by the call.

    Args:
        path: The suffix selects the loader, the name goes into messages. The file is not opened.
        data: The whole content.
        on_problem: Called with a sentence about every part that was skipped or repaired: a bad record, bytes
            that are not valid in the encoding, pages without text.
        ocr_s: Seconds for text recognition in scanned pages of a PDF; 0 turns it off.

    Yields:
        One document, or for JSON and JSONL one per record, with at least one block each.

    Raises:
        LoadError: The file contains nothing readable: it is empty, binary, broken, encrypted, or without text.
    """
    if not data or data.isspace():
        raise refused(path, "is empty", "Leave it out, or add it again once it has content.")
    try:
        kind = _kind(path, data)
        error = misnamed(path, data, kind)
        if error is not None:
            raise error
        if kind == "pdf":
            documents = pdf.load(path, data, on_problem, ocr_s)
        else:
            documents = _LOADERS[kind](path, data, on_problem)
        # Let the bytes be freed while the documents are iterated.
        del data
        runs = 0
        for document in documents:
            runs += opaque_runs(document.text)
            yield document
        if runs:
            on_problem(
                f"{counted(runs, 'run')} of over {LONGEST_RUN:,} characters without a space not read (data)"
            )
    # Lack of memory is reported by the caller that limits it.
    except (RagsmithError, MemoryError):
        raise
    except RecursionError as error:
        raise refused(path, "is nested too deeply to be read", "Flatten it, or leave it out.") from error
    # Parsers raise arbitrary exceptions on hostile bytes (IndexError, KeyError, struct.error ...).
    except Exception as error:
        problem = f"cannot be read: {type(error).__name__}: {error}"
        raise refused(path, problem, "It seems to be damaged: save it again, or leave it out.") from error


def _kind(path: Path, data: bytes) -> str:
    """Return the loader for a file by name, or else by how it begins.

    Raises:
        LoadError: It is of a format that is not read.
    """
    kind = kind_of(path)
    if kind is None or kind == "text":
        found = next((name for mark, name in _SIGNATURES if data.startswith(mark)), None)
        error = None if found else foreign(path, data)
        if error is not None:
            raise error
        kind = found or kind
    return kind or "text"
