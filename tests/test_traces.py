"""The trace store: written whole, read back equal, listed without silent cuts, delivered once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from rag.errors import DatabaseError, TraceNotFound
from rag.tracing.processes import process_identity
from rag.tracing.trace_store import Backlog, Feedback, Span, Trace, TraceStore
from rag.tracing.trace_types import UsedPassage
from rag.workspace import Workspace


@pytest.fixture
def engine(either_engine: Engine) -> Engine:
    """The same on SQLite and PostgreSQL."""
    return either_engine


def on_sqlite(engine: Engine) -> None:
    if engine.dialect.name != "sqlite":
        pytest.skip("is about SQLite")


def trace_of(number: int = 0, **changes: object) -> Trace:
    trace_id = f"01999999-0000-7000-8000-{number:012x}"
    spans = (
        Span(
            trace_id,
            None,
            0,
            "chat",
            "chain",
            "ok",
            100.0 + number,
            101.5,
            {"question": "why?"},
            {"text": "so"},
        ),
        Span(
            f"span-{number}",
            trace_id,
            1,
            "generate",
            "llm",
            "error",
            100.5,
            None,
            input=["a", {"b": None}],
            error="ValueError: no",
            input_tokens=7,
            output_tokens=0,
            cost_usd=0.0,
            attributes={"usage_estimated": True},
        ),
    )
    trace = Trace(
        id=trace_id,
        started=100.0 + number,
        status="ok",
        question=f"Why is 100% of _it_ blue {number}?",
        answer="Because.",
        latency_s=1.5,
        input_tokens=7,
        output_tokens=0,
        cost_usd=None,
        corpus="handbook",
        model="extractive",
        prompt="answer@1",
        release="r1",
        conversation_id="c1",
        spans=spans,
        passages=(UsedPassage(12, 1, cited=True), UsedPassage(4, 2, cited=False)),
    )
    return replace(trace, **changes)  # type: ignore[arg-type]


def dead_process() -> str:
    """The identity of a process of this host that has ended."""
    code = "from rag.tracing.processes import process_identity; print(process_identity())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.strip()


def test_a_trace_is_read_back_as_it_was_written(store: TraceStore) -> None:
    trace = trace_of()
    store.save(trace)
    assert store.get(trace.id) == trace


def test_unknown_is_not_zero(store: TraceStore) -> None:
    store.save(trace_of(1, cost_usd=None, input_tokens=None))
    store.save(trace_of(2, cost_usd=0.0, input_tokens=0))
    assert (store.get(trace_of(1).id).cost_usd, store.get(trace_of(1).id).input_tokens) == (None, None)
    assert (store.get(trace_of(2).id).cost_usd, store.get(trace_of(2).id).input_tokens) == (0.0, 0)


def test_saving_replaces_the_running_row_and_can_be_repeated(store: TraceStore) -> None:
    trace = trace_of()
    store.begin(replace(trace, status="running", spans=(), latency_s=None, answer=""))
    assert store.get(trace.id).status == "running"
    store.save(trace)
    store.save(trace)
    assert store.get(trace.id) == trace
    store.save(replace(trace, spans=trace.spans[:1]))
    assert len(store.get(trace.id).spans) == 1
    assert store.list(limit=5).total == 1


def test_the_steps_of_a_running_trace_are_there_as_they_finish(store: TraceStore) -> None:
    trace = trace_of()
    root, step = trace.spans
    store.begin(replace(trace, status="running", spans=()))
    store.save_span(trace.id, replace(step, cost_usd=1.0))
    assert store.get(trace.id).spans == (replace(step, cost_usd=1.0),)
    store.save_span("of no running trace", replace(step, id="lost"))
    # What has changed since is replaced: here the cost.
    store.finish(trace)
    assert store.get(trace.id) == trace
    store.begin(trace_of(1, status="running"))
    store.save_span(trace_of(1).id, replace(root, id="left out later"))
    store.finish(trace_of(1))
    assert store.get(trace_of(1).id) == trace_of(1)
    store.close()


def test_a_killed_process_leaves_its_finished_steps_with_an_interrupted_trace(
    store: TraceStore, workspace: Workspace, engine: Engine
) -> None:
    code = f"""
import os, sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from dataclasses import replace
from pathlib import Path
from test_traces import TraceStore, Workspace, trace_of
from rag.database import open_database
store = TraceStore(open_database(Workspace(Path({str(workspace.root)!r})), {engine.url.render_as_string(False)!r}))
for number in range(3):
    store.begin(trace_of(number, status="running"))
    store.save_span(trace_of(number).id, trace_of(number).spans[1])
    if number < 2:
        store.finish(trace_of(number))
store.flush()
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert store.recover() == 1
    left = store.get(trace_of(2).id)
    assert (left.status, left.spans) == ("interrupted", trace_of(2).spans[1:])
    assert [store.get(trace_of(number).id).status for number in range(2)] == ["ok", "ok"]


def test_a_question_is_refused_once_the_database_is_known_to_refuse(
    store: TraceStore, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    on_sqlite(engine)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE traces RENAME TO away"))
    store.begin(trace_of(1, status="running"))
    store.flush()
    with pytest.raises(DatabaseError, match="no such table"):
        store.begin(trace_of(2, status="running"))
    store.finish(trace_of(1))
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE away RENAME TO traces"))
    store.close()
    assert store.get(trace_of(1).id) == trace_of(1)
    assert "no such table" in caplog.text


def test_a_trace_that_the_database_does_not_take_is_kept_without_its_steps(store: TraceStore) -> None:
    trace = trace_of()
    store.begin(replace(trace, status="running", spans=()))
    store.finish(replace(trace, spans=(trace.spans[0], trace.spans[0])))
    kept = store.get(trace.id)
    assert (kept.status, kept.question, kept.spans) == ("error", trace.question, ())
    assert "unique constraint" in kept.error.lower()
    store.close()


def test_a_trace_is_written_whole_or_not_at_all(store: TraceStore) -> None:
    trace = trace_of()
    twice = (trace.spans[0], trace.spans[0])
    with pytest.raises(DatabaseError):
        store.save(replace(trace, spans=twice))
    assert store.list(limit=5).total == 0


def test_the_beginning_or_the_end_of_an_id_finds_it_when_it_is_unique(store: TraceStore) -> None:
    store.save(trace_of(1))
    assert store.get("019999").id == trace_of(1).id
    store.save(trace_of(2))
    assert store.get("000000000002").id == trace_of(2).id
    with pytest.raises(TraceNotFound, match="More than one"):
        store.get("019999")
    with pytest.raises(TraceNotFound, match="at least 6"):
        store.get("01999")
    for unknown in ("nothing-like-it", "", "%%%%%%", "______"):
        with pytest.raises(TraceNotFound):
            store.get(unknown)


def test_a_list_is_newest_first_and_says_how_many_there_are(store: TraceStore) -> None:
    for number in range(7):
        store.save(trace_of(number, status="error" if number % 2 else "ok"))
    first = store.list(limit=3)
    assert [trace.started for trace in first.traces] == [106.0, 105.0, 104.0]
    assert first.total == 7
    assert first.traces[0].spans == ()
    second = store.list(limit=10, before=first.traces[-1].started)
    assert [trace.started for trace in second.traces] == [103.0, 102.0, 101.0, 100.0]
    assert second.total == 7
    assert store.list(limit=1, status="error").total == 3
    assert store.list(limit=1, status="cancelled") == type(first)((), 0)


@pytest.mark.parametrize(
    ("wanted", "total"), [("BLUE 3", 1), ("100%", 5), ("_it_", 5), ("1_0", 0), ("%", 5), ("x%", 0)]
)
def test_text_is_searched_literally_in_either_case(store: TraceStore, wanted: str, total: int) -> None:
    for number in range(5):
        store.save(trace_of(number))
    assert store.list(limit=2, text=wanted).total == total


@pytest.mark.parametrize("count", [2**31, 2**63, 10**400, -1], ids=["32 bits", "64 bits", "more", "less"])
def test_a_count_beyond_its_column_is_kept_as_far_as_it_goes(store: TraceStore, count: int) -> None:
    span = Span("s", None, 0, "answer", "chain", "ok", 1.0, input_tokens=count, output_tokens=None)
    store.save(replace(trace_of(), input_tokens=3, output_tokens=count, spans=(span,)))
    kept = store.get(trace_of().id)
    expected = 0 if count < 0 else 2**31 - 1
    assert (kept.input_tokens, kept.output_tokens) == (3, expected)
    assert (kept.spans[0].input_tokens, kept.spans[0].output_tokens) == (expected, None)


def test_feedback_is_kept_beside_the_trace_and_survives_a_save(store: TraceStore) -> None:
    trace = trace_of()
    store.save(trace)
    store.rate(trace.id, "down", "wrong, and my password=hunter2 is in it")
    store.rate(trace.id, "up", "better")
    store.save(trace)
    kept = store.get(trace.id).feedback
    assert isinstance(kept, Feedback)
    assert (kept.rating, kept.comment) == ("up", "better")
    assert store.list(limit=1).traces[0].feedback == kept
    store.rate(trace.id, None)
    assert store.get(trace.id).feedback is None
    with pytest.raises(TraceNotFound):
        store.rate("no-such-trace", "up")


def test_a_comment_keeps_no_secret(store: TraceStore) -> None:
    store.save(trace_of())
    store.rate(trace_of().id, "down", "password=hunter2")
    kept = store.get(trace_of().id).feedback
    assert kept is not None
    assert "hunter2" not in kept.comment


def test_only_traces_of_dead_processes_are_mended(store: TraceStore) -> None:
    host, pid, _start = process_identity().rsplit(":", 2)
    processes = {
        "own": process_identity(),
        "dead": dead_process(),
        "reused number": f"{host}:{pid}:1",
        "elsewhere": "another-host:1:1",
        "strange": "?",
    }
    for number, process in enumerate(processes.values()):
        store.begin(trace_of(number, status="running", process=process, spans=()))
    store.save(trace_of(9, process=processes["dead"]))
    assert store.recover() == 2
    found = {name: store.get(trace_of(number).id).status for number, name in enumerate(processes)}
    assert found == {
        "own": "running",
        "dead": "interrupted",
        "reused number": "interrupted",
        "elsewhere": "running",
        "strange": "running",
    }
    assert store.get(trace_of(9).id).status == "ok"
    assert store.recover() == 0


def test_a_living_process_is_not_mended(store: TraceStore) -> None:
    code = "from rag.tracing.processes import process_identity; print(process_identity(), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        store.begin(trace_of(status="running", process=other.stdout.readline().strip()))
        store.flush()
        assert store.recover() == 0
        other.communicate("\n")
    assert store.recover() == 1


def test_the_identity_fits_its_column_and_names_this_process() -> None:
    assert len(process_identity()) + len("claim:") <= 60
    assert f":{os.getpid()}:" in process_identity()


def test_finished_traces_of_all_processes_wait_for_delivery_oldest_first(store: TraceStore) -> None:
    host = process_identity().rsplit(":", 2)[0]
    store.save(trace_of(3))
    store.save(trace_of(1, process=dead_process()))
    # Of a process that lives, perhaps a command that leaves them to a server.
    store.save(trace_of(2, process=f"{host}:1:1"))
    store.begin(trace_of(4, status="running", spans=()))
    expected = tuple(trace_of(number).id for number in (1, 2, 3))
    assert store.undelivered(10) == expected
    assert store.undelivered(1) == expected[:1]
    assert store.backlog() == Backlog(3, trace_of(1).started)
    claimed = store.claim(10)
    assert tuple(trace.id for trace in claimed) == expected
    assert claimed[0].spans == trace_of(1).spans
    assert store.undelivered(10) == ()
    assert store.claim(10) == ()
    assert store.backlog() == Backlog(0, None)
    assert store.get(trace_of(1).id).tracked is None


def test_another_host_has_a_workspace_of_its_own_on_a_database_server(store: TraceStore, engine: Engine) -> None:
    store.save(trace_of(1, process="another-host:1:1"))
    # A file belongs to one workspace, whose host may change its name, such as a container.
    assert len(store.undelivered(10)) == (1 if engine.dialect.name == "sqlite" else 0)


def test_a_claim_ends_with_tracking_with_release_or_with_its_process(store: TraceStore, engine: Engine) -> None:
    for number in range(3):
        store.save(trace_of(number))
    store.claim(10)
    store.mark_tracked([trace_of(0).id], "run-1")
    store.release([trace_of(1).id])
    assert store.get(trace_of(0).id).tracked == "run-1"
    assert store.undelivered(10) == (trace_of(1).id,)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE traces SET tracked = :claim WHERE id = :id"),
            {"claim": f"claim:{dead_process()}", "id": trace_of(2).id},
        )
    assert store.undelivered(10) == (trace_of(1).id, trace_of(2).id)
    store.save(trace_of(0))
    assert store.get(trace_of(0).id).tracked == "run-1"


def test_what_was_made_while_tracking_was_off_is_not_delivered_later(store: TraceStore, engine: Engine) -> None:
    off = TraceStore(engine, withheld=True)
    off.begin(trace_of(0, status="running", spans=()))
    off.flush()
    assert store.get(trace_of(0).id).tracked == "off"
    off.finish(trace_of(0))
    off.save(trace_of(2))
    store.save(trace_of(1))
    off.flush()
    assert store.undelivered(10) == (trace_of(1).id,)
    assert store.get(trace_of(0).id).tracked == "off"
    off.close()


def test_many_threads_claim_each_trace_once(store: TraceStore) -> None:
    orphans = dead_process()
    for number in range(30):
        store.save(trace_of(number, process=orphans))
    won: list[str] = []

    def take() -> None:
        while claimed := store.claim(4):
            won.extend(trace.id for trace in claimed)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == len(set(won)) == 30
