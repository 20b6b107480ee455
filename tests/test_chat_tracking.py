"""A chat with the real workbench, read back from the file of its offline W&B run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tiny import CORPUS, OFF_TOPIC, PAGES, QUESTION, STEPS, answered, settings_at, written
from tracked import only_run, table_rows
from wandb_reader import nodes

from rag.tracing.trace_store import Trace
from rag.types import Turn
from rag.workspace import Workspace
from ui.app.app import open_app

TREE = {"answer", "condense", "retrieve", "prompt", "generate", "ExtractiveReader", "ground"}

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
    app.tracking.start()
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
    assert run.config["model"] == "extractive"
    assert run.config["retrieval"]["k"] == 5
    assert str(home.root) not in json.dumps(run.config)
