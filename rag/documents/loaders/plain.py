"""Plain text, and text of an unknown format: a block is a paragraph, or a line of a log file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rag.documents.loaders._blocks import finished, lines, paragraphs
from rag.documents.loaders._foreign import is_encoded
from rag.documents.loaders._text import OnProblem, decode, refused
from rag.types import Block, Document


def load(path: Path, data: bytes, on_problem: OnProblem) -> Iterator[Document]:
    """Yield one document; the stored text is the decoded file.

    Raises:
        LoadError: It is binary, or mostly encoded data.
    """
    text = decode(path, data, on_problem)
    if is_encoded(text):
        raise refused(path, "contains encoded data, not text", "Leave it out, or add what it was made from.")
    spans = lines(text, 0, len(text)) if path.suffix.lower() == ".log" else paragraphs(text)
    yield Document(text, finished(path, text, (Block(start, end) for start, end in spans)))
