"""Large strings of spans are stored once, whole, and read back in their places."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select
from test_traces import trace_of

from rag.database import reading
from rag.trace_tables import contents, spans, trace_contents
from rag.tracing.span_contents import LARGE, Contents, unpacked
from rag.tracing.trace_store import TraceStore


@pytest.fixture
def engine(either_engine: Engine) -> Engine:
    """The same on SQLite and PostgreSQL."""
    return either_engine


STRINGS = st.one_of(
    st.text(max_size=5), st.integers(LARGE - 1, LARGE + 2).map("x".__mul__), st.just("@content"), st.just("a" * 64)
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), STRINGS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(STRINGS, inner, max_size=3),
        inner.map(lambda value: {"@content": value}),
        inner.map(lambda value: {"@content": [{"@content": value}]}),
        inner.map(lambda value: {"@content": {"json": value}}),
        inner.map(lambda value: [value] * 20),
    ),
    max_leaves=8,
)


@given(VALUES)
def test_any_value_comes_back_as_it_was(value: Any) -> None:
    packing = Contents()
    packed = packing.packed("trace", value)
    assert unpacked(packed, packing._texts) == value


def test_a_text_of_many_steps_and_traces_is_stored_once_and_whole(store: TraceStore, engine: Engine) -> None:
    passage = "The tide gauge was installed in 1871. " * 3000
    for number in range(3):
        trace = trace_of(number)
        given_twice = tuple(
            replace(span, input=[passage], output={"hits": [{"text": passage}, {"text": f"own {number}"}]})
            for span in trace.spans
        )
        store.save(replace(trace, spans=given_twice))
        store.save(replace(trace, spans=given_twice))
        assert store.get(trace.id).spans == given_twice
    with reading(engine) as connection:
        assert connection.scalars(select(contents.c.text)).all() == [passage]
        assert connection.scalar(select(func.count()).select_from(trace_contents)) == 3
        assert max(len(str(row.output)) for row in connection.execute(select(spans))) < 200


def test_a_text_that_is_gone_is_said_to_be_missing() -> None:
    assert "missing" in str(unpacked({"@content": "0" * 64}, {}))


@pytest.mark.parametrize("length", [LARGE, 20_001, 300_000])
def test_a_step_keeps_its_text_whole(store: TraceStore, length: int) -> None:
    from rag.tracing.span_json import as_json

    text = "é" * length
    trace = trace_of()
    store.begin(trace)
    span = replace(trace.spans[1], input=as_json({"prompt": text}))
    store.save_span(trace.id, span)
    store.finish(replace(trace, spans=(trace.spans[0], span)))
    assert store.get(trace.id).spans[1].input == {"prompt": text}
    store.close()


def test_what_the_steps_of_a_trace_share_is_stored_once(store: TraceStore, engine: Engine) -> None:
    hits = [{"passage": {"id": number, "text": "The tide gauge. " * 50}, "score": 0.5} for number in range(9)]
    trace = trace_of()
    sharing = tuple(replace(span, input={"hits": hits}, output=[*hits]) for span in trace.spans)
    store.save(replace(trace, spans=sharing))
    assert store.get(trace.id).spans == sharing
    with reading(engine) as connection:
        assert connection.scalar(select(func.count()).select_from(contents)) == 2
        assert max(len(str(row.input)) for row in connection.execute(select(spans))) < 200
