"""A thread that writes to the database, so that no answer waits for a slow disk.

Items wait in a queue for a moment, and many of them share a transaction. While the database refuses, they stay in
the queue and the thread tries again; an item that the database will never take is dropped, with a line in the log.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from sqlalchemy import Connection, Engine, exc

from rag.database import writing
from rag.errors import RagsmithError

# Items gather for this long, so that the steps of an answer share a transaction.
GATHER_S = 0.05
# Maximum items of a transaction.
BATCH = 500
# Seconds until a thread without work ends.
IDLE_S = 5.0
# Seconds between attempts while the database refuses.
RETRY_S = 1.0
# Attempts for an item that the database refuses, if nothing else is written meanwhile.
ATTEMPTS = 600

_log = logging.getLogger(__name__)

T = TypeVar("T")


class TraceWriter(Generic[T]):
    """Writes items in the order in which they were put; safe to use from several threads.

    Args:
        engine: The database.
        write: Writes items in a transaction, all or none.
        instead: Returns what to write instead of an item that the database does not take; None for nothing.
    """

    def __init__(
        self,
        engine: Engine,
        write: Callable[[Connection, Sequence[T]], None],
        instead: Callable[[T, RagsmithError], T | None] = lambda _item, _error: None,
    ) -> None:
        self._engine = engine
        self._write = write
        self._instead = instead
        self._queue: deque[T] = deque()
        self._changed = threading.Condition()
        self._put = self._done = 0
        self._attempts = 0
        self._urgent = self._closing = self._registered = False
        self._thread: threading.Thread | None = None
        self._refusal: RagsmithError | None = None

    @property
    def refusal(self) -> RagsmithError | None:
        """Why the database refused the last attempt to write; None if it did not."""
        return self._refusal

    def put(self, item: T) -> int:
        """Add an item to the queue, and return its number for ``wait``."""
        with self._changed:
            self._queue.append(item)
            self._put += 1
            if self._thread is None:
                self._start()
                if not self._registered:
                    atexit.register(self.close)
                    self._registered = True
            # While the thread gathers, waking it for every item would only interrupt the answer.
            if len(self._queue) in (1, BATCH):
                self._changed.notify_all()
            return self._put

    def wait(self, number: int | None = None, *, timeout_s: float) -> bool:
        """Wait until an item and all before it are written or dropped.

        Args:
            number: The number of the item; None for the last one.
            timeout_s: Maximum seconds; while the database refuses, there is no wait.

        Returns:
            Whether they are.
        """
        with self._changed:
            wanted = self._put if number is None else number
            if self._done < wanted and self._refusal is None:
                self._urgent = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._done >= wanted or self._refusal is not None, timeout_s)
            return self._done >= wanted

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what waits, within ``timeout_s`` seconds, and end the thread; later items start another one."""
        with self._changed:
            thread, self._closing = self._thread, True
            self._changed.notify_all()
        if thread is not None:
            thread.join(timeout_s)
        with self._changed:
            self._closing = False
            left = len(self._queue)
        if left:
            _log.error("%d writes of traces are lost: %s", left, self._refusal or "the database takes too long.")
        atexit.unregister(self.close)
        self._registered = False

    def _start(self) -> None:
        # A daemon, so that a database that does not answer does not keep the process alive.
        self._thread = threading.Thread(target=self._work, name="ragsmith-traces", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while self._next_batch():
            self._write_some()
            if self._refusal is None:
                continue
            with self._changed:
                if self._closing:
                    break
                self._changed.wait_for(lambda: self._closing, RETRY_S)
        with self._changed:
            self._thread = None
            # Put after the last look, by someone who saw this thread.
            if self._queue and not self._closing:
                self._start()

    def _next_batch(self) -> bool:
        """Wait for items; return False if none came or the writer closes and has none left."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing, IDLE_S)
            if not self._queue:
                return False
            if self._refusal is None:
                self._changed.wait_for(
                    lambda: self._urgent or self._closing or len(self._queue) >= BATCH, GATHER_S
                )
            self._urgent = False
            return True

    def _write_some(self) -> None:
        batch = [self._queue[place] for place in range(min(len(self._queue), BATCH))]
        error = self._attempt(batch)
        if error is None:
            self._advance(len(batch))
        elif _refuses_all(error):
            self._write_alone(batch[0], error)
        else:
            # One of them is at fault, and the others are not to suffer from it.
            for item in batch:
                if not self._write_alone(item):
                    break

    def _write_alone(self, item: T, error: RagsmithError | None = None) -> bool:
        """Write an item, or drop one that can never be written; return False if the database refuses."""
        error = error or self._attempt([item])
        if error is not None and _refuses_all(error) and self._attempts < ATTEMPTS:
            self._refuse(error)
            return False
        if error is not None:
            _log.error("A part of a trace cannot be stored: %s", error)
            if (other := self._instead(item, error)) is not None:
                self._attempt([other])
        self._advance(1)
        return True

    def _attempt(self, items: Sequence[T]) -> RagsmithError | None:
        try:
            with writing(self._engine) as connection:
                self._write(connection, items)
        except RagsmithError as error:
            return error
        except Exception as error:  # noqa: BLE001 - the thread must go on with the other items
            return RagsmithError(f"{type(error).__name__}: {error}")
        return None

    def _advance(self, count: int) -> None:
        with self._changed:
            for _ in range(count):
                self._queue.popleft()
            self._done += count
            self._attempts = 0
            if self._refusal is not None:
                _log.warning("The database takes traces again; %d writes had to wait.", len(self._queue) + count)
                self._refusal = None
            self._changed.notify_all()

    def _refuse(self, error: RagsmithError) -> None:
        with self._changed:
            self._attempts += 1
            if self._refusal is None:
                _log.error("Traces wait to be stored: %s", error)
            self._refusal = error
            self._changed.notify_all()


def _refuses_all(error: RagsmithError) -> bool:
    """Whether the database refuses every write now: it is locked, full, read-only or away."""
    return isinstance(error.__cause__, exc.OperationalError | exc.InterfaceError)
