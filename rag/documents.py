"""What passes from a file to an answer: documents, their blocks, and passages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

BlockKind = Literal["heading", "text", "code", "row"]
Scalar = str | int | float | bool
Metadata = Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of a document that its structure sets apart: a paragraph, a heading, a function, a table row.

    Attributes:
        start: First character, an offset into the document's text.
        end: One past the last character.
        kind: ``heading`` opens a section, ``row`` is a record of a table, ``code`` keeps its line breaks.
        headings: Titles of the sections around the block, outermost first; a heading includes itself.
        page: Page or slide, counted from 1, where the source has them.
    """

    start: int
    end: int
    kind: BlockKind = "text"
    headings: tuple[str, ...] = ()
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Document:
    r"""A loaded source. One file is one document, except JSON and JSONL, where each record is one.

    Attributes:
        text: The stored text that every offset refers to. Line ends are ``\n``; no NUL, no lone surrogates.
        blocks: In order of ``start``, without overlap; what they leave out is not indexed.
        title: The title found inside the source; None where there is none (the file name is not a title).
        record: Identity inside the file: the ``id`` of a record or its number; empty for whole files.
        metadata: What else the source says of itself.
        date: The date that the source carries inside (front matter, PDF information), if any.
    """

    text: str
    blocks: tuple[Block, ...]
    title: str | None = None
    record: str = ""
    metadata: Metadata = field(default_factory=dict)
    date: date | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage before it has a place in an index: offsets into its document's text."""

    start: int
    end: int
    headings: tuple[str, ...]
    page: int | None
    tokens: int


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk of a document, as an index holds it.

    Attributes:
        id: Number of the passage in the database.
        document_id: Number of the stored text that ``start`` and ``end`` refer to.
        source: Absolute path of the file; a record adds ``#`` and its id.
        name: The source as a person reads it: the path below the folder that was ingested.
        title: Title inside the source, else the file's name.
        text: Exactly ``stored_text[start:end]``.
        headings: Titles of the sections around it, outermost first.
        page: Page or slide, from 1, where the source has them.
    """

    id: int
    document_id: int
    source: str
    name: str
    title: str
    text: str
    start: int
    end: int
    headings: tuple[str, ...] = ()
    page: int | None = None
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage found for a query, and why.

    Attributes:
        score: What the list is ordered by: the fused score, or that of the only side asked.
        dense_rank, lexical_rank: Place on each side, from 1; None where that side did not find it.
        dense_score: Cosine similarity, -1 to 1.
        lexical_score: BM25, 0 upwards.
        rerank_score: The reranker's score, where one ran.
    """

    passage: Passage
    score: float
    dense_rank: int | None = None
    dense_score: float | None = None
    lexical_rank: int | None = None
    lexical_score: float | None = None
    rerank_score: float | None = None
