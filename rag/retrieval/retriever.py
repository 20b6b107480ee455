"""Hybrid search: dense and lexical results, fused by rank, without near-duplicates.

Reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009): rank r on a side adds weight / (k + r) to the
score of a passage. Ranks are comparable across sides, while cosine and BM25 are not.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal, NamedTuple

from sqlalchemy import Select, bindparam, select

from rag import tables as db
from rag.database import reading
from rag.documents.keys import keys_in, keys_of_place
from rag.documents.table_rows import asked_rows, row_of
from rag.indexing.corpus_index import CorpusIndex
from rag.retrieval.filters import Described, matches, matching_texts
from rag.retrieval.question_limit import check_question
from rag.retrieval.reranking import NullReranker, Reranker
from rag.settings import RetrievalSettings, SearchMode
from rag.types import Dropped, Filters, Found, Hit, Passage

# Of two passages that share this much of their words (Jaccard index), only the better one is kept, unless the
# other has a word of the query that it lacks, such as the number of another invoice.
NEAR_DUPLICATE = 0.9

# Passages that are left out and named in the trace, and the characters of their texts there.
MOST_DROPPED = 10
DROPPED_CHARS = 200

# Passages among which one with a key of the query is looked for: an error code, or the name of a row of a table.
KEY_DEPTH = 20
# The key does not distinguish more passages that have it.
MOST_NAMED = 3
# Words of a row's name that only together tell it from others; a single one the lexical side finds.
FEWEST_ROW_WORDS = 2

Ranked = Sequence[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """Options of a search.

    Attributes:
        k: Number of hits.
        mode: One side, or both.
    """

    k: int
    mode: SearchMode = "hybrid"
    filters: Filters = field(default_factory=Filters)


class Retriever:
    """Searches one index.

    Args:
        index: The corpus.
        settings: Depth and weights of the fusion, and default options.
        reranker: Reorders the fused hits.
        question_chars: Maximum characters of a query; None for no limit.
    """

    def __init__(
        self,
        index: CorpusIndex,
        settings: RetrievalSettings,
        reranker: Reranker | None = None,
        question_chars: int | None = None,
    ) -> None:
        self.index = index
        self.question_chars = question_chars
        self._settings = settings
        self._reranker = reranker or NullReranker()
        self._lexical_side = ThreadPoolExecutor(1, thread_name_prefix="lexical")

    def using(self, settings: RetrievalSettings, reranker: Reranker) -> Retriever:
        """Return a retriever of the same index with other settings; closing either closes both."""
        other = copy(self)
        other._settings, other._reranker = settings, reranker
        return other

    def options(self, k: int | None = None, mode: SearchMode | None = None) -> SearchOptions:
        """Return the default options, overridden by the arguments."""
        return SearchOptions(k or self._settings.k, mode or self._settings.mode)

    def search(self, query: str, options: SearchOptions | None = None) -> list[Hit]:
        """Return the best passages for a query: the hits of ``find``."""
        return list(self.find(query, options).hits)

    def find(self, query: str, options: SearchOptions | None = None) -> Found:
        """Return the best passages for a query, and some that were left out.

        Args:
            query: Free text; nothing in it is query syntax.
            options: Search options; by default those of the settings.

        Returns:
            At most ``k`` hits, best first; those with a key that the query names come before all others.

        Raises:
            QuestionTooLong: The query has too many characters.
            StoreError: A store refuses.
        """
        if self.question_chars is not None:
            check_question(query, self.question_chars)
        asked = options or self.options()
        text_ids = self._allowed(asked.filters)
        depth = max(self._settings.candidates, asked.k, self._reranker.depth)
        page = asked.filters.page
        waiting = None
        if asked.mode != "dense":
            waiting = self._lexical_side.submit(self.index.lexical.search, query, depth, text_ids, page)
        dense: Ranked = ()
        # Ranks of a side that cannot read the query would only spoil those of the other.
        unread = waiting is not None and not self.index.encoder.tokens.knows(query)
        if asked.mode != "lexical" and not (unread and waiting and waiting.result()):
            vector = self.index.encoder.embed([query])[0]
            dense = self.index.dense.search(vector, depth, text_ids, page)
        lexical: Ranked = waiting.result() if waiting else ()
        fused = fuse(dense, lexical, self._settings)
        wanted = max(asked.k, self._reranker.depth, KEY_DEPTH)
        chosen, dropped = self._chosen(query, fused, asked.filters, wanted)
        ordered = _named_first(query, self._reranker.rerank(query, chosen))
        outranked = [_dropped(hit, "rank") for hit in ordered[asked.k :][:MOST_DROPPED]]
        return Found(tuple(ordered[: asked.k]), tuple((outranked + dropped)[:MOST_DROPPED]))

    def _allowed(self, filters: Filters) -> list[int] | None:
        if not filters.by_document:
            return None
        with reading(self.index.engine) as connection:
            return matching_texts(connection, self.index.id, filters)

    def _chosen(self, query: str, fused: list[Fused], filters: Filters, k: int) -> tuple[list[Hit], list[Dropped]]:
        """Return the first ``k`` hits that are neither near-duplicates nor left over from a crash, and others."""
        kept: list[Hit] = []
        dropped: list[Dropped] = []
        bags: list[frozenset[str]] = []
        asked = frozenset(self.index.lexical.words(query))
        read: dict[int, Passage] = {}

        @cache
        def matched_words(passage_id: int) -> frozenset[str]:
            """Return the words of the query that a passage has; read only where two are alike."""
            one = read[passage_id]
            return asked.intersection(self.index.lexical.words(f"{one.title} {' '.join(one.headings)} {one.text}"))

        # Few hits are dropped, so that one query of the database is usually enough.
        for at in range(0, len(fused), k + 5):
            some = fused[at : at + k + 5]
            read |= self._passages([candidate.passage_id for candidate in some], filters)
            for candidate in some:
                passage = read.get(candidate.passage_id)
                if passage is None:
                    continue
                if len(kept) == k:
                    dropped.append(_dropped(candidate.hit(passage), "rank"))
                    continue
                bag = frozenset(passage.text.lower().split())
                better = next(
                    (
                        hit.passage.id
                        for other, hit in zip(bags, kept, strict=True)
                        if _alike(bag, other) and matched_words(passage.id) <= matched_words(hit.passage.id)
                    ),
                    None,
                )
                if better is not None:
                    dropped.append(_dropped(candidate.hit(passage), "near-duplicate", better))
                    continue
                kept.append(candidate.hit(passage))
                bags.append(bag)
            if len(kept) == k:
                break
        return kept, dropped

    def _passages(self, ids: Sequence[int], filters: Filters) -> dict[int, Passage]:
        with reading(self.index.engine) as connection:
            rows = connection.execute(_fetch(), {"ids": list(ids)})
            return {
                row.id: _passage(row)
                for row in rows
                if matches(filters, Described(row.path, row.name, row.record, row.title, row.date, row.metadata))
            }

    def close(self) -> None:
        """End the thread of the lexical search."""
        self._lexical_side.shutdown(wait=False)


@cache
def _fetch() -> Select[Any]:
    """Return the statement that fetches passages by id, built once."""
    return (
        select(
            db.passages.c.id,
            db.passages.c.text_id,
            db.passages.c.text,
            db.passages.c.start,
            db.passages.c.end,
            db.passages.c.headings,
            db.passages.c.page,
            db.documents.c.record,
            db.documents.c.title,
            db.documents.c.date,
            db.documents.c.metadata,
            db.sources.c.path,
            db.sources.c.name,
        )
        .join(db.documents, db.documents.c.text_id == db.passages.c.text_id)
        .join(db.sources, db.sources.c.id == db.documents.c.source_id)
        .where(db.passages.c.id.in_(bindparam("ids", expanding=True)))
        # Of several matching files with the same text, the first by path is kept.
        .order_by(db.sources.c.path.desc(), db.documents.c.id.desc())
    )


class Fused(NamedTuple):
    """A passage id with its ranks and scores; a tuple for speed, since a query creates about two hundred."""

    passage_id: int
    score: float
    dense_rank: int | None = None
    dense_score: float | None = None
    lexical_rank: int | None = None
    lexical_score: float | None = None

    def hit(self, passage: Passage) -> Hit:
        """Return the hit for the loaded passage."""
        return Hit(passage, self.score, self.dense_rank, self.dense_score, self.lexical_rank, self.lexical_score)


def _dropped(hit: Hit, reason: Literal["near-duplicate", "rank"], better: int | None = None) -> Dropped:
    shortened = replace(hit.passage, text=hit.passage.text[:DROPPED_CHARS])
    return Dropped(replace(hit, passage=shortened), reason, better)


def fuse(dense: Ranked, lexical: Ranked, settings: RetrievalSettings) -> list[Fused]:
    """Fuse two rankings, best first; a single ranking keeps its scores.

    Args:
        dense: Passage ids and cosines, best first.
        lexical: Passage ids and BM25 scores, best first.
        settings: Provides ``rrf_k`` and ``dense_weight``.
    """
    nowhere: tuple[None, None] = (None, None)
    dense_places = {number: (rank, score) for rank, (number, score) in enumerate(dense, 1)}
    lexical_places = {number: (rank, score) for rank, (number, score) in enumerate(lexical, 1)}
    found = []
    for number in dense_places | lexical_places:
        dense_rank, dense_score = dense_places.get(number, nowhere)
        lexical_rank, lexical_score = lexical_places.get(number, nowhere)
        if dense and lexical:
            score = 0.0
            if dense_rank:
                score += settings.dense_weight / (settings.rrf_k + dense_rank)
            if lexical_rank:
                score += (1 - settings.dense_weight) / (settings.rrf_k + lexical_rank)
        else:
            score = dense_score if dense_score is not None else lexical_score or 0.0
        found.append(Fused(number, score, dense_rank, dense_score, lexical_rank, lexical_score))
    return sorted(found, key=_order)


def _order(fused: Fused) -> tuple[float, int, int]:
    """Return a sort key: by score, then by dense rank, then by id."""
    return (-fused.score, fused.dense_rank or sys.maxsize, fused.passage_id)


def _named_first(query: str, hits: Sequence[Hit]) -> list[Hit]:
    """Return the hits with the few first that have what the query names, since an encoder hardly sees it."""
    keys = keys_in(query)
    counts = [len(keys & _keys_of(hit.passage)) for hit in hits] if keys else _rows_named(query, hits)
    most = max(counts, default=0)
    named = [hit for hit, count in zip(hits, counts, strict=True) if count == most]
    if not most or len(named) > MOST_NAMED:
        return list(hits)
    return named + [hit for hit, count in zip(hits, counts, strict=True) if count < most]


def _rows_named(query: str, hits: Sequence[Hit]) -> list[int]:
    """Return for each hit whether it has a row of a table that the query names, as 1 or 0."""
    places, rows = [], []
    for place, hit in enumerate(hits):
        for line in hit.passage.text.splitlines():
            row = row_of(line)
            if row is not None:
                keys = tuple(key for key in row.keys if len(key) >= FEWEST_ROW_WORDS)
                places.append(place)
                rows.append(replace(row, keys=keys))
    named = {places[at] for at in asked_rows(query, rows)}
    return [int(place in named) for place in range(len(hits))]


def _keys_of(passage: Passage) -> frozenset[str]:
    return keys_of_place(passage.title, passage.headings) | keys_in(passage.text)


def _alike(one: frozenset[str], other: frozenset[str]) -> bool:
    small, large = sorted((len(one), len(other)))
    # Comparing the sizes first avoids most intersections.
    if small < NEAR_DUPLICATE * large:
        return False
    shared = len(one & other)
    return shared >= NEAR_DUPLICATE * (len(one) + len(other) - shared)


def _passage(row: Any) -> Passage:
    source = f"{row.path}#{row.record}" if row.record else row.path
    name = f"{row.name}#{row.record}" if row.record else row.name
    return Passage(
        id=row.id,
        document_id=row.text_id,
        source=source,
        name=name,
        title=row.title,
        text=row.text,
        start=row.start,
        end=row.end,
        headings=tuple(row.headings),
        page=row.page,
        metadata=row.metadata,
    )
