"""Batching of generation requests, in a worker thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from rag.errors import ModelError, ModelUnavailable, first_line
from rag.models.local.token_sampling import GREEDY, Sampling
from rag.models.local.token_text import StopFilter, TextStream

Ending = Literal["stop", "length"]

_CLOSING_S = 30.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """A request for one answer.

    Attributes:
        prompt: Token ids, at least one.
        max_tokens: Maximum number of new tokens.
        sampling: Sampling of the tokens.
        stops: Texts that end the answer; they are not part of it.
        adapter: Folder of the adapter; empty for the base model.
    """

    prompt: tuple[int, ...]
    max_tokens: int
    sampling: Sampling = GREEDY
    stops: tuple[str, ...] = ()
    adapter: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer.

    Attributes:
        text: Text of the piece; may be empty.
        read, written: Prompt and answer tokens that this piece adds to the count. Every generated token is
            counted, including the end token.
        ending: Reason of the end, in the last piece: ``stop`` for an end token or stop text, ``length`` for the
            token limit.
    """

    text: str = ""
    read: int = 0
    written: int = 0
    ending: Ending | None = None


Sink = Callable[[Piece | ModelError], None]


class Row:
    """A pending or running request, a row of its batch.

    Everything but ``cancel`` is called by the worker thread.

    Args:
        request: The request.
        decode: Decodes token ids to text, without special tokens.
        ends: Tokens that end an answer.
        sink: Receives the pieces, or an error instead of the last one. An exception in it ends the row.
    """

    def __init__(
        self, request: Request, decode: Callable[[list[int]], str], ends: frozenset[int], sink: Sink
    ) -> None:
        self.request = request
        self._text = TextStream(decode)
        self._stops = StopFilter(request.stops)
        self._ends = ends
        self._sink = sink
        self._generated = 0
        self._counted = 0
        self._over = threading.Event()

    @property
    def over(self) -> bool:
        """Whether the row is finished or cancelled."""
        return self._over.is_set()

    def cancel(self) -> None:
        """Cancel the row; may be called from any thread, repeatedly."""
        self._over.set()

    def begin(self) -> None:
        """Report the prompt tokens when the model starts reading."""
        self._send(Piece(read=len(self.request.prompt)))

    def take(self, token: int) -> bool:
        """Add a generated token, and return whether the row is over."""
        if self.over:
            return True
        self._generated += 1
        if token in self._ends:
            self.finish("stop")
            return True
        text, stopped = self._stops.add(self._text.add(token))
        if stopped:
            self._last(text, "stop")
        elif self._generated >= self.request.max_tokens:
            self._last_with_rest(text, "length")
        elif text:
            self._send(Piece(text, written=self._uncounted()))
        return self.over

    def finish(self, ending: Ending) -> None:
        """End the row with the buffered text; no effect when it is over."""
        self._last_with_rest("", ending)

    def fail(self, error: ModelError) -> None:
        """End the row with an error; no effect when it is over."""
        self._send(error)
        self._over.set()

    def _last_with_rest(self, text: str, ending: Ending) -> None:
        rest, stopped = self._stops.add(self._text.rest())
        if stopped:
            self._last(text + rest, "stop")
        else:
            self._last(text + rest + self._stops.rest(), ending)

    def _last(self, text: str, ending: Ending) -> None:
        self._send(Piece(text, written=self._uncounted(), ending=ending))
        self._over.set()

    def _uncounted(self) -> int:
        new, self._counted = self._generated - self._counted, self._generated
        return new

    def _send(self, piece: Piece | ModelError) -> None:
        if self.over:
            return
        try:
            self._sink(piece)
        except Exception as error:  # noqa: BLE001 - a failing listener must not end the batch of others
            _log.debug("The listener of an answer failed: %s", error)
            self._over.set()


class Backend(Protocol):
    """A text generation backend.

    Attributes:
        runtime: Description of runtime and device for users.
        continuous: Whether rows may join a running batch, each with its own sampling.
    """

    runtime: str
    continuous: bool

    def run(self, rows: Sequence[Row], more: Callable[[int], Sequence[Row]]) -> None:
        """Generate tokens for all rows until they are over.

        The rows share the adapter. Unless the backend is continuous, they share the sampling too, and a seeded row
        is the only one.

        Args:
            rows: The rows, at least one.
            more: Returns rows that join, given the number of rows that are running.

        Raises:
            ModelError: The generation failed.
        """
        ...

    def close(self) -> None:
        """Release the memory."""
        ...


class Batcher:
    """Runs pending rows in batches of compatible rows, oldest first.

    A row that is submitted while a batch is running joins it if the backend is continuous; otherwise
    it waits for the next one.

    Args:
        backend: The backend, used by the worker thread only.
        max_batch: Maximum rows of a batch.
    """

    def __init__(self, backend: Backend, max_batch: int) -> None:
        self._backend = backend
        self._max_batch = max_batch
        self._waiting: list[Row] = []
        self._running: list[Row] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="local model", daemon=True)
        self._thread.start()

    def submit(self, row: Row) -> None:
        """Queue a row.

        Raises:
            ModelUnavailable: The batcher is closed.
        """
        with self._changed:
            if self._closed:
                raise _closed()
            self._waiting.append(row)
            self._changed.notify()

    def close(self) -> None:
        """End all running and pending rows, and close the backend."""
        with self._changed:
            self._closed = True
            rows = [*self._running, *self._waiting]
            self._changed.notify()
        for row in rows:
            row.fail(_closed())
        self._thread.join(_CLOSING_S)

    def _work(self) -> None:
        while rows := self._next():
            try:
                for row in rows:
                    row.begin()
                self._backend.run(rows, self._more)
                failure = ModelError("The local model ended without an answer.", fix="Ask again.")
            except ModelError as error:
                failure = error
            except Exception as error:  # noqa: BLE001 - the thread must survive any failure of a model
                _log.exception("The local model failed")
                failure = ModelError(
                    f"The local model failed: {type(error).__name__}: {first_line(error)}.",
                    fix="Ask again; if it fails again, choose another model, local.device or local.dtype.",
                )
            for row in self._running:
                row.fail(failure)
        self._backend.close()

    def _next(self) -> list[Row]:
        """Wait for the next batch; empty when the batcher is closed."""
        with self._changed:
            self._running = []
            while True:
                self._waiting = [row for row in self._waiting if not row.over]
                if self._closed:
                    return []
                if self._waiting:
                    break
                self._changed.wait()
            kind = self._kind(self._waiting[0])
            fitting = [row for row in self._waiting if self._kind(row) == kind]
            self._running = fitting[: self._max_batch]
            self._waiting = [row for row in self._waiting if row not in self._running]
            return self._running

    def _more(self, running: int) -> list[Row]:
        """Take the rows that join the running batch, from the head of the queue so that no row waits forever."""
        joining: list[Row] = []
        with self._changed:
            kind = self._kind(self._running[0])
            while self._waiting and running + len(joining) < self._max_batch and not self._closed:
                if not self._waiting[0].over:
                    if self._kind(self._waiting[0]) != kind:
                        break
                    joining.append(self._waiting[0])
                del self._waiting[0]
            self._running = [*self._running, *joining]
        for row in joining:
            row.begin()
        return joining

    def _kind(self, row: Row) -> Hashable:
        """Return what the rows of a batch must share."""
        request = row.request
        if self._backend.continuous:
            return request.adapter
        return request.adapter, request.sampling, row if request.sampling.seeded else None


def _closed() -> ModelUnavailable:
    return ModelUnavailable("The local model has been closed.", fix="Start ragsmith again.")
