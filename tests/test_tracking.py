"""Traces reach a W&B run once, and are read back from its file."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from sqlalchemy import Engine
from test_traces import dead_process
from tracked import (
    OFFLINE,
    WAIT_S,
    delivered,
    ended,
    finished_run,
    only_run,
    start_scenario,
    started,
    table_rows,
    trace_of,
    wait_for,
)
from wandb_reader import nodes, offline_runs, read_run

from rag.settings import TrackingSettings
from rag.tracing.trace_store import Trace, TraceStore
from rag.tracing.wandb_day import Pace
from rag.tracing.wandb_traces import clipped, step_seconds, trace_tree
from rag.tracing.wandb_tracker import NullTracker, open_tracker
from rag.workspace import Workspace

pytestmark = [pytest.mark.usefixtures("isolated_wandb"), pytest.mark.slow]


def test_a_session_is_read_back_with_every_tree_time_and_cost(workspace: Workspace, store: TraceStore) -> None:
    from langchain_core.language_models import FakeListChatModel
    from langchain_core.runnables import RunnableLambda

    from rag.settings import CostSettings
    from rag.tracing.cost import load_prices
    from rag.tracing.tracer import TraceTracer
    from rag.types import Answer

    tracker = open_tracker(OFFLINE, workspace, store, {"model": "extractive", "corpus": "handbook"})

    def save(trace: Trace) -> None:
        store.save(trace)
        tracker.wake()

    def search(question: str) -> str:
        time.sleep(0.01)
        if "fail" in question:
            raise ValueError("no such index")
        return question

    chain = (
        RunnableLambda(search).with_config(run_name="retrieve")
        | FakeListChatModel(responses=["Because."]).with_config(run_name="generate")
        | RunnableLambda(lambda message: Answer(message.text, "answered")).with_config(run_name="ground")
    ).with_config(run_name="chat")
    tracer = TraceTracer(save, load_prices(CostSettings(machine_usd_per_hour=36.0)))
    metadata = {"corpus": "handbook", "model": "extractive", "prompt": "answer@3", "release": "r7"}
    asked = [f"question {number}?" for number in range(4)] + ["please fail"]
    for question in asked[:4]:
        chain.invoke(question, {"callbacks": [tracer], "metadata": metadata})
    with pytest.raises(ValueError, match="no such index"):
        chain.invoke(asked[4], {"callbacks": [tracer], "metadata": metadata})
    tracker.close(60)

    run = only_run(workspace)
    kept = {trace.id: store.get(trace.id) for trace in store.list(limit=9).traces}
    assert {trace.question for trace in kept.values()} == set(asked)
    assert [tree["span_id"] for tree in run.trees] == list(reversed(kept))
    for tree in run.trees:
        trace = kept[tree["span_id"]]
        assert trace.tracked is not None
        assert trace.tracked in tracker.status.run_path
        spans = {span.id: span for span in trace.spans}
        found = {node["span_id"]: node for node in nodes(tree)}
        assert found.keys() == spans.keys()
        for span_id, node in found.items():
            span = spans[span_id]
            assert span.ended is not None
            assert (node["name"], node["attributes"]["status"]) == (span.name, span.status)
            assert node["start_time_ms"] == round(span.started * 1000)
            assert node["end_time_ms"] == round(span.ended * 1000)
            assert node["attributes"]["cost_usd"] == span.cost_usd
            assert span.cost_usd is not None
        assert tree["attributes"]["prompt"] == "answer@3"
        assert tree["results"][0]["inputs"] == {"input": trace.question}
    failed = run.trees[-1]
    assert (failed["status_code"], failed["status_message"]) == ("ERROR", "ValueError: no such index")
    first = next(row for row in run.history if "trace.root_span_dumps" in row)
    assert first["latency_s"] > 0
    assert first["cost_usd"] > 0
    assert first["latency/retrieve"] >= 0.01
    assert {"latency/generate", "latency/ground"} < first.keys()
    assert (run.summary["status/ok"], run.summary["status/error"]) == (4, 1)
    assert run.config["corpus"] == "handbook"
    assert run.exit_code == 0
    rows = table_rows(workspace)
    assert sorted(row["trace_id"] for row in rows) == sorted(kept)
    for row in rows:
        trace = kept[row["trace_id"]]
        assert [row["question"], row["answer"], row["status"]] == [trace.question, trace.answer, trace.status]
        assert [row["latency_s"], row["cost_usd"], row["prompt"]] == [
            trace.latency_s,
            trace.cost_usd,
            "answer@3",
        ]


INTERRUPTED = """
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import RunnableLambda
from rag.tracing.cost import load_prices
from rag.settings import CostSettings
from rag.models.streaming import StreamedChatModel
from rag.tracing.tracer import TraceTracer

class SlowModel(StreamedChatModel):
    @property
    def _llm_type(self):
        return "slow"

    def _stream(self, messages, *args, **kwargs):
        quick = "quick" in messages[0].content
        for number in range(3 if quick else 1000):
            yield ChatGenerationChunk(message=AIMessageChunk(content=f"word{number} "))
            time.sleep(0 if quick else 0.02)

def stop(*_):
    raise SystemExit(143)

signal.signal(signal.SIGTERM, stop)
tracker = open_tracker(TrackingSettings(wandb="offline"), workspace, store, {})

def save(trace):
    store.save(trace)
    tracker.wake()

tracer = TraceTracer(save, load_prices(CostSettings()))
chain = (
    RunnableLambda(lambda question: question).with_config(run_name="retrieve")
    | SlowModel().with_config(run_name="generate")
).with_config(run_name="chat")
try:
    for question in ("quick 1", "quick 2", "slow"):
        for count, chunk in enumerate(chain.stream(question, {"callbacks": [tracer]})):
            if question == "slow" and count == 5:
                print("streaming", flush=True)
finally:
    tracker.close(60)
"""


def test_after_sigterm_in_the_middle_of_an_answer_the_file_holds_all(
    workspace: Workspace, store: TraceStore
) -> None:
    with start_scenario(INTERRUPTED, str(workspace.root)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "streaming\n"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=2 * WAIT_S)
    assert (process.returncode, out, err) == (143, "", "")
    run = only_run(workspace)
    inputs = [tree["results"][0]["inputs"]["input"] for tree in run.trees]
    assert inputs == ["quick 1", "quick 2", "slow"]
    assert run.exit_code is not None
    slow = run.trees[-1]
    assert slow["attributes"]["status"] == "cancelled"
    steps = {node["name"]: node for node in nodes(slow)}
    assert steps.keys() == {"chat", "retrieve", "generate"}
    assert steps["generate"]["end_time_ms"] - steps["generate"]["start_time_ms"] >= 80
    assert steps["generate"]["attributes"]["usage_estimated"] is True
    assert all(node["attributes"]["cost_usd"] is not None for node in steps.values())
    assert [trace.status for trace in store.list(limit=5).traces] == ["cancelled", "ok", "ok"]
    assert sorted(row["status"] for row in table_rows(workspace)) == ["cancelled", "ok", "ok"]
    assert store.list(limit=1).traces[0].answer.startswith("word0 word1 ")


def test_traces_are_on_disk_soon_though_the_run_goes_on(workspace: Workspace, store: TraceStore) -> None:
    tracker = started(workspace, store)
    store.save(trace_of(1))
    tracker.wake()
    wait_for(lambda: store.get(trace_of(1).id).tracked)
    assert [tree["span_id"] for tree in only_run(workspace, ended=False).trees] == [trace_of(1).id]
    assert tracker.status.mode == "offline"
    tracker.close(60)


def test_the_table_grows_by_increments(workspace: Workspace, store: TraceStore) -> None:
    tracker = started(workspace, store, pace=Pace(confirm_s=1.2, table_rows=2))
    for number in range(5):
        store.save(trace_of(number))
    tracker.wake()
    wait_for(lambda: len(table_rows(workspace)) >= 2)
    tracker.close(60)
    rows = sorted(row["question"] for row in table_rows(workspace))
    assert rows == [f"question {number}" for number in range(5)]
    assert only_run(workspace).summary["answers.log_mode"] == "INCREMENTAL"


def test_unknown_costs_and_tokens_are_absent_and_not_zero(workspace: Workspace, store: TraceStore) -> None:
    store.save(trace_of(1, cost_usd=None, input_tokens=None))
    tracker = started(workspace, store)
    tracker.close(60)
    (row,) = (row for row in only_run(workspace).history if "latency_s" in row)
    assert "cost_usd" not in row
    assert "tokens/input" not in row
    assert row["tokens/output"] == 4
    assert table_rows(workspace)[0]["cost_usd"] is None
    assert only_run(workspace).trees[0]["attributes"]["cost_usd"] is None


def test_the_run_says_nothing_of_the_person_or_the_machine(workspace: Workspace, store: TraceStore) -> None:
    store.save(trace_of(1))
    tracker = started(workspace, store)
    tracker.close(60)
    (path,) = offline_runs(workspace.root)
    finished_run(path)
    content = path.read_bytes()
    for private in (str(Path(__file__).parent), str(workspace.root), "git@", "github.com"):
        assert private.encode() not in content
    (run,) = (record.run for record in read_run(path).records if record.HasField("run"))
    assert (run.host, run.git.remote_url, run.git.commit) == ("", "", "")
    assert not any(record.HasField("environment") for record in read_run(path).records)
    files = {each.name for each in path.parent.joinpath("files").iterdir()}
    assert files <= {"media", "config.yaml", "wandb-summary.json"}


def test_traces_of_earlier_processes_are_delivered(workspace: Workspace, store: TraceStore) -> None:
    body = """
    store.save(trace_of(1))
    store.begin(Trace("trace-000002", day_start(date.today()), "running", "cut off"))
    """
    assert ended(start_scenario(body, str(workspace.root))) == (0, "", "")
    store.recover()
    tracker = started(workspace, store)
    tracker.close(60)
    trees = {tree["span_id"]: tree for tree in only_run(workspace).trees}
    assert trees.keys() == {"trace-000001", "trace-000002"}
    assert trees["trace-000002"]["attributes"]["status"] == "interrupted"
    assert trees["trace-000002"]["results"][0]["inputs"] == {"input": "cut off"}
    assert store.undelivered(9) == ()


def test_a_trace_that_a_killed_process_had_logged_arrives_again_with_the_same_ids(
    workspace: Workspace, store: TraceStore
) -> None:
    body = """
    tracker = WandbTracker(TrackingSettings(wandb="offline"), workspace, store, {}, Pace(confirm_s=60))
    tracker.start()
    store.save(trace_of(1))
    tracker.wake()
    while not tracker.status.run_path:
        time.sleep(0.02)
    print("started", flush=True)
    time.sleep(60)
    """
    with start_scenario(body, str(workspace.root)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        wait_for(lambda: delivered(workspace) == [trace_of(1).id])
        process.kill()
    tracker = started(workspace, store)
    tracker.close(60)
    wait_for(lambda: delivered(workspace) == [trace_of(1).id] * 2)
    assert store.undelivered(9) == ()


def test_two_processes_deliver_each_trace_once(workspace: Workspace, store: TraceStore) -> None:
    ended(start_scenario("for number in range(40): store.save(trace_of(number))", str(workspace.root)))
    body = """
    tracker = open_tracker(TrackingSettings(wandb="offline"), workspace, store, {})
    number = int(sys.argv[2])
    for each in range(5):
        store.save(trace_of(number + each))
        tracker.wake()
        time.sleep(0.05)
    tracker.close(60)
    """
    processes = [start_scenario(body, str(workspace.root), number) for number in ("100", "200")]
    for process in processes:
        assert ended(process) == (0, "", "")
    found = delivered(workspace)
    assert len(found) == len(set(found)) == 50
    assert store.undelivered(99) == ()


def test_switched_off_nothing_is_sent_now_or_later(workspace: Workspace, engine: Engine) -> None:
    store = TraceStore(engine, withheld=True)
    tracker = open_tracker(TrackingSettings(wandb="off"), workspace, store, {})
    assert isinstance(tracker, NullTracker)
    store.save(trace_of(1))
    store.begin(trace_of(2, status="running", spans=(), process=dead_process()))
    store.flush()
    tracker.close(1)
    assert tracker.status.mode == "off"
    others = TraceStore(engine)
    assert others.recover() == 1
    assert others.undelivered(9) == ()
    assert not workspace.wandb.exists()
    NullTracker().wake()


def test_until_there_is_a_trace_wandb_is_not_even_imported(workspace: Workspace) -> None:
    body = """
    tracker = open_tracker(TrackingSettings(), workspace, store, {})
    time.sleep(0.3)
    tracker.wake()
    tracker.close(2)
    print("wandb" in sys.modules, tracker.status.mode)
    """
    assert ended(start_scenario(body, str(workspace.root))) == (0, "False offline\n", "")
    assert not workspace.wandb.exists()


def test_a_huge_trace_is_clipped_and_says_so(store: TraceStore) -> None:
    trace = trace_of(1)
    spans = tuple(replace(trace.spans[1], id=f"s{number}", input=["x" * 20_000] * 20) for number in range(60))
    tree = trace_tree(replace(trace, spans=(trace.spans[0], *spans)))
    assert len(json.dumps(asdict(tree))) < 2_000_000
    assert len(tree.child_spans) == 60
    assert "characters left out" in str(tree.child_spans[0].results[0].inputs)
    assert clipped({"a": ["abcdef"], "b": 5}, 3) == {"a": ["abc… [3 characters left out]"], "b": 5}


def test_seconds_of_steps_with_the_same_name_add_up() -> None:
    trace = trace_of(1)
    again = replace(trace.spans[1], id="again", started=5.0, ended=5.5)
    unnamed = replace(trace.spans[1], id="unnamed", name="RunnableSequence")
    open_end = replace(trace.spans[1], id="open", name="ground", ended=None)
    seconds = step_seconds(replace(trace, spans=(*trace.spans, again, unnamed, open_end)))
    assert seconds == {"generate": pytest.approx(1.25)}
