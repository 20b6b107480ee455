"""Figures of traces over time: buckets of round length, their quantiles, and what is slow in a range."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from rag.database import open_database
from rag.tracing.trace_query import TraceQuery
from rag.tracing.trace_series import Series, TraceSeries, buckets_between
from rag.tracing.trace_store import Trace, TraceStore
from rag.workspace import open_workspace

DAY = datetime(2026, 5, 31).timestamp()
HOUR = 3600.0


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(open_workspace(tmp_path / "home"))
    yield engine
    engine.dispose()


def test_buckets_count_requests_errors_and_costs_and_empty_ones_stay(engine: Engine) -> None:
    store = TraceStore(engine)
    for number in range(100):
        store.save(Trace(f"a{number}", DAY + number, "ok", latency_s=(number + 1) / 10, cost_usd=0.01))
    store.save(Trace("late", DAY + 10 * HOUR, "error", latency_s=0.043))
    store.save(Trace("running", DAY + 10 * HOUR + 1, "running"))
    store.save(Trace("scored", DAY + 10 * HOUR + 1, "error", purpose="evaluation"))
    series = TraceSeries(engine).series(TraceQuery(since=DAY, until=DAY + 12 * HOUR))
    assert (series.width, len(series.buckets)) == (15 * 60, 48)
    first, last = series.buckets[0], series.buckets[40]
    assert (first.start, first.count, first.errors, first.unpriced) == (DAY, 100, 0, 0)
    assert first.cost_usd == pytest.approx(1.0)
    assert first.p50_s == pytest.approx(5.0, abs=0.1)
    assert first.p95_s == pytest.approx(9.5, abs=0.1)
    assert (last.count, last.errors, last.unpriced) == (2, 1, 2)
    assert last.p50_s == pytest.approx(0.043, abs=0.001)
    assert {bucket.count for number, bucket in enumerate(series.buckets) if number not in (0, 40)} == {0}


def test_an_open_range_spans_what_matches(engine: Engine) -> None:
    assert TraceSeries(engine).series(TraceQuery()) == Series(1.0)
    store = TraceStore(engine)
    store.save(Trace("one", DAY, "ok", latency_s=1.0))
    assert [bucket.count for bucket in TraceSeries(engine).series(TraceQuery()).buckets] == [1]
    store.save(Trace("two", DAY + 90 * 86_400, "ok", latency_s=2_000.0))
    series = TraceSeries(engine).series(TraceQuery())
    assert series.width == 2 * 86_400
    assert (series.buckets[0].count, series.buckets[-1].count) == (1, 1)
    assert TraceSeries(engine).series(TraceQuery(filter="status = error")).buckets == ()


@given(st.floats(1, 2e9), st.floats(1, 2e9))
@settings(max_examples=100, deadline=None)
def test_any_range_has_at_most_sixty_buckets_that_cover_it(since: float, length: float) -> None:
    first, width, count = buckets_between(since, since + length)
    assert 1 <= count <= 60
    assert first <= since
    assert first + count * width >= since + length - 1e-3


def test_slow_and_costly_are_what_one_in_twenty_exceeds(engine: Engine) -> None:
    assert TraceSeries(engine).tails(TraceQuery()).latency_s is None
    store = TraceStore(engine)
    for number in range(200):
        store.save(Trace(f"t{number}", DAY + number, "ok", latency_s=number / 100, cost_usd=number / 1000))
    store.save(Trace("scored", DAY, "ok", purpose="evaluation", latency_s=99.0))
    tails = TraceSeries(engine).tails(TraceQuery(filter="status = error"))
    assert tails.latency_s is not None
    assert math.isclose(tails.latency_s, 1.89)
    assert tails.cost_usd == pytest.approx(0.189)
    early = TraceSeries(engine).tails(TraceQuery(until=DAY + 100))
    assert early.latency_s == pytest.approx(0.94)
