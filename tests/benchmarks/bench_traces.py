"""The trace store with many traces, and what tracing adds to an answer."""

from __future__ import annotations

import asyncio
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.bench_handbook import prepared_home
from tests.benchmarks.bench_report import Group, Row, p50_p95
from tests.benchmarks.child import call
from tests.benchmarks.machine import load_line
from tests.benchmarks.ours import settings_for
from tests.benchmarks.plan import Plan

COUNTS = (200_000, 1_000_000)
ROUNDS = 15
ANSWERS = 60
# What a slow disk takes for a transaction.
SLOW_S = 0.2
QUESTION = "Where are traces stored?"


def run(plan: Plan) -> Iterator[Group]:
    """Measure answers first, then ever more traces; the group grows."""
    started = load_line()
    rows: list[Row] = []
    raw: dict[str, Any] = {}

    def group() -> Group:
        how = (
            "Traces of seven steps with five passages each, in SQLite, in a process of its own; p50 / p95 of "
            f"{ROUNDS} calls. Answers with and without tracing take turns. Load average {started} before, "
            f"{load_line()} after."
        )
        return Group("Traces, ms", tuple(rows), how, raw)

    home = prepared_home(plan)
    raw["answers"] = answers = call("tests.benchmarks.bench_traces:answers", home=home).value
    rows += [
        Row("answer of the reader, traced (untraced beside it)", p50_p95(answers["on"]), p50_p95(answers["off"])),
        Row("· added by tracing, median of pairs", f"{answers['added']:.1f} ms, {answers['share']:.1%}"),
    ]
    raw["slow"] = slow = call("tests.benchmarks.bench_traces:slow_disk", home=plan.fresh_workspace("slow")).value
    rows += [
        Row(
            f"scripted answer, {SLOW_S:.1f} s a transaction (no store)", p50_p95(slow["on"]), p50_p95(slow["off"])
        ),
        Row("· added by the slow disk, median of pairs", f"{slow['added']:.1f} ms"),
    ]
    yield group()
    for count in (5_000,) if plan.quick else COUNTS:
        folder = plan.fresh_workspace("traces")
        shutil.rmtree(folder, ignore_errors=True)
        raw[str(count)] = found = call("tests.benchmarks.bench_traces:many", home=folder, count=count).value
        title = f"{count:,} traces"
        rows += [Row(f"{title}: {name}", p50_p95(values)) for name, values in found["calls"].items()]
        rows.append(Row(f"{title}: kB a trace", f"{found['bytes'] / count / 1000:.1f}"))
        rows.append(Row(f"{title}: ms to write one", f"{1000 * found['seconds'] / count:.2f}"))
        yield group()
        shutil.rmtree(folder, ignore_errors=True)


def many(home: str, count: int) -> dict[str, Any]:
    """Store traces, and read them in a new connection."""
    from rag.database import open_database
    from rag.tracing.trace_query import TraceQueries
    from rag.tracing.trace_store import TraceStore
    from rag.workspace import open_workspace
    from tests.benchmarks.trace_generator import fill

    workspace = open_workspace(Path(home))
    engine = open_database(workspace)
    started = time.perf_counter()
    fill(engine, count)
    seconds = time.perf_counter() - started
    engine.dispose()
    engine = open_database(workspace)
    store = TraceStore(engine)
    page = store.list(limit=50).traces
    rare = page[7].question
    queries = TraceQueries(engine, store)
    calls: dict[str, Callable[[int], object]] = {
        "list": lambda _: store.list(limit=50),
        "list, one status": lambda _: store.list(limit=50, status="error"),
        "text of one trace": lambda n: store.list(limit=50, text=page[n].question),
        "frequent word": lambda _: store.list(limit=50, text=rare.split()[0]),
        "text of none": lambda n: store.list(limit=50, text=f"{rare[:20]}{n}"),
        "two letters": lambda _: store.list(limit=50, text="qu"),
        "detail": lambda n: store.get(page[n].id),
        "detail by the end of its id": lambda n: store.get(page[n].id[-12:]),
        "traces with a passage": lambda n: queries.with_passage(n + 1, limit=50),
    }
    times = {name: [_milliseconds(partial(ask, n)) for n in range(ROUNDS)] for name, ask in calls.items()}
    engine.dispose()
    size = sum(path.stat().st_size for path in Path(home).glob("ragsmith.db*"))
    return {"calls": times, "bytes": size, "seconds": seconds}


def _milliseconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)


def answers(home: str) -> dict[str, Any]:
    """Time answers of the reader with tracing and without, in turns."""
    from rag.types import Ask
    from ui.app.app import open_app

    app = open_app(settings_for(home))
    assistant = app.releases.assistant()
    chain = app.releases.pipeline().chain
    loop = asyncio.new_event_loop()

    async def traced() -> None:
        await assistant.start(Ask(QUESTION)).answer()

    async def untraced() -> None:
        await chain.ainvoke(Ask(QUESTION))

    found = _pairs(lambda: loop.run_until_complete(traced()), lambda: loop.run_until_complete(untraced()))
    app.close()
    loop.close()
    return found


def slow_disk(home: str) -> dict[str, Any]:
    """Time scripted answers with a store whose every transaction takes long, and with none, in turns."""
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
    loop = asyncio.new_event_loop()

    async def ask(assistant: Assistant) -> None:
        await assistant.start(Ask(QUESTION)).answer()

    found = _pairs(lambda: loop.run_until_complete(ask(slow)), lambda: loop.run_until_complete(ask(none)))
    store.close()
    engine.dispose()
    loop.close()
    return found


class _NoStore:
    def begin(self, trace: Any) -> None:
        pass

    def save_span(self, trace_id: str, span: Any) -> None:
        pass

    def finish(self, trace: Any) -> None:
        pass


def _pairs(on: Callable[[], object], off: Callable[[], object]) -> dict[str, Any]:
    for _ in range(5):
        on()
        off()
    with_it, without = [], []
    for _ in range(ANSWERS):
        with_it.append(_milliseconds(on))
        without.append(_milliseconds(off))
    added = statistics.median(one - other for one, other in zip(with_it, without, strict=True))
    return {"on": with_it, "off": without, "added": added, "share": added / statistics.median(without)}
