"""Ingestion over the proposals, side by side with the plain LangChain pipeline.

Machines are noisy, and seldom for both alike: the two take turns over the same slice of files, and each turn
is compared with the one beside it. The whole corpus follows once for each.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

from tests.benchmarks.bench_indexes import ChunkSize, build_ours, build_theirs, choose_chunk_size, indexes
from tests.benchmarks.bench_report import Group, Row, times
from tests.benchmarks.machine import load_line
from tests.benchmarks.ours import Ingested
from tests.benchmarks.peps import a_slice
from tests.benchmarks.plan import Plan

ROUNDS = 3

Pair = tuple[Ingested, Ingested]


def run(plan: Plan) -> Iterator[Group]:
    """Measure; the group grows with every round."""
    started = load_line()
    size = choose_chunk_size(plan)
    files = a_slice(plan)
    pairs: list[Pair] = []
    loads: list[str] = []
    for _ in range(1 if plan.quick else ROUNDS):
        ours = build_ours(plan, "slice/ragsmith", files)
        theirs = build_theirs(plan, "slice/langchain", files, size.characters)
        pairs.append((ours, theirs))
        loads.append(load_line())
        yield _group(f"Ingestion, {len(files)} PEPs, rounds in turn", pairs, size, [started, *loads])
    if not plan.quick:
        started = load_line()
        built = indexes(plan, anew=True, size=size.characters)
        title = f"Ingestion, {len(built.files)} PEPs, once each"
        yield _group(title, [(built.ours, built.theirs)], size, [started, load_line()])


def _group(title: str, pairs: Sequence[Pair], size: ChunkSize, loads: Sequence[str]) -> Group:
    def rate(what: str, value: Callable[[Ingested], float], digits: int = 0) -> Row:
        ours, theirs = (
            statistics.median(value(pair[side]) / pair[side].seconds for pair in pairs) for side in (0, 1)
        )
        factors = [(value(one) / one.seconds) / (value(other) / other.seconds) for one, other in pairs]
        return Row(what, f"{ours:.{digits}f}", f"{theirs:.{digits}f}", times(factors))

    def median(value: Callable[[Ingested], float], side: int) -> float:
        return statistics.median(value(pair[side]) for pair in pairs)

    shares = statistics.median(one.peak_mb / other.peak_mb for one, other in pairs)
    rows = (
        rate("chunks/s", lambda done: done.chunks, 1),
        rate("tokens/s", lambda done: done.tokens),
        rate("kB/s", lambda done: done.kilobytes, 1),
        rate("files/s", lambda done: done.files, 2),
        Row("seconds", *(f"{median(lambda done: done.seconds, side):.1f}" for side in (0, 1))),
        Row(
            "peak memory of the process, MB",
            f"{median(lambda done: done.peak_mb, 0):.0f}",
            f"{median(lambda done: done.peak_mb, 1):.0f}",
            f"{shares:.2f} of it",
        ),
        Row(
            "chunks (mean tokens)",
            *(
                f"{median(lambda done: done.chunks, side):.0f} "
                f"({median(lambda done: done.tokens / done.chunks, side):.0f})"
                for side in (0, 1)
            ),
        ),
    )
    how = (
        f"{len(pairs)} of {ROUNDS} rounds. "
        "Reading, cutting, embedding and storing, with libraries and model loaded before; each turn in a "
        "fresh process with an empty store, the factors of neighbouring turns, median and range. The plain "
        f"pipeline cuts at {size.characters} characters, which on {size.files} files gives it {size.theirs:.1f} "
        f"tokens a chunk where ragsmith's passages have {size.ours:.1f}; it keeps no lexical index, no "
        "offsets and no record of files. ragsmith's encoder was converted before, which a machine does once. "
        f"Load average {loads[0]} before, {loads[-1]} after."
    )
    raw = {
        "pairs": [{"ours": asdict(one), "theirs": asdict(other)} for one, other in pairs],
        "chunk_size": asdict(size),
        "load": list(loads),
    }
    return Group(title, rows, how, raw)
