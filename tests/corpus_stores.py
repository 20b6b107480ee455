"""Filling a corpus in a test, and looking at what its three stores then hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from rag import tables as db
from rag.database import reading
from rag.documents.loaders.isolated import IsolatedLoader, ParseLimits
from rag.encoders import Encoder
from rag.indexing.corpus_index import CorpusIndex
from rag.indexing.ingest_report import IngestReport
from rag.indexing.ingestion import ingest
from rag.settings import IngestSettings

LARGEST_FILE = 10_000_000

Place = tuple[str, str, int, int, str]
"""Path, record, start, end and text of a passage."""


class CountingEncoder:
    """The real encoder, which remembers the passages that it was given and calls ``on_embed`` for each batch."""

    def __init__(self, inner: Encoder) -> None:
        self.inner = inner
        self.card, self.runtime, self.notice = inner.card, inner.runtime, inner.notice
        self.tokens = inner.tokens
        self.texts: list[str] = []
        self.on_embed: Callable[[], object] = lambda: None

    def embed(self, texts: Sequence[str], on_progress: Callable[[int], None] | None = None) -> NDArray[np.float32]:
        return self.inner.embed(texts, on_progress)

    def embed_passages(
        self, texts: Sequence[str], on_progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        self.texts.extend(texts)
        self.on_embed()
        return self.inner.embed_passages(texts, on_progress)


def write(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write these files below a folder; returns the folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def limits(**changes: Any) -> ParseLimits:
    """The usual limits, but for some."""
    return replace(ParseLimits.of(IngestSettings()), **{"file_bytes": LARGEST_FILE, **changes})


def take_in(
    index: CorpusIndex,
    *paths: Path,
    max_bytes: int = LARGEST_FILE,
    loader: IsolatedLoader | None = None,
    **options: Any,
) -> IngestReport:
    """Ingest, without a loader with the usual limits, but for the size of a file."""
    if loader is not None:
        return ingest(index, paths, loader, **options)
    with IsolatedLoader(limits(file_bytes=max_bytes)) as own:
        return ingest(index, paths, own, **options)


def places(index: CorpusIndex) -> dict[Place, int]:
    """Where each passage stands that can be found, and its number; one for each entry that holds its text."""
    p, e, f = db.passages.c, db.documents.c, db.sources.c
    with reading(index.engine) as connection:
        rows = connection.execute(
            select(f.path, e.record, p.start, p.end, p.text, p.id)
            .join_from(db.passages, db.documents, e.text_id == p.text_id)
            .join(db.sources, f.id == e.source_id)
            .where(f.index_id == index.id)
        )
        return {(path, record, start, end, text): number for path, record, start, end, text, number in rows}


def passages_of(index: CorpusIndex, name: str) -> dict[str, int]:
    """The texts of a file's passages, and their numbers."""
    return {place[4]: number for place, number in places(index).items() if Path(place[0]).name == name}


def assert_in_step(index: CorpusIndex) -> None:
    """Whether the three stores hold the same passages, all of them finished and held by a file."""
    with reading(index.engine) as connection:
        rows = connection.execute(select(db.texts.c.id, db.texts.c.state).where(db.texts.c.index_id == index.id))
        texts = dict(iter(rows))
        numbers = set(connection.scalars(select(db.passages.c.id).where(db.passages.c.text_id.in_(texts))))
        held = set(
            connection.scalars(
                select(db.documents.c.text_id).join(db.sources).where(db.sources.c.index_id == index.id)
            )
        )
    assert set(texts.values()) <= {"ready"}
    assert set(texts) == held
    assert set(places(index).values()) == numbers
    assert index.dense.passage_ids() == sorted(numbers)
    assert index.lexical.passage_ids() == sorted(numbers)
    assert len(index.dense) == len(index.lexical) == index.passage_count() == len(numbers)


def vectors_by_place(index: CorpusIndex) -> dict[Place, NDArray[np.float32]]:
    """The stored vector of each passage."""
    numbers = places(index)
    stored = index.dense.vectors(sorted(set(numbers.values())))
    return {place: stored[number] for place, number in numbers.items()}
