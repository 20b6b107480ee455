"""A budget warns before it is spent, and refuses after, in one sentence that says what to raise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from live_server import running
from scripted_app import ScriptedApp
from sqlalchemy import Engine
from terminal import call
from tiny import CORPUS, QUESTION, answered, open_tiny

from rag.encoders import Encoder
from rag.errors import BudgetSpent
from rag.settings import CostSettings, Settings
from rag.tracing.budget import NoBudget, open_budget
from rag.tracing.ledger import Expense, Ledger
from rag.tracing.trace_store import Trace, TraceStore
from ui.app.app import App


def spend(ledger: Ledger, usd: float, **fields: float) -> None:
    ledger.add(Expense("judging", "run", "judge", "m", "2026-03-01", usd, **fields))


@pytest.fixture
def ledger(engine: Engine) -> Ledger:
    return Ledger(engine)


def test_without_a_budget_nothing_is_refused_or_read(ledger: Ledger) -> None:
    assert isinstance(open_budget(ledger, CostSettings()), NoBudget)


def test_a_day_warns_at_four_fifths_and_refuses_when_it_is_spent(ledger: Ledger) -> None:
    budget = open_budget(ledger, CostSettings(day_usd=5.0))
    # Yesterday does not count.
    spend(ledger, 100.0, at=1_700_000_000.0)
    spend(ledger, 3.99)
    budget.check()
    assert budget.warning() == ""
    spend(ledger, 0.01)
    budget.spent()
    assert budget.warning() == "today's budget: $4.00 of $5.00 spent"
    budget.check()
    spend(ledger, 1.5)
    budget.spent()
    with pytest.raises(BudgetSpent) as raised:
        budget.check()
    assert str(raised.value) == (
        "The budget of the day is spent: $5.50 of $5.00. Raise the setting cost.day_usd, or ask again tomorrow."
    )


def test_a_conversation_has_a_budget_of_its_own(ledger: Ledger, store: TraceStore) -> None:
    budget = open_budget(ledger, CostSettings(session_usd=0.5, warn_at=0.5))
    store.save(Trace("trace-1", 1.7e9, "ok", cost_usd=0.3, conversation_id="talk"))
    budget.check("talk")
    assert budget.warning("talk") == "budget of this conversation: $0.3000 of $0.5000 spent"
    store.save(Trace("trace-2", 1.7e9, "ok", cost_usd=0.3, conversation_id="talk"))
    with pytest.raises(BudgetSpent, match=r"\$0.6000 of \$0.5000\. Raise the setting cost.session_usd"):
        budget.check("talk")
    for other in ("another", "", None):
        budget.check(other)
        assert budget.warning(other) == ""


def test_the_day_is_read_at_most_once_a_second(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = open_budget(ledger, CostSettings(day_usd=5.0))
    read: list[float] = []
    total = ledger.total
    monkeypatch.setattr(ledger, "total", lambda since: (read.append(since), total(since))[1])
    for _ in range(50):
        budget.check()
    assert len(read) == 1
    budget.spent()
    budget.check()
    assert len(read) == 2


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, converted_models: Path, encoder: Encoder) -> Iterator[App]:
    home = tmp_path_factory.mktemp("budget")
    made = open_tiny(home, converted_models, encoder=encoder, cost={"day_usd": 1.0, "machine_usd_per_hour": 0.001})
    yield made
    made.close()


async def test_an_answer_carries_the_warning_and_a_spent_budget_asks_no_model(tiny: App) -> None:
    assert (await answered(tiny, QUESTION)).notes == ()
    spend(tiny.stores.ledger, 0.9)
    tiny.releases.budget.spent()
    warned = await answered(tiny, QUESTION)
    assert warned.notes == ("today's budget: $0.9000 of $1.00 spent",)
    spend(tiny.stores.ledger, 0.2)
    tiny.releases.budget.spent()
    before = tiny.stores.traces.list(limit=1).total
    refused = await answered(tiny, QUESTION)
    assert (refused.status, refused.trace_id) == ("failed", "")
    assert refused.error.startswith("The budget of the day is spent: $1.10 of $1.00.")
    assert tiny.stores.traces.list(limit=1).total == before


def test_the_command_refuses_with_one_sentence(harbour: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSMITH_COST__DAY_USD", "0.000000001")
    monkeypatch.setenv("RAGSMITH_COST__MACHINE_USD_PER_HOUR", "5")
    call(harbour, "ask", "--corpus", CORPUS, QUESTION)
    result = call(harbour, "ask", "--corpus", CORPUS, QUESTION)
    assert result.exit_code == 1
    assert "The budget of the day is spent" in result.stderr
    assert "Raise the setting cost.day_usd" in result.stderr
    assert "Traceback" not in result.output


def test_the_api_refuses_as_openai_does(tmp_path: Path) -> None:
    app = ScriptedApp(tmp_path, Settings(cost={"day_usd": 0.5}))
    spend(app.stores.ledger, 0.6)
    body = {"model": "ragsmith", "messages": [{"role": "user", "content": "What is a passage?"}]}
    with running(app) as address:
        refused = httpx.post(f"{address}/v1/chat/completions", json=body)
    app.close()
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
    assert "cost.day_usd" in error["message"]
    assert not app.asked
