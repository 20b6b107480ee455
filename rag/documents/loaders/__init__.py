"""From a file's bytes to documents: one module for each family of formats, all of the same shape.

``load`` works in the process that calls it; what comes from outside goes through the module ``isolated``.
Nothing here opens a file: the caller reads the bytes, having checked their number, and the path only gives
the suffix and the name for messages. Each loader is a function ``(path, data, on_problem)`` that yields
documents; text-like formats store the decoded file as it is, the others a plain rendering of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rag.documents.loaders import (
    code,
    docx,
    html,
    json_records,
    markdown,
    notebook,
    pdf,
    plain,
    pptx,
    python,
    rst,
    table,
)
from rag.documents.loaders._text import Loader, OnProblem, refused
from rag.errors import RagsmithError
from rag.types import Document

__all__ = ["LOADER_VERSION", "OnProblem", "kind_of", "load", "suffixes"]

# Raise it whenever a loader's output changes, so that files that have not changed are loaded anew.
LOADER_VERSION = 1

_LOADERS: dict[str, Loader] = {
    "markdown": markdown.load,
    "rst": rst.load,
    "text": plain.load,
    "html": html.load,
    "pdf": pdf.load,
    "docx": docx.load,
    "pptx": pptx.load,
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
    **dict.fromkeys((".csv", ".tsv"), "table"),
    ".json": "json",
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    ".ipynb": "notebook",
    **dict.fromkeys((".py", ".pyi"), "python"),
    **dict.fromkeys(code.SUFFIXES, "code"),
}

# Files that go by a name without a suffix.
_NAMES: dict[str, str] = {
    **dict.fromkeys(("readme", "license", "licence", "copying", "notice", "authors", "changelog"), "text"),
    **dict.fromkeys(("makefile", "dockerfile"), "code"),
}


def kind_of(path: Path) -> str | None:
    """The name of the loader for a path, by its suffix or name; None for a format that is not read."""
    return _SUFFIXES.get(path.suffix.lower()) or _NAMES.get(path.name.lower())


def suffixes() -> list[str]:
    """Every suffix that is read, with its dot, in alphabetical order."""
    return sorted(_SUFFIXES)


def load(path: Path, data: bytes, *, on_problem: OnProblem = lambda _: None) -> Iterator[Document]:
    """Turn the bytes of a file into documents.

    A path whose suffix is unknown is read as plain text. The work is linear in the bytes, and errors come
    while the documents are iterated, not at the call.

    Args:
        path: Names the file: the suffix chooses the loader, the name goes into messages. It is not opened.
        data: The whole content.
        on_problem: Called with one sentence for each thing that was left out or repaired without giving up the
            file: a bad record, bytes that are not valid in the encoding, pages without text.

    Yields:
        One document, or for JSON and JSONL one for each record. Each has at least one block.

    Raises:
        LoadError: The file holds nothing that can be read: empty, binary, broken, encrypted, or without text.
    """
    if not data or data.isspace():
        raise refused(path, "is empty", "Leave it out, or add it again once it has content.")
    try:
        documents = _LOADERS[kind_of(path) or "text"](path, data, on_problem)
        # Whoever decodes them, the bytes are not needed while the documents are taken one by one.
        del data
        yield from documents
    # Memory that is missing says nothing about the file: whoever limits it knows what to say.
    except (RagsmithError, MemoryError):
        raise
    except RecursionError as error:
        raise refused(path, "is nested too deeply to be read", "Flatten it, or leave it out.") from error
    # Parsers meet hostile bytes with exceptions that no list covers (IndexError, KeyError, struct.error ...).
    except Exception as error:
        problem = f"cannot be read: {type(error).__name__}: {error}"
        raise refused(path, problem, "It seems to be damaged: save it anew, or leave it out.") from error
