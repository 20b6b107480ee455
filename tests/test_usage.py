"""What the traces tell of a prompt's versions."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from rag.database import open_database
from rag.tracing.prompt_usage import VersionUse, traces_of, use_of
from rag.tracing.trace_store import Status, Trace, TraceStore
from rag.workspace import open_workspace


def keep(
    engine: Engine, prompt: str, number: int, status: Status = "ok", latency: float | None = 1.0, **more: object
) -> str:
    trace = Trace(id=f"trace-{number:04}", started=float(number), status=status, latency_s=latency, prompt=prompt)
    TraceStore(engine).save(replace(trace, **more))  # type: ignore[arg-type]  # fields of a trace
    return trace.id


def test_answers_are_counted_by_version_the_newest_first(engine: Engine) -> None:
    for number, latency in enumerate((1.0, 9.0, 2.0)):
        keep(engine, "answer@2", number, latency=latency, input_tokens=100, output_tokens=number, cost_usd=0.5)
    keep(engine, "answer@10", 3, status="abstained", latency=4.0)
    keep(engine, "answer@10", 4, status="error", latency=99.0)
    use = use_of(engine, "answer")
    assert use.versions == (
        VersionUse(10, 1, 1, 1, 4.0, None, None, 1, 0, 0),
        VersionUse(2, 3, 0, 0, 2.0, 101, 0.5, 0, 0, 0),
    )
    assert (use.counted, use.total) == (5, 5)
    assert [each.refused_share for each in use.versions] == [1.0, 0.0]


def test_other_prompts_do_not_count(engine: Engine) -> None:
    for number, prompt in enumerate(("answer-short@1", "answer", "an_wer@1", "answer@staging", "ANSWER-X@1")):
        keep(engine, prompt, number)
    assert use_of(engine, "answer").versions == ()
    assert use_of(engine, "an_wer").counted == 1


def test_a_running_or_stopped_question_is_no_answer(engine: Engine) -> None:
    keep(engine, "answer@1", 0, status="running", latency=None)
    keep(engine, "answer@1", 1, status="cancelled")
    assert use_of(engine, "answer").versions == (VersionUse(1, 0, 0, 0, None, None, None, 0, 0, 0),)
    assert use_of(engine, "answer").versions[0].refused_share is None


def test_thumbs_are_counted(engine: Engine) -> None:
    store = TraceStore(engine)
    for number in range(3):
        store.rate(keep(engine, "answer@1", number), "up" if number else "down", "why")
    (use,) = use_of(engine, "answer").versions
    assert (use.up, use.down) == (2, 1)


def test_what_a_known_and_an_unknown_cost_have_in_common_is_not_made_up(engine: Engine) -> None:
    keep(engine, "answer@1", 0, cost_usd=0.2)
    keep(engine, "answer@1", 1, cost_usd=None)
    (use,) = use_of(engine, "answer").versions
    assert (use.cost_usd, use.unpriced) == (0.2, 1)


def test_only_the_newest_are_read_and_all_are_told(engine: Engine) -> None:
    for number in range(5):
        keep(engine, f"answer@{number + 1}", number)
    use = use_of(engine, "answer", latest=2)
    assert [each.version for each in use.versions] == [5, 4]
    assert (use.counted, use.total) == (2, 5)


def test_the_traces_of_a_version_are_listed_newest_first_with_their_thumbs(engine: Engine) -> None:
    ids = [keep(engine, "answer@1", number, question=f"Question {number}") for number in range(4)]
    keep(engine, "answer@11", 9)
    TraceStore(engine).rate(ids[3], "down", "wrong")
    page = traces_of(engine, "answer@1", 2)
    assert [trace.id for trace in page.traces] == [ids[3], ids[2]]
    assert page.total == 4
    assert page.traces[0].question == "Question 3"
    assert page.traces[0].feedback is not None
    assert (page.traces[0].feedback.rating, page.traces[0].feedback.comment) == ("down", "wrong")
    assert page.traces[1].feedback is None


@settings(max_examples=10)
@given(st.lists(st.tuples(st.integers(1, 3), st.one_of(st.none(), st.floats(0, 100)))))
def test_the_median_is_that_of_the_version_alone(tmp_path_factory: pytest.TempPathFactory, told: list) -> None:  # type: ignore[type-arg]
    engine = open_database(open_workspace(tmp_path_factory.mktemp("usage")))
    for number, (version, latency) in enumerate(told):
        keep(engine, f"answer@{version}", number, latency=latency)
    for each in use_of(engine, "answer").versions:
        known = [latency for version, latency in told if version == each.version and latency is not None]
        assert each.latency_s == (median(known) if known else None)
        assert each.answers == sum(version == each.version for version, _ in told)
    engine.dispose()
