"""Traces as files: written and read back equal, stored once, and checked line by line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine

from rag.database import open_database
from rag.errors import TraceFileError
from rag.tracing.trace_archive import import_traces, read_traces, write_traces
from rag.tracing.trace_store import Feedback, Span, Trace, TraceStore
from rag.workspace import open_workspace

SPAN = Span(
    "s1", None, 0, "answer", "chain", "ok", 1.0, 2.0, {"q": ["ä\u2028", None]}, {"a": 1.5}, attributes={"n": 1}
)
TRACE = Trace("trace-1", 1.0, "ok", "Why?", "So.", latency_s=1.0, cost_usd=0.25, spans=(SPAN,), process="h:1:1")
RATED = replace(TRACE, id="trace-2", feedback=Feedback("down", "no", 5.0), spans=(replace(SPAN, id="s2"),))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(open_workspace(tmp_path / "home"))
    yield engine
    engine.dispose()


@pytest.mark.parametrize("name", ["traces.jsonl", "traces.jsonl.gz"])
def test_traces_are_read_back_as_they_were_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert write_traces(path, [TRACE, RATED]) == 2
    assert list(read_traces(path)) == [TRACE, RATED]
    before = path.read_bytes()
    write_traces(path, [TRACE, RATED])
    assert path.read_bytes() == before


def test_imported_traces_keep_their_ids_and_a_repeat_changes_nothing(tmp_path: Path, engine: Engine) -> None:
    path = tmp_path / "traces.jsonl"
    running = replace(TRACE, id="trace-3", status="running", spans=())
    write_traces(path, [TRACE, RATED, running])
    store = TraceStore(engine)
    assert import_traces(path, store) == (3, 0)
    waiting = replace(RATED.feedback, review="pending")
    assert store.get("trace-2") == replace(RATED, tracked="off", feedback=waiting)
    assert store.get("trace-3").status == "interrupted"
    store.rate("trace-1", "up")
    assert import_traces(path, store) == (0, 3)
    assert store.get("trace-1").feedback is not None
    assert store.undelivered(10) == ()


LINE = json.dumps({"id": "t", "started": 1.0, "status": "ok"})


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([LINE, "{"], "line 2: this is no trace"),
        ([LINE, "[]"], "line 2: this is no trace"),
        ([LINE, '{"id": "u", "started": "soon", "status": "ok"}'], "line 2: this is no trace: started"),
        ([LINE, '{"id": "u", "started": 1, "status": "great"}'], "line 2: this is no trace: status"),
        (
            [LINE, '{"id": "u", "started": 1, "status": "ok", "spans": [{}]}'],
            "line 2: this is no trace: spans.0.id",
        ),
        ([LINE, "", LINE], "line 3: the trace t is on line 1, too"),
        (['{"id": "", "started": 1, "status": "ok"}'], "line 1: the id of a trace must have 1 to 36"),
        ([LINE, "\udcff"], "line 2: this is no trace"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_stored(
    tmp_path: Path, engine: Engine, lines: list[str], said: str
) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    store = TraceStore(engine)
    with pytest.raises(TraceFileError, match=said):
        import_traces(path, store)
    assert store.list(limit=1).total == 0


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceFileError, match=r"must end in \.jsonl"):
        write_traces(tmp_path / "traces.csv", [])
    with pytest.raises(TraceFileError, match="cannot be written"):
        write_traces(tmp_path / "no" / "traces.jsonl", [])
    with pytest.raises(TraceFileError, match="cannot be read"):
        list(read_traces(tmp_path / "none.jsonl"))
    broken = tmp_path / "broken.jsonl.gz"
    write_traces(broken, [TRACE])
    broken.write_bytes(broken.read_bytes()[:-12])
    with pytest.raises(TraceFileError, match="cannot be read"):
        list(read_traces(broken))
    broken.write_bytes(b"plain")
    with pytest.raises(TraceFileError, match="cannot be read"):
        list(read_traces(broken))
