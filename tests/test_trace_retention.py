"""Old traces are deleted by age and size, with the texts that only they have."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select
from terminal import call
from test_traces import trace_of

from rag.database import open_database, reading
from rag.settings import Settings, TracingSettings
from rag.tables import metadata
from rag.trace_tables import contents, feedback, trace_passages
from rag.tracing.trace_retention import Pruned, Retention, prune
from rag.tracing.trace_store import Trace, TraceStore
from rag.workspace import Workspace, open_workspace
from ui.app.pruning import DailyPruning
from ui.app.stores import Stores

SHARED = "A passage of several traces. " * 40


@pytest.fixture
def engine(either_engine: Engine) -> Engine:
    """The same on SQLite and PostgreSQL."""
    return either_engine


def aged(number: int, days: float, **changes: object) -> Trace:
    trace = trace_of(number, started=time.time() - days * 86_400, **changes)
    own = f"Only of trace {number}. " * 60
    return replace(trace, spans=(trace.spans[0], replace(trace.spans[1], input=[SHARED, own])))


@pytest.fixture
def aged_store(store: TraceStore) -> TraceStore:
    """Traces of 0 to 9 days; those of 8 and 3 days are rated, and the one of 9 days is still running."""
    for days in range(10):
        store.save(aged(days, days + 0.5, status="running" if days == 9 else "ok"))
    for days in (8, 3):
        store.rate(trace_of(days).id, "down")
    return store


def left(store: TraceStore) -> list[str]:
    return [trace.id[-1] for trace in store.list(limit=20).traces]


@pytest.mark.parametrize(
    ("retention", "kept"),
    [
        (Retention(days=5), "012349"),
        (Retention(days=5, keep_rated=True), "0123489"),
        # A trace takes about three kilobytes: two spans, its own text and its row.
        (Retention(megabytes=0.01), "0129"),
        (Retention(days=2, megabytes=0.01), "019"),
        (Retention(megabytes=1), "0123456789"),
        (Retention(), "0123456789"),
    ],
)
def test_what_is_too_old_or_too_much_is_deleted(
    aged_store: TraceStore, engine: Engine, retention: Retention, kept: str
) -> None:
    gone = 10 - len(kept)
    assert prune(engine, retention, dry_run=True) == Pruned(gone)
    assert len(left(aged_store)) == 10
    assert prune(engine, retention) == Pruned(gone, gone)
    assert left(aged_store) == list(kept)
    assert prune(engine, retention) == Pruned(0, 0)
    # The others are whole.
    trace = aged_store.get(trace_of(0).id)
    assert trace.spans[1].input == aged(0, 0).spans[1].input
    with reading(engine) as connection:
        assert connection.scalar(select(func.count()).select_from(contents)) == len(kept) + 1
        assert connection.scalar(select(func.count()).select_from(trace_passages)) == 2 * len(kept)
        assert connection.scalar(select(func.count()).select_from(feedback)) == len(set("83") & set(kept))


def test_when_all_are_deleted_nothing_of_them_is_left(store: TraceStore, engine: Engine) -> None:
    store.save(aged(0, 2))
    store.rate(trace_of(0).id, "up")
    assert prune(engine, Retention(days=1)) == Pruned(1, 2)
    with reading(engine) as connection:
        for table in ("traces", "spans", "contents", "trace_contents", "trace_passages", "feedback"):
            assert connection.scalar(select(func.count()).select_from(metadata.tables[table])) == 0, table


def test_the_command_asks_and_the_settings_say_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = open_workspace(tmp_path / "home").root
    engine = open_database(Workspace(home))
    for days in range(4):
        TraceStore(engine).save(aged(days, days + 0.5))
    engine.dispose()
    nothing_said = call(home, "traces", "prune")
    assert (nothing_said.exit_code, "Pass --older-than DAYS" in nothing_said.stderr) == (1, True)
    assert call(home, "traces", "prune", "--older-than", "2", "--dry-run").stdout == "2 traces would be deleted.\n"
    assert "pass --yes" in call(home, "traces", "prune", "--older-than", "2").stderr
    assert call(home, "traces", "prune", "--older-than", "2", "--yes").stdout == "Deleted 2 traces and 2 texts.\n"
    monkeypatch.setenv("RAGSMITH_TRACING__KEEP_DAYS", "1")
    assert call(home, "traces", "prune", "--yes").stdout == "Deleted 1 trace and 1 text.\n"
    assert call(home, "traces", "prune", "--yes").stdout == "There is nothing to delete.\n"


def test_a_server_deletes_at_its_start(workspace: Workspace, store: TraceStore, engine: Engine) -> None:
    url = engine.url.render_as_string(hide_password=False)
    for days in range(4):
        store.save(aged(days, days + 0.5))
    stores = Stores(Settings(home=workspace.root, database_url=url), workspace)
    pruning = DailyPruning(TracingSettings(keep_days=2), stores)
    pruning.start()
    until = time.monotonic() + 10
    while len(left(store)) > 2 and time.monotonic() < until:
        time.sleep(0.01)
    pruning.close()
    stores.close()
    assert left(store) == ["0", "1"]
