"""Choose ``rrf_k`` and ``dense_weight`` of the fusion on SciFact's training queries, never on its test.

Each side is asked once for every query; fused is what it gave, with every pair of the grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.beir import read_collection
from tests.benchmarks.bench_report import Group, Row
from tests.benchmarks.bench_retrieval import WORKSPACE, documents_of, mean, score
from tests.benchmarks.child import call
from tests.benchmarks.ours import settings_for
from tests.benchmarks.plan import Plan

COLLECTION, SPLIT = "scifact", "train"
RRF_K = (5.0, 8.0, 10.0, 12.0, 15.0, 20.0, 40.0, 60.0)
# Not 0.5: there equal ranks have equal scores, and the order of the file would decide between the two sides.
DENSE_WEIGHT = (0.3, 0.35, 0.4, 0.425, 0.45, 0.475, 0.525, 0.55, 0.6, 0.7)
QUICK_QUERIES = 100


@dataclass(frozen=True, slots=True)
class Choice:
    """One point of the grid."""

    rrf_k: float
    dense_weight: float
    ndcg: float


def run(plan: Plan) -> Iterator[Group]:
    """Measure the grid and print it."""
    most = QUICK_QUERIES if plan.quick else None
    found = call(
        "tests.benchmarks.bench_tune:tune", home=plan.workspace(WORKSPACE), data=plan.data, most=most
    ).value
    choices = [Choice(**choice) for choice in found["choices"]]
    print(grid(choices), flush=True)
    best = max(choices, key=lambda choice: choice.ndcg)
    rows = (
        Row("best: rrf_k, dense_weight, nDCG@10", _shown(best)),
        Row("as set: rrf_k, dense_weight, nDCG@10", _shown(Choice(**found["default"]))),
    )
    how = (
        f"{found['queries']} training queries of {COLLECTION}, {found['depth']} passages of each side, fused "
        "over a grid; a document stands where its best passage stands. The whole grid is in the JSON file."
    )
    return iter([Group(f"Fusion, chosen on {COLLECTION}'s training queries", rows, how, found)])


def grid(choices: Sequence[Choice]) -> str:
    """nDCG@10 by ``rrf_k`` (down) and ``dense_weight`` (across)."""
    scores = {(choice.rrf_k, choice.dense_weight): choice.ndcg for choice in choices}
    lines = ["rrf_k  " + "".join(f"{weight:>8}" for weight in DENSE_WEIGHT)]
    lines += [f"{k:>5g}  " + "".join(f"{scores[k, weight]:8.4f}" for weight in DENSE_WEIGHT) for k in RRF_K]
    return "\n".join(lines)


def _shown(choice: Choice) -> str:
    return f"{choice.rrf_k:g}, {choice.dense_weight:g}, {choice.ndcg:.4f}"


def tune(home: str, data: str, most: int | None) -> dict[str, Any]:
    """Search with each side, fuse with each pair, score; in a process of its own."""
    from ir_measures import nDCG

    from rag.retrieval.retriever import fuse
    from ui.app.app import open_app

    collection = read_collection(Path(data), COLLECTION, SPLIT)
    app = open_app(settings_for(home))
    app.stores.ingest(COLLECTION, [collection.corpus])
    index = app.stores.index(COLLECTION)
    settings = app.settings.retrieval
    depth = settings.candidates
    chosen = list(collection.queries)[:most]
    qrels = {query: collection.qrels[query] for query in chosen}
    document = _documents(index)
    sides = {
        query: (
            index.dense.search(index.encoder.embed([collection.queries[query]])[0], depth),
            index.lexical.search(collection.queries[query], depth),
        )
        for query in chosen
    }

    def measured(rrf_k: float, dense_weight: float) -> dict[str, float]:
        point = settings.model_copy(update={"rrf_k": rrf_k, "dense_weight": dense_weight})
        found = {
            query: documents_of([document[each.passage_id] for each in fuse(*both, point)])
            for query, both in sides.items()
        }
        ndcg = mean(score(nDCG @ 10, qrels, found))
        return {"rrf_k": rrf_k, "dense_weight": dense_weight, "ndcg": ndcg}

    return {
        "queries": len(chosen),
        "depth": depth,
        "default": measured(settings.rrf_k, settings.dense_weight),
        "choices": [measured(rrf_k, weight) for rrf_k in RRF_K for weight in DENSE_WEIGHT],
    }


def _documents(index: Any) -> dict[int, str]:
    """The record that each passage belongs to."""
    from sqlalchemy import select

    from rag import tables as db
    from rag.database import reading

    with reading(index.engine) as connection:
        rows = connection.execute(
            select(db.passages.c.id, db.documents.c.record)
            .join(db.documents, db.documents.c.text_id == db.passages.c.text_id)
            .join(db.sources, db.sources.c.id == db.documents.c.source_id)
            .where(db.sources.c.index_id == index.id)
        )
        return {int(number): str(record) for number, record in rows}
