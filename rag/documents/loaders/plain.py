"""Plain text, and text of an unknown format: a block is a paragraph, or a line of a log file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rag.documents.loaders._blocks import finished, lines, paragraphs
from rag.documents.loaders._text import OnProblem, decode
from rag.types import Block, Document


def load(path: Path, data: bytes, on_problem: OnProblem) -> Iterator[Document]:
    """Yield one document; the stored text is the decoded file."""
    text = decode(path, data, on_problem)
    spans = lines(text, 0, len(text)) if path.suffix.lower() == ".log" else paragraphs(text)
    yield Document(text, finished(path, text, (Block(start, end) for start, end in spans)))
