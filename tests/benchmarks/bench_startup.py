"""How long until something happens: the help text, the first answer to a query, the page, the first token."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from tests.benchmarks.bench_handbook import prepared_home
from tests.benchmarks.bench_indexes import CORPUS, indexes
from tests.benchmarks.bench_report import Group, Row, times
from tests.benchmarks.child import call, environment
from tests.benchmarks.machine import load_line
from tests.benchmarks.plan import Plan
from tests.benchmarks.served import program, serving

ROUNDS = 7
SERVER_ROUNDS = 3
QUERY = "How are type hints for generic classes written?"
QUESTION = "Which Python do I need to have installed?"


@dataclass(frozen=True, slots=True)
class ServerStart:
    """Seconds from the start of the server's process, the last one from its own request.

    Attributes:
        page: Until ``GET /`` was answered with 200.
        token: Until the first token of an answer that was asked for as soon as the page was there.
        warm_token: From a later request to its first token.
    """

    page: float
    token: float
    warm_token: float


def run(plan: Plan) -> Iterator[Group]:
    """Measure; the group grows with every subject."""
    started = load_line()
    rows: list[Row] = []
    raw: dict[str, object] = {}

    def group() -> Group:
        return Group(
            "Start-up, median seconds", tuple(rows), _how(started), {**raw, "load": [started, load_line()]}
        )

    rounds = 2 if plan.quick else ROUNDS
    _help()  # The first one reads from the disk.
    raw["help"] = helps = [_help() for _ in range(rounds)]
    rows.append(Row("`ragsmith --help`", _median(helps, 2)))
    yield group()

    ours, theirs, memory = _ready(plan, rounds)
    raw["ready"] = {"ours": ours, "theirs": theirs, "peak_mb": memory}
    factors = [other / one for one, other in zip(ours, theirs, strict=True)]
    rows.append(
        Row(
            "ready: first query answered on an existing index",
            _median(ours, 2),
            _median(theirs, 2),
            times(factors),
        )
    )
    share = f"{memory[0] / memory[1]:.2f} of it"
    rows.append(Row("peak memory by then, MB", f"{memory[0]:.0f}", f"{memory[1]:.0f}", share))
    yield group()

    starts = [_server(plan) for _ in range(1 if plan.quick else SERVER_ROUNDS)]
    raw["server"] = [asdict(start) for start in starts]
    rows.append(Row("server: first page", _median([start.page for start in starts], 2)))
    rows.append(
        Row("server: first token, asked when the page is there", _median([start.token for start in starts], 2))
    )
    rows.append(
        Row(
            "server: first token of a later answer, from its request",
            _median([start.warm_token for start in starts], 2),
        )
    )
    yield group()


def _median(values: Sequence[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f}"


def _how(load_before: str) -> str:
    return (
        "From the start of the process, files in the page cache, encoder converted. The plain pipeline opens "
        "its store, loads its model and answers one `similarity_search`; the two take turns, the factors are "
        f"of neighbouring turns. Load average {load_before} before, {load_line()} after."
    )


def _help() -> float:
    started = time.perf_counter()
    subprocess.run([*program(), "--help"], env=environment(), stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def _ready(plan: Plan, rounds: int) -> tuple[list[float], list[float], tuple[float, float]]:
    built = indexes(plan)
    ours, theirs, peaks = [], [], []
    for turn in range(rounds + 1):
        one = call("tests.benchmarks.ours:ready", home=built.home, corpus=CORPUS, query=QUERY)
        other = call("tests.benchmarks.langchain_pipeline:ready", folder=built.chroma, query=QUERY)
        if turn:  # The first one reads from the disk.
            ours.append(one.seconds)
            theirs.append(other.seconds)
            peaks.append((one.value["peak_mb"], other.value["peak_mb"]))
    return ours, theirs, (statistics.median(p[0] for p in peaks), statistics.median(p[1] for p in peaks))


def _server(plan: Plan) -> ServerStart:
    home = prepared_home(plan)
    started = time.perf_counter()
    with serving(home) as server:
        server.wait_for_page()
        page = time.perf_counter() - started
        token = page + server.ask(QUESTION).first_token
        return ServerStart(page, token, server.ask(QUESTION).first_token)
