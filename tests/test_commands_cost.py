"""`ragsmith cost` shows what was spent, in groups that add up."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine
from terminal import assert_one_line, call, one_object

from rag.errors import FilterError
from rag.tracing.ledger import Expense, Ledger
from rag.tracing.moments import parse_moment
from rag.tracing.trace_store import Span, Trace, TraceStore
from rag.workspace import Workspace

DAY = 86_400.0


@pytest.fixture
def spent(engine: Engine, workspace: Workspace) -> Path:
    """A workspace that has spent 0.75 dollars today and 2 dollars ten days ago."""
    now = time.time()
    leaf = Span("s", None, 0, "generate", "llm", "ok", now, now + 1, cost_usd=0.25, input_tokens=1200)
    TraceStore(engine).save(Trace("t", now, "ok", model="openai:gpt-4o", prompt="answer@3", spans=(leaf,)))
    Ledger(engine).add(
        Expense("judging", "run", "judge", "openai:judge", "2026-03-01", 0.5, saved_usd=0.125),
        Expense("judging", "run", "judge", "openai:odd", "2026-03-01", None),
        Expense("training", "run", "train", "minilm", "2026-03-01", 2.0, seconds=7200, at=now - 10 * DAY),
    )
    return workspace.root


def test_the_table_ends_with_a_total_and_counts_what_is_unknown(spent: Path) -> None:
    shown = call(spent, "cost", "--by", "model")
    lines = shown.stdout.splitlines()
    assert lines[0].split() == "model calls tokens in out cached machine cost saved unknown".split()
    assert [line.split()[0] for line in lines[1:]] == [
        "minilm",
        "openai:judge",
        "openai:gpt-4o",
        "openai:odd",
        "total",
    ]
    assert lines[-1].split()[1:] == ["4", "1,200", "0", "0", "2", "h", "0", "min", "$2.75", "$0.1250", "1"]
    assert shown.stderr.startswith("1 call of unknown cost: add the model to a price list")


def test_json_has_the_same_rows_for_a_time(spent: Path) -> None:
    told = one_object(call(spent, "cost", "--by", "purpose", "--since", "today", "--until", "today", "--json"))
    assert [row["name"] for row in told["rows"]] == ["judging", "chat"]
    assert (told["total"]["cost_usd"], told["total"]["unknown"], told["total"]["saved_usd"]) == (0.75, 1, 0.125)
    old = one_object(call(spent, "cost", "--until", "7d", "--json"))
    assert (len(old["rows"]), old["total"]["seconds"]) == (1, 7200)


def test_nothing_spent_says_so(workspace: Workspace) -> None:
    assert call(workspace.root, "cost").stdout == "Nothing was spent yet.\n"


def test_a_time_that_is_none_is_refused_on_one_line(workspace: Workspace) -> None:
    assert_one_line(call(workspace.root, "cost", "--since", "last week"), "'last week' is not a time", "Use a day")


def test_typed_times() -> None:
    now = parse_moment("2026-11-03 14:30", 0)
    midnight = parse_moment("2026-11-03", now)
    assert now - midnight == 14.5 * 3600
    assert parse_moment("today", now) == midnight
    assert parse_moment("Yesterday", now, end=True) == midnight
    assert parse_moment("36 h", now) == now - 36 * 3600
    assert parse_moment("2w", now) == now - 14 * DAY


@given(st.text(max_size=20))
def test_any_text_is_a_time_or_an_error(typed: str) -> None:
    with suppress(FilterError):
        assert isinstance(parse_moment(typed, 1.8e9), float)
