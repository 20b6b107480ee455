"""The server with smollm2 beside the extractive reader: first token, whole answer, start and memory."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from tests.benchmarks.bench_handbook import prepared_home, read_cases
from tests.benchmarks.bench_report import Group, Row
from tests.benchmarks.machine import load_line
from tests.benchmarks.plan import Plan
from tests.benchmarks.served import serving

MODELS = ("smollm2", "extractive")
QUESTIONS = 40
QUICK = 4
WARM_UP = 3


@dataclass(frozen=True, slots=True)
class Served:
    """What a server did.

    Attributes:
        start_s: Seconds from the page to the first token of an answer that is asked for at once.
        first_token_s: Of each question: seconds from the request to the first piece of the answer.
        whole_s: Of each question: seconds to the end of the answer.
        memory_mb: Resident memory after the questions.
    """

    start_s: float
    first_token_s: list[float]
    whole_s: list[float]
    memory_mb: float


def run(plan: Plan) -> Iterator[Group]:
    """Measure; both servers run at once, and take turns at every question."""
    before = load_line()
    home = prepared_home(plan)
    cases = [case.question for case in read_cases() if case.kind == "answerable"]
    asked = random.Random(0).sample(cases, QUICK if plan.quick else QUESTIONS)
    starts = {model: _start(plan, model, asked[0]) for model in MODELS}
    written, quoted = ({"RAGSMITH_MODEL": model} for model in MODELS)
    with serving(home, written) as writer, serving(home, quoted) as reader:
        servers = dict(zip(MODELS, (writer, reader), strict=True))
        for server in servers.values():
            server.wait_for_page()
            for question in asked[:WARM_UP]:
                server.ask(question)
        timed = [{model: server.ask(question) for model, server in servers.items()} for question in asked]
        found = {
            model: Served(
                starts[model],
                [each[model].first_token for each in timed],
                [each[model].whole for each in timed],
                server.memory_mb(),
            )
            for model, server in servers.items()
        }
    yield _group(found, [before, load_line()])


def _start(plan: Plan, model: str, question: str) -> float:
    """Return the seconds from the page of a new server to its first token; the first start prepares the model."""
    taken = 0.0
    for _ in range(2):
        with serving(prepared_home(plan), {"RAGSMITH_MODEL": model}) as server:
            server.wait_for_page()
            taken = server.ask(question).first_token
    return taken


def _group(found: Mapping[str, Served], load: list[str]) -> Group:
    written, quoted = (found[model] for model in MODELS)

    def row(what: str, ours: float, theirs: float, digits: int = 2) -> Row:
        return Row(what, f"{ours:.{digits}f}", f"{theirs:.{digits}f}", f"{ours / theirs:.1f} times")

    rows = (
        row("first token, p50, s", *(statistics.median(each.first_token_s) for each in (written, quoted))),
        row("whole answer, p50, s", *(statistics.median(each.whole_s) for each in (written, quoted))),
        row("from the page to a first token after the start, s", written.start_s, quoted.start_s),
        row("resident memory after the questions, MB", written.memory_mb, quoted.memory_mb, 0),
    )
    how = (
        f"{len(written.whole_s)} questions of the handbook over the HTTP API, in turns, after {WARM_UP} others. "
        f"Columns: smollm2 and the extractive reader. Load average {load[0]} before, {load[1]} after."
    )
    return Group("The server with smollm2", rows, how, {name: asdict(each) for name, each in found.items()})
