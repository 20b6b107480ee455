"""A chat with the real workbench, read back from the file of its offline W&B run."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import CORPUS, OFF_TOPIC, PAGES, QUESTION, answered, settings_at, written
from tracked import ROOT, environment, only_run, table_rows
from wandb_reader import nodes

from rag.tracing.trace_store import Trace
from rag.types import STEPS, Turn
from rag.workspace import Workspace
from ui.app.app import open_app

TREE = {"answer", "condense", "retrieve", "prompt", "generate", "EmbeddedReader", "ground"}

pytestmark = pytest.mark.usefixtures("isolated_wandb")


@pytest.fixture
def home(ready_workspace: Workspace) -> Iterator[Workspace]:
    """A workspace with the small corpus."""
    app = open_app(settings_at(ready_workspace.root))
    app.stores.ingest(CORPUS, [written(ready_workspace.root / "pages", PAGES)])
    app.close()
    return ready_workspace


def check_tree(tree: dict[str, Any], trace: Trace) -> None:
    """The tree tells what the store knows of a finished answer: every step, its time and its cost."""
    spans = {span.id: span for span in trace.spans}
    found = {node["span_id"]: node for node in nodes(tree)}
    assert found.keys() == spans.keys()
    assert tree["span_id"] == trace.id
    for span_id, node in found.items():
        span = spans[span_id]
        assert node["name"] == span.name
        assert node["start_time_ms"] == round(span.started * 1000)
        assert node["end_time_ms"] == round((span.ended or 0) * 1000)
        assert node["attributes"]["cost_usd"] == pytest.approx(span.cost_usd)
        assert {child["span_id"] for child in node["child_spans"] or ()} == {
            each.id for each in trace.spans if each.parent_id == span_id
        }
    assert tree["attributes"]["trace_id"] == trace.id
    assert tree["attributes"]["status"] == trace.status
    assert tree["attributes"]["cost_usd"] == pytest.approx(trace.cost_usd)
    assert tree["attributes"]["release"] == trace.release
    assert tree["attributes"]["prompt"] == trace.prompt == "answer@1"
    assert tree["attributes"]["corpus"] == CORPUS


async def test_a_chat_is_read_back_with_the_tree_of_every_question(home: Workspace) -> None:
    app = open_app(settings_at(home.root, tracking={"wandb": "offline"}))
    first = await answered(app, QUESTION)
    follow_up = await answered(app, "Who built it?", history=(Turn(QUESTION, first.text),))
    refused = await answered(app, OFF_TOPIC)
    failed = await answered(app, QUESTION, corpus="nowhere")
    app.close()

    run = only_run(home)
    store = open_app(settings_at(home.root)).stores.traces
    trees = {tree["span_id"]: tree for tree in run.trees}
    assert list(trees) == [each.trace_id for each in (first, follow_up, refused, failed)]
    for answer in (first, follow_up, refused):
        trace = store.get(answer.trace_id)
        check_tree(trees[answer.trace_id], trace)
        assert {node["name"] for node in nodes(trees[answer.trace_id])} == TREE
        assert trace.tracked
    assert trees[first.trace_id]["results"][0]["inputs"]["question"] == QUESTION
    assert trees[first.trace_id]["results"][0]["outputs"]["text"] == first.text
    assert trees[failed.trace_id]["attributes"]["status"] == "error"
    rows = [row for row in run.history if "trace.root_span_dumps" in row]
    for row, answer in zip(rows, (first, follow_up, refused), strict=False):
        assert row["latency_s"] == pytest.approx(answer.latency_s)
        assert row["cost_usd"] == pytest.approx(answer.cost_usd)
        assert row["tokens/input"] == answer.usage.input_tokens
        assert all(row[f"latency/{step}"] >= 0 for step in STEPS)
    assert (run.summary["status/ok"], run.summary["status/abstained"], run.summary["status/error"]) == (2, 1, 1)
    table = {row["trace_id"]: row for row in table_rows(home)}
    assert {each.trace_id for each in (first, follow_up, refused, failed)} == table.keys()
    assert table[first.trace_id]["answer"] == first.text
    assert run.exit_code == 0


CHAT = """
import asyncio, signal, sys
from pathlib import Path
from rag.types import Ask
from rag.types import Token
from tiny import QUESTION, SENTENCE, ScriptedChat, assistant_of, settings_at, steps_of
from ui.app.app import App, open_app

app = open_app(settings_at(Path(sys.argv[1]), tracking={"wandb": "offline"}))

async def chat():
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    async for _ in app.releases.assistant().start(Ask(QUESTION)):
        pass
    model = ScriptedChat(reply=("The tide ",) * 3000, pause_s=0.01)
    steps = steps_of(app, model)
    slow = assistant_of(steps, app.stores.traces, on_traced=lambda: app.tracking.tracker.wake())
    count = 0
    async for event in slow.start(Ask("A slow question")):
        if isinstance(event, Token):
            count += 1
            if count == 10:
                print("writing", flush=True)

try:
    asyncio.run(chat())
except asyncio.CancelledError:
    print("stopped", flush=True)
finally:
    app.close()
"""


@pytest.mark.slow
def test_after_sigterm_in_the_middle_of_an_answer_the_run_holds_the_whole_chat(home: Workspace) -> None:
    variables = environment() | {"PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"}
    with subprocess.Popen(
        [sys.executable, "-c", CHAT, str(home.root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=variables,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "stopped\n", "")

    run = only_run(home)
    finished, cut = run.trees
    store = open_app(settings_at(home.root)).stores.traces
    check_tree(finished, store.get(finished["span_id"]))
    trace = store.get(cut["span_id"])
    assert (trace.status, trace.question) == ("cancelled", "A slow question")
    assert trace.answer.startswith("The tide " * 10)
    assert cut["attributes"]["status"] == "cancelled"
    named = {node["name"]: node for node in nodes(cut)}
    assert named.keys() == {"answer", "condense", "retrieve", "prompt", "generate", "ScriptedChat"}
    assert all(node["end_time_ms"] >= node["start_time_ms"] for node in named.values())
    writing = named["ScriptedChat"]
    assert writing["end_time_ms"] - writing["start_time_ms"] >= 90
    assert writing["attributes"]["usage_estimated"] is True
    for step in ("condense", "retrieve", "prompt"):
        assert named[step]["attributes"]["cost_usd"] > 0
    assert sorted(row["status"] for row in table_rows(home)) == ["cancelled", "ok"]
    assert run.exit_code is not None
