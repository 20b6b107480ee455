"""The ledger adds up: what it says is what the leaf steps say, and what W&B says."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.caches import InMemoryCache
from langchain_core.runnables import RunnableLambda
from scripted_openai import answered_by, refuses, says, scripted_openai, scripts, settings_for
from sqlalchemy import Engine, text
from tiny import CORPUS, PAGES, QUESTION, answered, assistant_for, settings_at, stopped_after, written
from tracked import only_run

from rag.database import open_database, reading
from rag.settings import CostSettings
from rag.tracing.cost import load_prices
from rag.tracing.ledger import GROUPINGS, Expense, Ledger, Spending, day_start, spending_of
from rag.tracing.processes import process_identity
from rag.tracing.trace_store import Span, Trace, TraceStore
from rag.tracing.tracer import TraceTracer
from rag.workspace import Workspace, open_workspace
from ui.app.app import App, open_app

NOON = day_start(date(2026, 3, 2)) + 12 * 3600
CENT = 0.01


def span(number: int, parent: int | None, name: str, kind: str = "chain", **fields: Any) -> Span:
    frame = {"ended": NOON + 2.0, "cost_usd": 0.0} | fields
    return Span(f"s{number}", None if parent is None else f"s{parent}", number, name, kind, "ok", NOON, **frame)


def trace_of(number: int = 1, **fields: Any) -> Trace:
    """A trace with an API model, whose search costs the time of the machine."""
    spans = (
        span(0, None, "answer", cost_usd=0.03),
        span(1, 0, "retrieve", cost_usd=0.01),
        span(2, 0, "prompt"),
        span(3, 0, "generate", cost_usd=0.02),
        span(
            4,
            3,
            "ChatOpenAI",
            "llm",
            cost_usd=0.02,
            input_tokens=9,
            output_tokens=4,
            attributes={"billed": "tokens"},
        ),
    )
    spans = tuple(
        replace(each, id=f"{number}-{each.id}", parent_id=each.parent_id and f"{number}-{each.parent_id}")
        for each in spans
    )
    frame = {
        "started": NOON,
        "status": "ok",
        "latency_s": 2.0,
        "model": "openai:gpt-4o",
        "prompt": "answer@1",
        "release": "r1",
        "spans": spans,
    }
    return Trace(f"trace-{number}", **frame | fields)


@pytest.fixture
def ledger(engine: Engine) -> Ledger:
    return Ledger(engine)


def test_a_trace_costs_what_its_leaf_steps_cost(store: TraceStore, ledger: Ledger) -> None:
    store.save(trace_of())
    assert ledger.total() == Spending(
        calls=2, input_tokens=9, output_tokens=4, seconds=4.0, cost_usd=pytest.approx(0.03)
    )
    by_step = {row.name: row.spending for row in ledger.rows("step")}
    # The call of a model counts for its step; the seconds of a server are not those of this machine.
    assert by_step["generate"] == Spending(calls=1, input_tokens=9, output_tokens=4, cost_usd=0.02)
    assert by_step["retrieve"] == Spending(calls=1, seconds=2.0, cost_usd=0.01)
    assert by_step["prompt"] == Spending(seconds=2.0)


def test_a_trace_is_added_once_when_it_ends(store: TraceStore, ledger: Ledger) -> None:
    store.begin(replace(trace_of(), status="running", spans=()))
    store.save(replace(trace_of(), status="running"))
    assert ledger.total() == Spending()
    for _ in range(2):
        store.save(trace_of())
    assert ledger.total().cost_usd == pytest.approx(0.03)


def test_the_steps_of_an_interrupted_trace_are_added(
    store: TraceStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = f"{process_identity().rsplit(':', 2)[0]}:999999:1"
    monkeypatch.setattr("rag.tracing.processes.is_dead", lambda process: process == dead)
    store.save(replace(trace_of(), status="running", process=dead))
    assert (store.recover(), store.recover()) == (1, 0)
    assert ledger.total().cost_usd == pytest.approx(0.03)


def test_a_trace_of_another_process_is_not_added_again(store: TraceStore, ledger: Ledger) -> None:
    store.save(replace(trace_of(), process="elsewhere:1:1"))
    assert ledger.total() == Spending()


def test_what_is_unknown_is_counted_and_the_rest_is_not_lost(store: TraceStore, ledger: Ledger) -> None:
    trace = trace_of()
    spans = tuple(replace(each, cost_usd=None) if each.name != "retrieve" else each for each in trace.spans)
    store.save(replace(trace, cost_usd=None, spans=spans))
    total = ledger.total()
    # The model and the filling of the prompt.
    assert (total.unknown, total.cost_usd) == (2, 0.01)


def test_groups_are_days_in_order_and_others_by_cost(store: TraceStore, ledger: Ledger) -> None:
    store.save(trace_of(1, started=NOON + 86_400, user_name="Ada"))
    store.save(trace_of(2, purpose="api", prompt="answer@2"))
    ledger.add(Expense("judging", "run-1", "judge", "openai:gpt-4o", "2026-03-01", 0.5, at=NOON, calls=2))
    assert [row.name for row in ledger.rows("day")] == ["2026-03-02", "2026-03-03"]
    assert [row.name for row in ledger.rows("purpose")] == ["judging", "api", "chat"]
    assert [row.name for row in ledger.rows("prompt")] == ["", "answer@1", "answer@2"]
    assert {row.name for row in ledger.rows("user")} == {"", "Ada"}
    for by in GROUPINGS:
        assert math.fsum(row.spending.cost_usd for row in ledger.rows(by)) == pytest.approx(0.56)
    assert ledger.total(since=NOON + 86_400).cost_usd == pytest.approx(0.03)
    assert ledger.total(until=NOON + 86_400).calls == 4


def test_expenses_are_known_by_their_subject(ledger: Ledger) -> None:
    ledger.add(
        Expense("judging", "run-1", "judge", "m", "2026-03-01", 0.5, input_tokens=7),
        Expense("judging", "run-1", "judge", "m", "2026-03-01", None),
        Expense("evaluation", "run-1", "cached answer", "m", "2026-03-01", 0.0, saved_usd=0.25),
        Expense("training", "run-2", "train", "m", "2026-03-01", 3.0, seconds=9.0),
    )
    spent = ledger.spent_on("run-1")
    assert spent == Spending(calls=3, unknown=1, input_tokens=7, cost_usd=0.5, saved_usd=0.25)
    assert ledger.total() == spent + ledger.spent_on("run-2")


COSTS = st.one_of(st.none(), st.floats(0, 10, allow_nan=False))


@given(st.lists(st.tuples(st.lists(COSTS, min_size=1, max_size=5), st.integers(0, 72)), max_size=6))
def test_it_adds_up_for_any_traces(tmp_path_factory: pytest.TempPathFactory, costs: list[Any]) -> None:
    engine = open_database(open_workspace(tmp_path_factory.mktemp("ledger")))
    store, total = TraceStore(engine), Spending()
    for number, (leaves, hours) in enumerate(costs):
        root = Span(f"{number}", None, 0, "answer", "chain", "ok", NOON, NOON + 1)
        spans = [
            Span(f"{number}-{at}", root.id, at + 1, f"step {at}", "llm", "ok", NOON, NOON + 1, cost_usd=cost)
            for at, cost in enumerate(leaves)
        ]
        trace = Trace(f"trace-{number}", NOON + hours * 3600, "ok", spans=(root, *spans))
        store.save(trace)
        total += spending_of(trace)
    found = Ledger(engine)
    for by in GROUPINGS:
        rows = found.rows(by)
        assert sum(row.spending.unknown for row in rows) == total.unknown
        assert math.fsum(row.spending.cost_usd for row in rows) == pytest.approx(total.cost_usd)
    engine.dispose()


# A mixed session


@pytest.fixture
def app(ready_workspace: Workspace, isolated_wandb: None) -> Iterator[App]:
    changes = {"tracking": {"wandb": "offline"}, "cost": {"machine_usd_per_hour": 36.0}}
    opened = open_app(settings_at(ready_workspace.root, **changes))
    opened.stores.ingest(CORPUS, [written(ready_workspace.root / "pages", PAGES)])
    yield opened
    opened.close()


async def cached_twice(app: App) -> None:
    """Ask a model twice whose second answer comes from LangChain's cache."""
    from test_tracing import ScriptedModel

    model = ScriptedModel(cache=InMemoryCache())
    chain = (RunnableLambda(str) | model).with_config(run_name="answer")
    tracer = TraceTracer(app.stores.traces.save, load_prices(CostSettings()))
    for _ in range(2):
        await chain.ainvoke("q", {"callbacks": [tracer], "metadata": {"model": "openai:gpt-4o"}})


def leaf_cost(engine: Engine) -> float:
    """What the leaf spans in the database cost, added without the ledger."""
    query = text(
        "SELECT s.cost_usd FROM spans s WHERE NOT EXISTS (SELECT 1 FROM spans c WHERE c.parent_id = s.id)"
    )
    with reading(engine) as connection:
        return math.fsum(cost or 0.0 for cost in connection.scalars(query))


async def test_ledger_spans_and_wandb_agree_on_a_mixed_session(app: App) -> None:
    said = "The tide gauge was installed in 1871 by Ida Brandt. [1]"
    await answered_by(app, says(said), "gpt-4o-mini")
    with scripted_openai(scripts([refuses(500, "busy"), says(said)])) as server:
        await answered(assistant_for(app, settings_for(server.base_url, "gpt-4o", max_retries=1)), QUESTION)
    await answered_by(app, refuses(400, "no"), "gpt-4o")
    await answered_by(app, says(said), "nobody-knows-its-price")
    with scripted_openai(lambda reply, _: (reply.head(), reply.drip("word ", 0.01))[0]) as server:  # type: ignore[func-returns-value]
        await stopped_after(3, assistant_for(app, settings_for(server.base_url, "gpt-4o")).start(asked()))
    await answered(app, QUESTION)
    await cached_twice(app)
    app.tracking.start()
    app.tracking.close()

    run = only_run(app.workspace)
    ledger = app.stores.ledger
    traced = ledger.total() + minus(ledger.spent_on(CORPUS))
    assert traced.cost_usd == pytest.approx(leaf_cost(app.stores.engine), abs=CENT / 100)
    # The summary of the day's run has everything of the day, also what ingestion has cost.
    today = ledger.total(day_start(date.today()))
    assert today.cost_usd == pytest.approx(traced.cost_usd + ledger.spent_on(CORPUS).cost_usd)
    assert run.summary["cost/total_usd"] == pytest.approx(today.cost_usd, abs=CENT / 100)
    assert run.summary["cost/saved_usd"] == pytest.approx(traced.saved_usd)
    assert run.summary["cost/unknown_calls"] == today.unknown == traced.unknown == 3
    assert run.summary["day/input_tokens"] == today.input_tokens
    assert run.summary["day/questions"] == len(run.trees)
    assert len(run.summary_keys) <= 30
    assert traced.cost_usd > CENT / 10
    assert traced.saved_usd > 0
    # The page and the command read the same sums.
    assert {row.name for row in ledger.rows("model")} >= {"extractive", "openai:gpt-4o", "openai:gpt-4o-mini"}
    assert ledger.spent_on(CORPUS).seconds > 0


def asked() -> Any:
    from rag.types import Ask

    return Ask(QUESTION)


def minus(spending: Spending) -> Spending:
    from rag.tracing.ledger import AMOUNTS

    return Spending(*(-getattr(spending, name) for name in AMOUNTS))
