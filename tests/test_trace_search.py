"""Texts of traces are found as substrings, by an index that follows every change."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text
from test_traces import on_sqlite, trace_of

from rag.database import reading, writing
from rag.tracing import trace_search
from rag.tracing.trace_retention import Retention, prune
from rag.tracing.trace_search import has_text
from rag.tracing.trace_store import TraceStore

LETTERS = st.text(st.sampled_from("aAbÄäß%_'\"\\ \n東"), max_size=12)


@pytest.fixture
def engine(either_engine: Engine) -> Engine:
    """The same on SQLite and PostgreSQL."""
    return either_engine


def found(store: TraceStore, wanted: str) -> list[int]:
    return sorted(int(trace.id[-3:], 16) for trace in store.list(limit=50, text=wanted).traces)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LETTERS, min_size=1, max_size=6), LETTERS)
def test_the_index_finds_what_reading_finds(
    store: TraceStore, engine: Engine, texts: list[str], wanted: str
) -> None:
    on_sqlite(engine)
    for number, question in enumerate(texts):
        store.save(trace_of(number, question=question, answer="", error=""))
    if wanted:
        asked = found(store, wanted)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(trace_search, "MOST_CANDIDATES", -1)
            assert asked == found(store, wanted)
    with writing(engine) as connection:
        for table in ("spans", "trace_passages", "traces"):
            connection.execute(text(f"DELETE FROM {table}"))


def test_the_index_follows_every_change(store: TraceStore, engine: Engine) -> None:
    store.begin(trace_of(1, status="running", question="about whales", answer=""))
    assert found(store, "whale") == [1]
    store.finish(trace_of(1, question="about whales", answer="They sing."))
    store.save(trace_of(2, status="error", error="the whale server is down"))
    assert (found(store, "WHALE"), found(store, "they sing")) == ([1, 2], [1])
    store.save(trace_of(1, question="about herons", answer="They stand."))
    assert (found(store, "whale"), found(store, "heron")) == ([2], [1])
    with writing(engine) as connection:
        connection.execute(text("UPDATE traces SET status = 'interrupted', error = 'ended' WHERE id LIKE '%2'"))
    assert (found(store, "whale"), found(store, "ended")) == ([], [2])
    prune(engine, Retention(days=1))
    assert found(store, "heron") == []
    store.close()
    on_sqlite(engine)
    with writing(engine) as connection:
        # Fails if the index has anything that the traces have not.
        connection.execute(text("INSERT INTO trace_texts (trace_texts) VALUES ('integrity-check')"))


def test_a_text_does_not_span_question_and_answer(store: TraceStore) -> None:
    store.save(trace_of(1, question="one two", answer="three four"))
    assert found(store, "two three") == found(store, "twothree") == []
    assert found(store, "three") == [1]


def test_the_index_is_read_for_rare_texts_only(store: TraceStore, engine: Engine) -> None:
    on_sqlite(engine)
    for number in range(9):
        store.save(trace_of(number, question=f"common words {number * 111}"))
    with pytest.MonkeyPatch.context() as patched, reading(engine) as connection:
        patched.setattr(trace_search, "MOST_CANDIDATES", 3)
        assert " IN " in str(has_text(connection, "words 333"))
        assert " IN " not in str(has_text(connection, "common words"))
        assert " IN " not in str(has_text(connection, "wo"))


def test_without_its_index_the_search_reads(store: TraceStore, engine: Engine) -> None:
    on_sqlite(engine)
    store.save(trace_of(1, question="about whales"))
    with writing(engine) as connection:
        for statement in ("TRIGGER trace_text_added", "TABLE trace_texts"):
            connection.execute(text(f"DROP {statement}"))
    assert found(store, "whale") == [1]


@pytest.mark.parametrize(
    ("wanted", "numbers"), [("100%", [1]), ("_it_", [1]), ("a\\b", [2]), ("%", [1]), ("ÄB", [2])]
)
def test_signs_of_patterns_are_letters(store: TraceStore, engine: Engine, wanted: str, numbers: list[int]) -> None:
    store.save(trace_of(1, question="100% of _it_"))
    store.save(trace_of(2, question="a\\b Äb"))
    # SQLite compares the case of ASCII letters only.
    assert found(store, wanted.lower() if engine.dialect.name == "postgresql" else wanted) == numbers


def test_postgresql_can_search_by_its_index(engine: Engine) -> None:
    if engine.dialect.name != "postgresql":
        pytest.skip("is about PostgreSQL")
    with reading(engine) as connection:
        connection.execute(text("SET enable_seqscan = off"))
        condition = has_text(connection, "whales").compile(engine, compile_kwargs={"literal_binds": True})
        query = f"EXPLAIN SELECT id FROM traces WHERE {condition}"
        plan = connection.exec_driver_sql(query).scalars().all()
    assert "traces_by_text" in "".join(plan)


@pytest.mark.parametrize(("wanted", "numbers"), [("QU", [1]), ("q", [1]), ("%", [2]), ("東京", [2]), ("#1", [])])
def test_a_text_shorter_than_a_trigram_is_found_too(store: TraceStore, wanted: str, numbers: list[int]) -> None:
    store.save(trace_of(1, question="a quick one", answer=""))
    store.save(trace_of(2, question="100% 東京", answer=""))
    assert found(store, wanted) == numbers
