"""Lists of traces: what a filter keeps, in which order, page by page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event, text

from rag.database import open_database
from rag.errors import FilterError
from rag.trace_tables import trace_passages
from rag.tracing.saved_filters import SavedFilter, SavedFilters
from rag.tracing.trace_filter import Not, print_filter
from rag.tracing.trace_query import SORTS, Cursor, TraceQueries, TraceQuery, query_of
from rag.tracing.trace_store import Trace, TraceStore
from rag.workspace import open_workspace
from tests.test_trace_filter import any_text, filters

NOW = time.time()


def trace(name: str, ago: float, **values: Any) -> Trace:
    return Trace(
        name, NOW - ago, values.pop("status", "ok"), values.pop("question", f"Question {name}?"), **values
    )


TRACES = (
    trace("quick", 10, latency_s=0.2, cost_usd=0.001, input_tokens=10, output_tokens=5, prompt="answer@1"),
    trace("slow", 20, latency_s=9.0, cost_usd=0.0, input_tokens=900, output_tokens=None, prompt="answer@12"),
    trace("broken", 30, status="error", error="The server said 100% no", latency_s=2.0, prompt="answers@1"),
    trace("running", 40, status="running", user_name="bo", conversation_id="c1"),
    trace("refused", 3 * 86_400, status="abstained", answer="Not in these _documents_.", latency_s=2.0),
    trace("scored", 50, purpose="evaluation", latency_s=3.0),
    trace("tried", 60, purpose="lab", latency_s=0.1, model="openai:m", release="r1", code="1.2"),
)
ASKED = {"quick", "slow", "broken", "running", "refused"}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = open_database(open_workspace(tmp_path_factory.mktemp("queries") / "home"))
    store = TraceStore(engine)
    for each in TRACES:
        store.save(each)
    store.rate("slow", "down", "took ages")
    store.rate("quick", "up")
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def queries(engine: Engine) -> TraceQueries:
    return TraceQueries(engine, TraceStore(engine))


def names(queries: TraceQueries, text: str, sort: str = "") -> list[str]:
    return list(queries.walk(query_of(text, sort)))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", ASKED),
        ("status = error", {"broken"}),
        ("status != error", ASKED - {"broken"}),
        ("latency > 2s", {"slow"}),
        ("latency >= 2000ms", {"slow", "broken", "refused"}),
        ("not latency > 2s", ASKED - {"slow"}),
        ("latency = unknown", {"running"}),
        ("latency != unknown", ASKED - {"running"}),
        ("cost = 0", {"slow"}),
        ("cost = unknown", {"broken", "running", "refused"}),
        ("cost != $0.001", ASKED - {"quick"}),
        ("tokens = 15 or tokens > 899", {"quick", "slow"}),
        ("tokens = unknown", {"broken", "running", "refused"}),
        ("feedback = down", {"slow"}),
        ("feedback != down", ASKED - {"slow"}),
        ("feedback = none", ASKED - {"slow", "quick"}),
        ("comment ~ AGES", {"slow"}),
        ("comment = x", set()),
        ("prompt = answer", {"quick", "slow"}),
        ("prompt = answer@1", {"quick"}),
        ("user = bo session = c1", {"running"}),
        ("text = \"Question quick?\"", {"quick"}),
        ("100%", {"broken"}),
        ("%", {"broken"}),
        ("_documents_", {"refused"}),
        ("'; DROP TABLE traces; --", set()),
        ("question ~ QUICK or answer ~ documents", {"quick", "refused"}),
        ("started < 2d ago", {"refused"}),
        ("started > 2d", ASKED - {"refused"}),
        ("purpose = evaluation", {"scored"}),
        ("purpose != chat", {"scored", "tried"}),
        ("purpose = any", {each.id for each in TRACES}),
        ("purpose != any", set()),
        ("latency > 2 and (purpose = evaluation or purpose = chat)", {"slow", "scored"}),
        ("purpose ~ a model ~ openai release = r1 code = 1.2", {"tried"}),
    ],
)  # fmt: skip
def test_what_a_filter_keeps(queries: TraceQueries, text: str, kept: set[str]) -> None:
    assert set(names(queries, text)) == kept


def test_evaluations_and_the_lab_are_hidden_and_counted_unless_named(queries: TraceQueries) -> None:
    page = queries.page(query_of(""), limit=10)
    assert ([each.id for each in page.traces], page.total, page.hidden) == (
        ["quick", "slow", "broken", "running", "refused"],
        5,
        2,
    )
    slow = queries.page(query_of("latency > 2s"), limit=10)
    assert (slow.total, slow.hidden) == (1, 1)
    named = queries.page(query_of("purpose = lab"), limit=10)
    assert (named.total, named.hidden) == (1, 0)


def test_matches_of_words_are_counted_up_to_a_limit_that_is_said(
    queries: TraceQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag.tracing.trace_query.MOST_COUNTED", 4)
    words = queries.page(query_of("question purpose = any"), limit=10)
    assert (len(words.traces), words.total, words.total_label) == (7, 4, "4+")
    assert queries.page(query_of("quick or slow"), limit=1).total_label == "2"
    assert queries.page(query_of("status = ok"), limit=1).total_label == "2"


def test_a_range_keeps_what_began_in_it(queries: TraceQueries) -> None:
    page = queries.page(TraceQuery(since=NOW - 30, until=NOW - 10), limit=10)
    assert [each.id for each in page.traces] == ["slow", "broken"]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("sort", SORTS)
def test_pages_of_any_sort_join_to_the_whole_and_know_their_neighbours(
    queries: TraceQueries, sort: str, order: str
) -> None:
    query = query_of("purpose = any", f"{sort}:{order}")
    whole = list(queries.walk(query))
    assert sorted(whole) == sorted(each.id for each in TRACES)
    assert list(queries.walk(query, size=2)) == whole
    assert list(queries.walk(query, size=2, limit=5)) == whole[:5]
    after: Cursor | None = None
    paged: list[str] = []
    while True:
        page = queries.page(query, limit=3, after=after)
        paged += [each.id for each in page.traces]
        assert page.total == len(TRACES)
        if page.next is None:
            break
        after = page.next
    assert paged == whole
    for one, other in pairwise(whole):
        assert queries.neighbours(query, one).next == other
        assert queries.neighbours(query, other).previous == one
    assert queries.neighbours(query, whole[0]).previous == queries.neighbours(query, whole[-1]).next == ""


def test_unknown_values_come_last_in_both_directions(queries: TraceQueries) -> None:
    assert names(queries, "", "latency")[-1] == names(queries, "", "latency:asc")[-1] == "running"
    assert names(queries, "", "latency:asc")[0] == "quick"
    assert names(queries, "", "cost:asc")[:2] == ["slow", "quick"]
    assert names(queries, "", "feedback")[:2] == ["quick", "slow"]


def test_a_trace_outside_the_list_has_no_neighbours(queries: TraceQueries) -> None:
    none = queries.neighbours(query_of("status = error"), "quick")
    assert (none.previous, none.next) == ("", "")


def test_the_answers_with_a_passage_are_found(queries: TraceQueries, engine: Engine) -> None:
    used = [("slow", 1, 1, 1), ("quick", 1, 2, 0), ("quick", 2, 1, 1)]
    names_of = ("trace_id", "passage_id", "rank", "cited")
    with engine.begin() as connection:
        connection.execute(trace_passages.insert(), [dict(zip(names_of, row, strict=True)) for row in used])
    found = queries.with_passage(1, limit=5)
    assert [each.id for each in found.traces] == ["quick", "slow"]
    assert (found.cited, found.total) == (frozenset({"slow"}), 2)
    assert found.traces[1].feedback is not None
    assert queries.with_passage(1, limit=1).total == 2
    assert queries.with_passage(9, limit=5).traces == ()


def test_a_conversation_is_read_oldest_first(queries: TraceQueries) -> None:
    assert [each.id for each in queries.session("c1")] == ["running"]
    assert queries.session("none") == ()


def test_an_unknown_sort_is_named() -> None:
    for sort in ("colour", "cost:up", "'; --"):
        with pytest.raises(FilterError, match="cannot be sorted"):
            query_of("", sort)


@given(filters)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_filter_and_its_opposite_share_all_traces(queries: TraceQueries, one: Any) -> None:
    kept = set(names(queries, f"purpose = any and ({print_filter(one)})"))
    left = set(names(queries, f"purpose = any and ({print_filter(Not(one))})"))
    assert not kept & left
    assert kept | left == {each.id for each in TRACES}


@given(any_text, st.sampled_from(sorted(SORTS)), st.sampled_from(["", ":asc"]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_input_gives_a_list_or_a_clear_error(
    queries: TraceQueries, engine: Engine, typed: str, sort: str, order: str
) -> None:
    try:
        page = queries.page(query_of(typed, sort + order), limit=3)
    except FilterError:
        return
    assert len(page.traces) == min(page.total, 3)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM traces")) == len(TRACES)


@pytest.mark.parametrize("sort", ["started", "latency", "cost"])
def test_a_page_is_read_in_the_order_of_an_index(engine: Engine, sort: str) -> None:
    asked: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, values: Any, *_rest: object) -> None:
        asked.append((statement, values))

    event.listen(engine, "before_cursor_execute", note)
    try:
        TraceQueries(engine, TraceStore(engine)).page(query_of("", sort), limit=3)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    statement, values = asked[0]
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
    steps = [row[3] for row in rows]
    assert any("USING" in step and "INDEX" in step for step in steps), steps
    assert "USE TEMP B-TREE FOR ORDER BY" not in steps


def test_a_filter_is_saved_under_a_name_and_deleted(tmp_path: Path) -> None:
    engine = open_database(open_workspace(tmp_path / "home"))
    saved = SavedFilters(engine)
    saved.save(" slow  ones ", "latency > 5s")
    saved.save("bad", "feedback = down")
    saved.save("bad", "feedback = down and latency > 1s")
    assert saved.list() == (
        SavedFilter("bad", "feedback = down and latency > 1s"),
        SavedFilter("slow ones", "latency > 5s"),
    )
    saved.delete("bad")
    saved.delete("bad")
    assert [each.name for each in saved.list()] == ["slow ones"]
    for name, filter_text in (("x", "latncy > 1"), ("x", " "), (" ", "refund"), ("x" * 121, "refund")):
        with pytest.raises(FilterError):
            saved.save(name, filter_text)
    engine.dispose()
