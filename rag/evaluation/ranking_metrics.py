"""Metrics of the ranking of retrieved passages.

Recall, nDCG (Järvelin and Kekäläinen, ACM TOIS 2002) and the reciprocal rank are those of ``trec_eval``, through
``ir_measures``. They rank documents: a source counts at its first rank, however many of its passages were found.
Context precision ranks passages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_PAGE = re.compile(r"(?P<source>.+) p\.(?P<page>[0-9]{1,9})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Found:
    """Origin of a retrieved passage.

    Attributes:
        source: Name or path of the file; a record adds ``#`` and its id.
        page: Page or slide, from 1, if the source has them.
    """

    source: str
    page: int | None = None


@dataclass(frozen=True, slots=True)
class RankingScores:
    """Scores of one question over its first k passages, all from 0 to 1.

    Attributes:
        recall: Share of the expected sources that were found.
        ndcg: Gain of the expected sources, discounted by the logarithm of their rank, relative to the best order.
        reciprocal_rank: 1 / rank of the first expected source, 0 if none was found; its mean is the MRR.
        precision: Context precision (Ragas); see ``context_precision``.
    """

    recall: float
    ndcg: float
    reciprocal_rank: float
    precision: float


def rank_scores(found: Sequence[Found], wanted: Sequence[str], k: int | None = None) -> RankingScores | None:
    """Score the passages retrieved for one question; None if no source is expected.

    Args:
        found: The retrieved passages, best first.
        wanted: The expected sources: ``install.md``, ``guide/install.md``, ``faq.jsonl#12``, ``report.pdf p.3``.
        k: Number of requested passages; by default the number of found ones. Further passages are ignored.
    """
    expected = tuple(dict.fromkeys(wanted))
    if not expected:
        return None
    depth = len(found) if k is None else k
    met = [[source for source in expected if matches(passage, source)] for passage in found[:depth]]
    ranked = _documents(found[:depth], met, expected)
    if not any(met):
        return RankingScores(0.0, 0.0, 0.0, 0.0)
    recall, ndcg, reciprocal_rank = _document_scores(ranked, expected, max(depth, len(ranked)))
    return RankingScores(recall, ndcg, reciprocal_rank, context_precision([bool(sources) for sources in met]))


def matches(found: Found, wanted: str) -> bool:
    """Whether a passage comes from an expected source.

    The names must be equal, or the found name must end with ``/`` and the expected one. An expected name without
    ``#`` matches all records of a file, and one that ends with ``p.3`` only that page.
    """
    if _named(found.source, wanted):
        return True
    paged = _PAGE.fullmatch(wanted)
    return bool(paged and found.page == int(paged["page"]) and _named(found.source, paged["source"]))


def context_precision(relevant: Sequence[bool]) -> float:
    """Return the mean of the precision at the ranks of all relevant passages; 0 without any.

    Defined by Ragas (Es and others, arXiv 2309.15217, and its documentation): Σ (precision@r · relevant at r) /
    number of relevant passages among those retrieved.
    """
    ranks = [rank for rank, is_relevant in enumerate(relevant, 1) if is_relevant]
    return sum(count / rank for count, rank in enumerate(ranks, 1)) / len(ranks) if ranks else 0.0


def _named(source: str, wanted: str) -> bool:
    names = [source]
    if "#" not in wanted:
        # File names and record ids may contain a #.
        names += [source[: sign.start()] for sign in re.finditer("#", source)]
    return any(name == wanted or name.endswith(f"/{wanted}") for name in names)


def _documents(found: Sequence[Found], met: Sequence[Sequence[str]], expected: Sequence[str]) -> list[str | Found]:
    """Return the distinct documents, best first: expected sources, and the origins of all other passages.

    If a page of a source is expected, its other pages count as documents of their own.
    """
    paged = [page["source"] for page in map(_PAGE.fullmatch, expected) if page]
    ranked: dict[str | Found, None] = {}
    for one, sources in zip(found, met, strict=True):
        if sources:
            ranked.update(dict.fromkeys(sources))
        else:
            by_page = any(_named(one.source, source) for source in paged)
            ranked[one if by_page else Found(one.source)] = None
    return list(ranked)


def _document_scores(ranked: Sequence[str | Found], expected: Sequence[str], k: int) -> tuple[float, float, float]:
    """Return recall and nDCG at k, and the reciprocal rank."""
    from ir_measures import RR, R, nDCG, pytrec_eval

    measures = (R @ k, nDCG @ k, RR)
    names = {source: f"expected {at}" for at, source in enumerate(expected)}
    # Descending scores preserve the order; ties would be reordered.
    run = {
        names[document] if isinstance(document, str) else f"other {at}": float(len(ranked) - at)
        for at, document in enumerate(ranked)
    }
    qrels = dict.fromkeys(names.values(), 1)
    values = {
        metric.measure: float(metric.value)
        for metric in pytrec_eval.iter_calc(measures, {"question": qrels}, {"question": run})
    }
    recall, ndcg, reciprocal_rank = (values[measure] for measure in measures)
    return recall, ndcg, reciprocal_rank
