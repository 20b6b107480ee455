"""How good the search is: nDCG@10 and recall@100 on judged collections, by mode.

What is asked is what ``ragsmith search`` asks. A document stands where its best passage stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.benchmarks.beir import NAMES, read_collection
from tests.benchmarks.bench_report import Group, Row, p50_p95, percentile
from tests.benchmarks.child import ChildError, call
from tests.benchmarks.ours import settings_for
from tests.benchmarks.plan import Plan

MODES = ("dense", "lexical", "hybrid")
RERANKER = "reranker"
# Passages asked for: the first is as deep as each side goes by default, and a hundred documents need more.
K_FOR_NDCG = 100
K_FOR_RECALL = 300
QUICK_QUERIES = 50
WORKSPACE = "retrieval"


def run(plan: Plan) -> Iterator[Group]:
    """Measure; a group for each collection."""
    home = plan.workspace(WORKSPACE)
    for name in NAMES:
        found = call(
            "tests.benchmarks.bench_retrieval:evaluate",
            home=home,
            data=plan.data,
            name=name,
            most=QUICK_QUERIES if plan.quick else None,
        ).value
        yield _group(name, found)


def _group(name: str, found: Mapping[str, Any]) -> Group:
    rows = tuple(
        Row(
            f"{mode}: nDCG@10 / recall@100",
            f"{found['modes'][mode]['ndcg']:.4f} / {found['modes'][mode]['recall']:.4f}",
        )
        for mode in MODES
    )
    reranked = found["reranked"]
    rows += (
        Row(
            f"hybrid, its first {reranked['depth']} reranked: nDCG@10",
            f"{reranked['ndcg']:.4f}",
            compared=f"{reranked['better']} better, {reranked['worse']} worse",
        ),
        Row("reranking them, ms, p50 / p95", p50_p95(reranked["milliseconds"])),
    )
    how = (
        f"{found['queries']} queries over {found['passages']} passages, scored with ir-measures; nDCG of the "
        f"search for {K_FOR_NDCG} passages, recall of the search for {K_FOR_RECALL}, a document at the place "
        "of its best passage. Settings at their defaults, which were chosen on SciFact's training queries "
        "(`--only tune`); the reranker, which is off by default, was trained on them. Better and worse count "
        "queries."
    )
    return Group(f"Retrieval, {name} ({found['queries']} queries)", rows, how, dict(found))


def evaluate(home: str, data: str, name: str, most: int | None) -> dict[str, Any]:
    """Ingest a collection where that was not done yet, search, and score; in a process of its own."""
    import time
    from pathlib import Path

    from ir_measures import R, nDCG

    from rag.retrieval.retriever import SearchOptions
    from ui.app.app import open_app

    collection = read_collection(Path(data), name)
    app = open_app(settings_for(home))
    problems = app.stores.ingest(name, [collection.corpus]).problems
    retriever = app.releases.retriever(name)
    chosen = list(collection.queries)[:most]
    qrels = {query: collection.qrels[query] for query in chosen}
    modes: dict[str, Any] = {}
    for mode in MODES:
        runs: dict[int, dict[str, list[str]]] = {}
        taken: list[float] = []
        for k in (K_FOR_NDCG, K_FOR_RECALL):
            options: Any = SearchOptions(k, mode)  # type: ignore[arg-type]
            found = runs.setdefault(k, {})
            for query in chosen:
                started = time.perf_counter()
                hits = retriever.search(collection.queries[query], options)
                taken.append((time.perf_counter() - started) * 1e3)
                found[query] = documents_of([str(hit.passage.metadata["id"]) for hit in hits])
        ndcg = score(nDCG @ 10, qrels, runs[K_FOR_NDCG])
        recall = score(R @ 100, qrels, runs[K_FOR_RECALL])
        modes[mode] = {
            "ndcg": mean(ndcg),
            "recall": mean(recall),
            "ndcg_of_deeper_search": mean(score(nDCG @ 10, qrels, runs[K_FOR_RECALL])),
            "ms_p50": percentile(taken, 0.5),
            "by_query": {query: {"ndcg": ndcg[query], "recall": recall[query]} for query in chosen},
        }
    reranked = _reranked(app, retriever, collection.queries, chosen)
    ndcg = score(nDCG @ 10, qrels, reranked.pop("run"))
    before = modes["hybrid"]["by_query"]
    reranked |= {
        "ndcg": mean(ndcg),
        "better": sum(ndcg[query] > before[query]["ndcg"] for query in chosen),
        "worse": sum(ndcg[query] < before[query]["ndcg"] for query in chosen),
    }
    return {
        "queries": len(chosen),
        "reranked": reranked,
        "passages": app.stores.index(name).passage_count(),
        "problems": [problem.reason for problem in problems],
        "modes": modes,
    }


def _reranked(app: Any, retriever: Any, queries: Mapping[str, str], chosen: Sequence[str]) -> dict[str, Any]:
    """The hybrid search with its first hits reranked by the adapter that ships, and how long that takes."""
    import time

    from rag.encoders.adapters import find_adapter
    from rag.encoders.encoder_opening import choose_precision
    from rag.encoders.tuned_conversion import converted_network
    from rag.retrieval.reranking import CrossReranker
    from rag.retrieval.retriever import SearchOptions

    adapter = find_adapter(RERANKER, app.workspace)
    precision, _ = choose_precision(app.settings.encoder)
    folder = converted_network(adapter, app.workspace.models)
    depth = app.settings.retrieval.rerank_depth
    reranker = CrossReranker(folder, adapter, precision=precision, depth=depth)
    run: dict[str, list[str]] = {}
    taken: list[float] = []
    for query in chosen:
        hits = retriever.search(queries[query], SearchOptions(K_FOR_NDCG))
        started = time.perf_counter()
        ranked = reranker.rerank(queries[query], hits)
        taken.append((time.perf_counter() - started) * 1e3)
        run[query] = documents_of([str(hit.passage.metadata["id"]) for hit in ranked])
    return {"run": run, "depth": depth, "milliseconds": taken[5:]}


def documents_of(passages: Sequence[str]) -> list[str]:
    """The documents of ranked passages, each where its best passage stands."""
    return list(dict.fromkeys(passages))


def score(
    measure: Any, qrels: Mapping[str, Mapping[str, int]], run: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """A measure for each judged query; what was not found counts 0."""
    import ir_measures

    # Scores that fall by one keep the order: equal ones would be put into another.
    scored = {
        query: {document: float(len(found) - at) for at, document in enumerate(found)}
        for query, found in run.items()
    }
    values = {metric.query_id: float(metric.value) for metric in ir_measures.iter_calc([measure], qrels, scored)}
    return {query: values.get(query, 0.0) for query in qrels}


def mean(values: Mapping[str, float]) -> float:
    """The mean over all queries."""
    if not values:
        raise ChildError("No query was judged.")
    return sum(values.values()) / len(values)
