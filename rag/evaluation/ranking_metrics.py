"""How well retrieval ranked what a question needs.

Recall, nDCG (Järvelin and Kekäläinen, ACM TOIS 2002) and the reciprocal rank are those of ``trec_eval``, through
``ir_measures``. They look at documents: a source counts where it stands first, however many of its passages were
found. Context precision looks at passages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_PAGE = re.compile(r"(?P<source>.+) p\.(?P<page>[0-9]{1,9})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Found:
    """Where a retrieved passage comes from.

    Attributes:
        source: Name or path of the file; a record adds ``#`` and its id.
        page: Page or slide, from 1, where the source has them.
    """

    source: str
    page: int | None = None


@dataclass(frozen=True, slots=True)
class RankingScores:
    """Of one question, each 0 to 1, all of the first k passages.

    Attributes:
        recall: The share of the expected sources that were found.
        ndcg: The gain of those found, discounted by the logarithm of their rank, against that of the best order.
        reciprocal_rank: 1 / rank of the first expected source, 0 where none was found; its mean is the MRR.
        precision: Context precision (Ragas): the mean, over the passages of expected sources, of the share of such
            passages from the first down to that one; 0 where there is none.
    """

    recall: float
    ndcg: float
    reciprocal_rank: float
    precision: float


def rank_scores(found: Sequence[Found], wanted: Sequence[str], k: int | None = None) -> RankingScores | None:
    """Score what was retrieved for one question; None where no source is expected.

    Args:
        found: The retrieved passages, best first.
        wanted: The expected sources: ``install.md``, ``guide/install.md``, ``faq.jsonl#12``, ``report.pdf p.3``.
        k: How many passages were asked for; by default as many as were found. What follows them does not count.
    """
    expected = tuple(dict.fromkeys(wanted))
    if not expected:
        return None
    depth = len(found) if k is None else k
    met = [[each for each in expected if matches(one, each)] for one in found[:depth]]
    ranked = _documents(found[:depth], met, expected)
    if not any(met):
        return RankingScores(0.0, 0.0, 0.0, 0.0)
    recall, ndcg, reciprocal_rank = _measured(ranked, expected, max(depth, len(ranked)))
    return RankingScores(recall, ndcg, reciprocal_rank, context_precision([bool(each) for each in met]))


def matches(found: Found, wanted: str) -> bool:
    """Whether a passage comes from an expected source.

    It does where the names are equal, or where the found one ends with ``/`` and the expected one. An expected
    name without ``#`` means every record of a file, and one that ends in ``p.3`` only that page.
    """
    if _named(found.source, wanted):
        return True
    paged = _PAGE.fullmatch(wanted)
    return bool(paged and found.page == int(paged["page"]) and _named(found.source, paged["source"]))


def context_precision(relevant: Sequence[bool]) -> float:
    """The mean over the relevant places r, best first, of the precision of the first r; 0 without any.

    As Ragas defines it (Es and others, arXiv 2309.15217, and its documentation): Σ (precision@r · relevant at r) /
    number of relevant ones among those retrieved.
    """
    places = [place for place, each in enumerate(relevant, 1) if each]
    return sum(count / place for count, place in enumerate(places, 1)) / len(places) if places else 0.0


def _named(source: str, wanted: str) -> bool:
    names = [source]
    if "#" not in wanted:
        # The name of a file, and the id of a record, may hold a # themselves.
        names += [source[: sign.start()] for sign in re.finditer("#", source)]
    return any(name == wanted or name.endswith(f"/{wanted}") for name in names)


def _documents(found: Sequence[Found], met: Sequence[Sequence[str]], expected: Sequence[str]) -> list[str | Found]:
    """What is ranked, best first and each once: expected sources, and of the others where they come from.

    Where a page of a source is expected its other pages stand for themselves.
    """
    paged = [page["source"] for page in map(_PAGE.fullmatch, expected) if page]
    ranked: dict[str | Found, None] = {}
    for one, sources in zip(found, met, strict=True):
        if sources:
            ranked.update(dict.fromkeys(sources))
        else:
            by_page = any(_named(one.source, each) for each in paged)
            ranked[one if by_page else Found(one.source)] = None
    return list(ranked)


def _measured(ranked: Sequence[str | Found], expected: Sequence[str], k: int) -> tuple[float, float, float]:
    """Recall and nDCG at k, and the reciprocal rank."""
    from ir_measures import RR, R, nDCG, pytrec_eval

    measures = (R @ k, nDCG @ k, RR)
    names = {each: f"expected {at}" for at, each in enumerate(expected)}
    # Scores that fall by one keep the order: equal ones would be put into another.
    run = {
        names[each] if isinstance(each, str) else f"other {at}": float(len(ranked) - at)
        for at, each in enumerate(ranked)
    }
    qrels = dict.fromkeys(names.values(), 1)
    values = {
        metric.measure: float(metric.value)
        for metric in pytrec_eval.iter_calc(measures, {"question": qrels}, {"question": run})
    }
    recall, ndcg, reciprocal_rank = (values[measure] for measure in measures)
    return recall, ndcg, reciprocal_rank
