"""The thread that writes traces: nobody waits for it, and nothing is lost while the database is away."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from sqlalchemy import Connection, Engine, exc

from rag.errors import DatabaseError
from rag.tracing import trace_writer
from rag.tracing.trace_writer import TraceWriter


class Book:
    """A database that is slow, away or choosy on demand."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.slow_s = 0.0
        self.away = False
        self.bad: set[int] = set()

    @property
    def written(self) -> list[int]:
        return [item for batch in self.batches for item in batch]

    def write(self, _connection: Connection, items: Sequence[int]) -> None:
        time.sleep(self.slow_s)
        if self.away:
            raise exc.OperationalError("", {}, Exception("disk I/O error"))
        if self.bad.intersection(items):
            raise exc.IntegrityError("", {}, Exception("no such trace"))
        self.batches.append(list(items))


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def writer(engine: Engine, book: Book, monkeypatch: pytest.MonkeyPatch) -> Iterator[TraceWriter[int]]:
    monkeypatch.setattr(trace_writer, "RETRY_S", 0.02)
    opened = TraceWriter(engine, book.write)
    yield opened
    opened.close()


def test_items_are_written_in_order_in_few_transactions(writer: TraceWriter[int], book: Book) -> None:
    for item in range(1000):
        writer.put(item)
    assert writer.wait(timeout_s=5)
    assert book.written == list(range(1000))
    assert len(book.batches) < 20


def test_a_slow_disk_is_waited_for_no_longer_than_asked(writer: TraceWriter[int], book: Book) -> None:
    book.slow_s = 0.3
    started = time.perf_counter()
    number = writer.put(1)
    assert not writer.wait(number, timeout_s=0.002)
    assert time.perf_counter() - started < 0.1
    assert writer.wait(number, timeout_s=5)
    assert book.written == [1]


def test_an_item_that_the_database_never_takes_costs_no_other(
    engine: Engine, book: Book, caplog: pytest.LogCaptureFixture
) -> None:
    writer = TraceWriter(engine, book.write, lambda item, _error: -item)
    book.bad = {2}
    for item in (1, 2, 3):
        writer.put(item)
    assert writer.wait(timeout_s=5)
    writer.close()
    assert book.written == [1, -2, 3]
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "A part of a trace cannot be stored"
    ]


def test_what_is_put_while_the_database_is_away_is_written_later(
    writer: TraceWriter[int], book: Book, caplog: pytest.LogCaptureFixture
) -> None:
    book.away = True
    writer.put(0)
    while writer.refusal is None:
        time.sleep(0.005)
    assert isinstance(writer.refusal, DatabaseError)
    for item in range(1, 10):
        # Nobody waits for what cannot be written now.
        assert not writer.wait(writer.put(item), timeout_s=60)
    time.sleep(0.1)
    book.away = False
    with caplog.at_level(logging.WARNING):
        while writer.refusal is not None:
            time.sleep(0.005)
        assert writer.wait(timeout_s=5)
    assert book.written == list(range(10))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "disk I/O error" in said[0]
    assert "takes traces again" in said[1]


def test_closing_writes_the_rest_and_says_what_is_lost(
    writer: TraceWriter[int], book: Book, caplog: pytest.LogCaptureFixture
) -> None:
    book.slow_s = 0.05
    for item in range(3):
        writer.put(item)
    writer.close()
    assert book.written == [0, 1, 2]
    book.away = True
    writer.put(3)
    writer.close()
    assert "1 writes of traces are lost" in caplog.text
    book.away = False


def test_the_thread_ends_without_work_and_starts_again(
    writer: TraceWriter[int], book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    def threads() -> int:
        return sum(thread.name == "ragsmith-traces" for thread in threading.enumerate())

    before = threads()
    monkeypatch.setattr(trace_writer, "IDLE_S", 0.01)
    for item in range(3):
        writer.put(item)
        assert threads() == before + 1
        assert writer.wait(timeout_s=5)
        while threads() > before:
            time.sleep(0.005)
    assert book.written == [0, 1, 2]
