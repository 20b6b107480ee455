"""The trace store with many traces."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from tests.benchmarks.bench_report import Group, Row, p50_p95
from tests.benchmarks.child import call
from tests.benchmarks.machine import load_line
from tests.benchmarks.plan import Plan
from tests.postgres_server import PostgresServer, missing, running

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from rag.tracing.trace_query import TraceQueries

# The number of traces, and how many of them share one with steps: a million whole ones fill the disk.
COUNTS = ((200_000, 1), (1_000_000, 25))
ROUNDS = 15
FILTERS = (
    "status = error",
    "feedback = down",
    "latency > 2s and feedback = down",
    "cost > $0.01 and not status = error",
    "model = smollm2 and user = ann",
    "prompt = answer or release ~ r0000",
    "tokens > 2k and started < 2026-08-01",
    "purpose = evaluation",
    "purpose = any",
)


def run(plan: Plan) -> Iterator[Group]:
    """Measure ever more traces, in SQLite and in PostgreSQL if it is there; a group for each."""
    yield from _stored(plan, "SQLite", None)
    if reason := missing():
        print(f"PostgreSQL is not measured: {reason}", file=sys.stderr)
        return
    with running() as server:
        yield from _stored(plan, "PostgreSQL", server)


def _stored(plan: Plan, name: str, server: PostgresServer | None) -> Iterator[Group]:
    started = load_line()
    rows: list[Row] = []
    raw: dict[str, Any] = {}
    for count, whole in ((5_000, 1),) if plan.quick else COUNTS:
        folder = plan.fresh_workspace("traces")
        shutil.rmtree(folder, ignore_errors=True)
        url = server.new_database() if server else None
        arguments = {"home": folder, "url": url, "count": count, "whole": whole}
        call("tests.benchmarks.bench_traces:store_many", **arguments)
        raw[str(count)] = found = call("tests.benchmarks.bench_traces:read_many", **arguments).value
        title = f"{count:,} traces"
        rows += [Row(f"{title}: {name}", p50_p95(values)) for name, values in found["calls"].items()]
        if whole == 1:
            rows.append(Row(f"{title}: kB a trace", f"{found['bytes'] / count / 1000:.1f}"))
        how = (
            f"Traces of seven steps with five passages each, in {name}; of a million, one in 25 has its steps. A "
            f"process of its own reads them; p50 / p95 of {ROUNDS} calls. Load average {started} before, "
            f"{load_line()} after."
        )
        yield Group(f"Traces in {name}, ms", tuple(rows), how, raw)
        shutil.rmtree(folder, ignore_errors=True)


def store_many(home: str, url: str | None, count: int, whole: int) -> None:
    """Store traces."""
    from rag.database import open_database
    from rag.workspace import open_workspace
    from tests.benchmarks.trace_generator import fill

    engine = open_database(open_workspace(Path(home)), url)
    fill(engine, count, whole)
    if engine.dialect.name == "postgresql":
        # As its autovacuum does within minutes.
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
    engine.dispose()


def read_many(home: str, url: str | None, count: int, whole: int) -> dict[str, Any]:
    """Read what the page reads from the stored traces."""
    from rag.database import open_database
    from rag.tracing.trace_query import TraceQueries
    from rag.tracing.trace_store import TraceStore
    from rag.workspace import open_workspace

    engine = open_database(open_workspace(Path(home)), url)
    store = TraceStore(engine)
    page = store.list(limit=ROUNDS * whole).traces
    shown = [trace for trace in page if store.get(trace.id).spans]
    rare = page[7].question
    queries = TraceQueries(engine, store)
    calls: dict[str, Callable[[int], object]] = {
        **explored(engine, queries, page[7].id),
        **monitored(engine),
        "list": lambda _: store.list(limit=50),
        "list, one status": lambda _: store.list(limit=50, status="error"),
        "text of one trace": lambda n: store.list(limit=50, text=page[n].question),
        "frequent word": lambda _: store.list(limit=50, text=rare.split()[0]),
        "text of none": lambda n: store.list(limit=50, text=f"{rare[:20]}{n}"),
        "two letters": lambda _: store.list(limit=50, text="qu"),
        "two signs of none": lambda n: store.list(limit=50, text=f"#{n % 10}"),
        "detail": lambda n: store.get(shown[n % len(shown)].id),
        "detail by the end of its id": lambda n: store.get(shown[n % len(shown)].id[-12:]),
        "traces with a passage": lambda n: queries.with_passage(n + 1, limit=50),
    }
    times = {name: [_milliseconds(partial(ask, n)) for n in range(ROUNDS)] for name, ask in calls.items()}
    size = _size(engine, home)
    engine.dispose()
    return {"calls": times, "bytes": size}


def _size(engine: Engine, home: str) -> int:
    if engine.dialect.name == "sqlite":
        return sum(path.stat().st_size for path in Path(home).glob("ragsmith.db*"))
    with engine.connect() as connection:
        return int(connection.scalar(text("SELECT pg_database_size(current_database())")) or 0)


def explored(engine: Engine, queries: TraceQueries, shown: str) -> dict[str, Callable[[int], object]]:
    """Return what the Traces tab reads: pages by every column and filter, charts, chips, neighbours."""
    from rag.tracing.trace_query import SORTS, TraceQuery, query_of
    from rag.tracing.trace_series import TraceSeries
    from tests.benchmarks.trace_generator import END

    def page(text: str, sort: str = "") -> Callable[[int], object]:
        return lambda _: queries.page(query_of(text, sort), limit=50)

    series, everything = TraceSeries(engine), TraceQuery()
    week = TraceQuery(since=END - 7 * 86_400)
    return {
        **{f"page by {sort}": page("", sort) for sort in SORTS},
        **{f"page by {sort}, smallest first": page("", f"{sort}:asc") for sort in ("latency", "cost", "tokens")},
        **{f"page of {text}": page(text) for text in FILTERS},
        "neighbours": lambda _: queries.neighbours(everything, shown),
        "charts": lambda _: series.series(everything),
        "charts of a week": lambda _: series.series(week),
        "chips": lambda _: series.tails(everything),
    }


def monitored(engine: Engine) -> dict[str, Callable[[int], object]]:
    """Return what the Monitor tab reads for each of its ranges."""
    from rag.tracing.ledger import Ledger
    from rag.tracing.measures import Measures
    from tests.benchmarks.trace_generator import END
    from ui.pages.monitor.answers_view import answers_html
    from ui.pages.monitor.cost_view import Period, cost_html
    from ui.pages.monitor.monitor_tab import LEFT_OUT

    ledger, measures = Ledger(engine), Measures(engine)

    def monitor(days: int) -> None:
        period = Period.last(days, END)
        since, without = period.since, LEFT_OUT
        cost_html(period, "model", ledger.rows(period.by, since), ledger.rows("model", since), "")
        times, groups = measures.groups(period.by, since, without), measures.groups("release", since, without)
        answers_html(period, "release", measures.total(since, without), times, groups)

    return {f"monitor, {days} days": lambda _, days=days: monitor(days) for days in (1, 7, 30)}


def _milliseconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)
