"""What tracing adds to an answer, and what a slow disk adds to it."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.bench_handbook import FOLDER, prepared_home
from tests.benchmarks.bench_report import Group, Row, p50_p95
from tests.benchmarks.child import call
from tests.benchmarks.machine import load_line
from tests.benchmarks.plan import Plan

if TYPE_CHECKING:
    from rag.tracing.trace_store import TraceStore

# Pairs of answers, by model; one takes a tenth of a second, or more than one.
PAIRS = {"extractive": 120, "smollm2": 60}
SLOW_PAIRS = 60
# What a slow disk takes for a transaction.
SLOW_S = 0.2


def run(plan: Plan) -> Iterator[Group]:
    """Measure both models, then a slow disk; the group grows."""
    started = load_line()
    rows: list[Row] = []
    raw: dict[str, Any] = {}

    def group() -> Group:
        how = (
            "Every question is asked with tracing and without, in turns, in one process; what an answer has left "
            "to write is written before the next. Without tracing, the chain has no callbacks, so what is added "
            "includes the events for the page. Times in ms, p50 / p95; what is added is the median of the pairs "
            "with its 95 % interval. Processor time includes the thread that writes. Load average "
            f"{started} before, {load_line()} after."
        )
        return Group("Tracing", tuple(rows), how, raw)

    home = prepared_home(plan)
    for model, pairs in PAIRS.items():
        count = 6 if plan.quick else pairs
        raw[model] = found = call(
            "tests.benchmarks.bench_tracing:answers", home=home, model=model, pairs=count
        ).value
        rows += _rows(f"answer of {model}", found)
        yield group()
    raw["slow"] = slow = call("tests.benchmarks.bench_tracing:slow_disk", home=plan.fresh_workspace("slow")).value
    rows += _rows(f"scripted answer, {SLOW_S:.1f} s a transaction (the same without a store)", slow)
    yield group()


def _rows(title: str, found: dict[str, Any]) -> Iterator[Row]:
    on, off = found["on"], found["off"]
    yield Row(f"{title}, traced (untraced beside it)", p50_p95(_column(on, 0)), p50_p95(_column(off, 0)))
    for number, name in enumerate(("time", "processor time")):
        low, middle, high = added(_column(on, number), _column(off, number))
        share = middle / statistics.median(_column(off, number))
        yield Row(f"· added to its {name}", f"{middle:.1f} ({low:.1f} to {high:.1f}) ms", compared=f"{share:.1%}")


def _column(times: Sequence[Sequence[float]], number: int) -> list[float]:
    return [each[number] for each in times]


def added(on: Sequence[float], off: Sequence[float]) -> tuple[float, float, float]:
    """Return the median of the differences of pairs, between the ends of its 95 % interval (order statistics)."""
    differences = sorted(one - other for one, other in zip(on, off, strict=True))
    count = len(differences)
    reach = round(0.98 * count**0.5)
    low, high = max(count // 2 - reach, 0), min((count + 1) // 2 + reach, count) - 1
    return differences[low], statistics.median(differences), differences[high]


def answers(home: str, model: str, pairs: int) -> dict[str, Any]:
    """Time answers to questions about the handbook with tracing and without."""
    from rag.settings import Settings, TrackingSettings
    from rag.types import Ask
    from ui.app.app import open_app

    app = open_app(Settings(home=Path(home), model=model, tracking=TrackingSettings(wandb="off")))
    assistant, chain = app.releases.assistant(), app.releases.pipeline().chain

    async def traced(question: str) -> None:
        await assistant.start(Ask(question)).answer()

    async def untraced(question: str) -> None:
        await chain.ainvoke(Ask(question))

    lines = (FOLDER / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    found = _pairs([json.loads(line)["question"] for line in lines[:pairs]], traced, untraced, app.stores.traces)
    app.close()
    return found


def slow_disk(home: str) -> dict[str, Any]:
    """Time scripted answers with a store whose every transaction takes long, and with none."""
    from types import SimpleNamespace

    from langchain_core.runnables import RunnableLambda
    from sqlalchemy import event

    from rag.answering.assistant import Assistant, Pipeline
    from rag.database import open_database
    from rag.settings import CostSettings
    from rag.tracing.cost import load_prices
    from rag.tracing.trace_store import TraceStore
    from rag.types import Answer, Ask
    from rag.workspace import open_workspace

    engine = open_database(open_workspace(Path(home)))
    event.listen(engine, "commit", lambda _connection: time.sleep(SLOW_S))
    store = TraceStore(engine)
    step: Any = RunnableLambda(lambda asked: asked).with_config(run_name="retrieve")
    chain = step | RunnableLambda(lambda _asked: Answer("so", "answered")).with_config(run_name="ground")
    release: Any = SimpleNamespace(corpus="c", model="extractive", prompt="answer@1", prompt_sha256="", name="r1")
    slow = Assistant(lambda _: Pipeline(release, chain), store, load_prices(CostSettings()))
    none = replace(slow, traces=_NoStore())

    async def ask_slow(question: str) -> None:
        await slow.start(Ask(question)).answer()

    async def ask_none(question: str) -> None:
        await none.start(Ask(question)).answer()

    found = _pairs(["Where are traces stored?"] * SLOW_PAIRS, ask_slow, ask_none, store)
    store.close()
    engine.dispose()
    return found


class _NoStore:
    def begin(self, trace: Any) -> None:
        pass

    def save_span(self, trace_id: str, span: Any) -> None:
        pass

    def finish(self, trace: Any) -> None:
        pass


Answering = Callable[[str], Awaitable[None]]


def _pairs(questions: Sequence[str], on: Answering, off: Answering, store: TraceStore) -> dict[str, Any]:
    """Ask every question in both ways, and time the answer, and the processor until all is written."""
    loop = asyncio.new_event_loop()

    def timed(answer: Answering, question: str) -> tuple[float, float]:
        begun, used = time.perf_counter(), time.process_time()
        loop.run_until_complete(_awaited(answer(question)))
        took = time.perf_counter() - begun
        store.flush()
        return 1000 * took, 1000 * (time.process_time() - used)

    for question in islice(questions, 5):
        timed(on, question)
        timed(off, question)
    with_it, without = [], []
    for number, question in enumerate(questions):
        # What comes second finds warm caches.
        for is_on in (True, False) if number % 2 else (False, True):
            (with_it if is_on else without).append(timed(on if is_on else off, question))
    loop.close()
    return {"on": with_it, "off": without}


async def _awaited(answer: Awaitable[None]) -> None:
    await answer
