"""How long a query takes, by part: ragsmith's hybrid search and the plain pipeline's dense-only one.

Both stand ready in processes of their own and take turns in blocks over the same queries.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from tests.benchmarks.bench_indexes import CORPUS, indexes
from tests.benchmarks.bench_report import Group, Row, p50_p95, percentile
from tests.benchmarks.child import Worker
from tests.benchmarks.machine import load_line
from tests.benchmarks.peps import questions
from tests.benchmarks.plan import Plan

QUERIES = 300
BLOCK = 25
WARM_UP = 20
# Passages asked for: ragsmith's default.
K = 5

PARTS = (
    ("encode", "encode the query"),
    ("dense", "dense search"),
    ("lexical", "lexical search"),
    ("fuse and fetch", "fuse, fetch, drop near-duplicates"),
)
Times = dict[str, list[float]]


def run(plan: Plan) -> Iterator[Group]:
    """Measure; the group grows with every block."""
    started = load_line()
    built = indexes(plan)
    asked = questions(built.files, 75 if plan.quick else QUERIES)
    hybrid: Times = {}
    alone: dict[str, Times] = {"dense": {}, "lexical": {}}
    theirs: Times = {}
    with (
        Worker("tests.benchmarks.ours:queries", home=built.home, corpus=CORPUS) as smith,
        Worker("tests.benchmarks.langchain_pipeline:queries", folder=built.chroma) as chain,
    ):
        for mode in ("hybrid", *alone):
            smith.ask(queries=asked[:WARM_UP], mode=mode, k=K)
        chain.ask(queries=asked[:WARM_UP], k=K)
        for at in range(0, len(asked), BLOCK):
            block = asked[at : at + BLOCK]
            _extend(hybrid, smith.ask(queries=block, mode="hybrid", k=K))
            _extend(theirs, chain.ask(queries=block, k=K))
            for mode, taken in alone.items():
                _extend(taken, smith.ask(queries=block, mode=mode, k=K))
            yield _group(len(built.files), hybrid, alone, theirs, [started, load_line()])


def _extend(taken: Times, block: Times) -> None:
    for name, values in block.items():
        taken.setdefault(name, []).extend(values)


def _group(files: int, hybrid: Times, alone: dict[str, Times], theirs: Times, loads: list[str]) -> Group:
    def faster(ours: Times) -> str:
        ratios = [percentile(theirs["whole"], share) / percentile(ours["whole"], share) for share in (0.5, 0.95)]
        return " / ".join(f"{ratio:.1f} ×" for ratio in ratios)

    rows = [
        Row(
            "whole hybrid query, ms (plain: dense only)",
            p50_p95(hybrid["whole"]),
            p50_p95(theirs["whole"]),
            faster(hybrid),
        )
    ]
    for name, what in PARTS:
        other = p50_p95(theirs[name]) if name in theirs else ""
        rows.append(Row(f"· of it: {what}", p50_p95(hybrid[name]), other))
    rows.append(
        Row(
            "whole dense query, ms",
            p50_p95(alone["dense"]["whole"]),
            p50_p95(theirs["whole"]),
            faster(alone["dense"]),
        )
    )
    rows.append(Row("whole lexical query, ms", p50_p95(alone["lexical"]["whole"])))
    paired = [other / one for one, other in zip(hybrid["whole"], theirs["whole"], strict=True)]
    how = (
        f"{len(hybrid['whole'])} titles and sentences of the documents, {K} passages each, in blocks of "
        f"{BLOCK} in turn, after a warm-up; p50 / p95. Parts are taken inside the real search, where the "
        "lexical side runs beside encoding and dense search: they add up to more than the whole. Query by "
        f"query the hybrid search is faster by {statistics.median(paired):.1f} × (median). Load average "
        f"{loads[0]} before, {loads[-1]} after."
    )
    raw = {"hybrid": hybrid, "alone": alone, "langchain": theirs, "load": loads}
    return Group(f"Query latency over {files} PEPs, p50 / p95", tuple(rows), how, raw)
