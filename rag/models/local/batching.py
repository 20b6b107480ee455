"""Requests that wait are generated together, one batch after the other, in a thread of their own."""

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
    """What one answer needs.

    Attributes:
        prompt: Token ids, at least one.
        max_tokens: After so many new tokens it ends.
        sampling: How each is chosen.
        stops: Texts before which the answer ends.
        adapter: The adapter's folder; empty for the model as it is.
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
        text: May be empty.
        read, written: Tokens of the prompt and of the answer that this piece adds to the count. Every token that
            the model made is counted, also the one that ends the answer.
        ending: In the last piece, why it is the last: the model or a stop sequence ended it, or the limit.
    """

    text: str = ""
    read: int = 0
    written: int = 0
    ending: Ending | None = None


Sink = Callable[[Piece | ModelError], None]


class Row:
    """A request on its way, and a row of the batch that it becomes a part of.

    Everything but ``cancel`` is called by the thread of the batches.

    Args:
        request: What is asked for.
        decode: Token ids to text, special tokens left out.
        ends: Tokens with which the model ends an answer.
        sink: Gets the pieces, and the error in the place of the last one. What it raises ends the row.
    """

    def __init__(
        self, request: Request, decode: Callable[[list[int]], str], ends: frozenset[int], sink: Sink
    ) -> None:
        self.request = request
        self._text = TextStream(decode)
        self._stops = StopFilter(request.stops)
        self._ends = ends
        self._sink = sink
        self._made = 0
        self._counted = 0
        self._over = threading.Event()

    @property
    def over(self) -> bool:
        """Whether nobody waits for a further token."""
        return self._over.is_set()

    def cancel(self) -> None:
        """Stop the work. May be called from any thread, and more than once."""
        self._over.set()

    def begin(self) -> None:
        """The model reads the prompt from now on."""
        self._send(Piece(read=len(self.request.prompt)))

    def take(self, token: int) -> bool:
        """Add a token that the model made.

        Returns:
            Whether the row wants no more.
        """
        if self.over:
            return True
        self._made += 1
        if token in self._ends:
            self.finish("stop")
            return True
        text, stopped = self._stops.add(self._text.add(token))
        if stopped:
            self._last(text, "stop")
        elif self._made >= self.request.max_tokens:
            self._last_with_rest(text, "length")
        elif text:
            self._send(Piece(text, written=self._uncounted()))
        return self.over

    def finish(self, ending: Ending) -> None:
        """End it with what was held back; nothing happens when it is over."""
        self._last_with_rest("", ending)

    def fail(self, error: ModelError) -> None:
        """End it with an error; nothing happens when it is over."""
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
        new, self._counted = self._made - self._counted, self._made
        return new

    def _send(self, piece: Piece | ModelError) -> None:
        if self.over:
            return
        try:
            self._sink(piece)
        except Exception as error:  # noqa: BLE001 - one listener that is gone must not end the batch of the others
            _log.debug("Nobody takes an answer any more: %s", error)
            self._over.set()


class Backend(Protocol):
    """What generates.

    Attributes:
        runtime: Where and how it computes, for a person.
        spread: By how many tokens the prompts of one batch may differ; None where it does not matter.
        seeds: Whether it honours a seed.
    """

    runtime: str
    spread: int | None
    seeds: bool

    def run(self, rows: Sequence[Row]) -> None:
        """Give every row its tokens, until all are over. The rows have one adapter and one sampling,
        and a row whose seed decides is alone.

        Raises:
            ModelError: It cannot go on.
        """
        ...

    def close(self) -> None:
        """Let go of the memory."""
        ...


class Batcher:
    """Runs the rows that wait, oldest first, as many at once as fit together.

    A row that comes while a batch is running waits for the next one.

    Args:
        backend: Used by this object's thread only.
        max_batch: Rows of one batch, at most.
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
        """Let a row wait for its turn.

        Raises:
            ModelUnavailable: The batches have ended.
        """
        with self._changed:
            if self._closed:
                raise _closed()
            self._waiting.append(row)
            self._changed.notify()

    def close(self) -> None:
        """End what runs and what waits, and let go of the model."""
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
                self._backend.run(rows)
                failure = ModelError("The local model ended without an answer.", fix="Ask again.")
            except ModelError as error:
                failure = error
            except Exception as error:  # noqa: BLE001 - the thread must outlive whatever a model does
                _log.exception("The local model failed")
                failure = ModelError(
                    f"The local model failed: {type(error).__name__}: {first_line(error)}.",
                    fix="Ask again; if it fails again, choose another model, local.device or local.dtype.",
                )
            for row in rows:
                row.fail(failure)
        self._backend.close()

    def _next(self) -> list[Row]:
        """Wait for work; nothing when there will be none."""
        with self._changed:
            self._running = []
            while True:
                self._waiting = [row for row in self._waiting if not row.over]
                if self._closed:
                    return []
                if self._waiting:
                    break
                self._changed.wait()
            first = self._waiting[0]
            fitting = [row for row in self._waiting if self._together(first, row)]
            self._running = fitting[: self._max_batch]
            self._waiting = [row for row in self._waiting if row not in self._running]
            return self._running

    def _together(self, first: Row, other: Row) -> bool:
        far = abs(len(first.request.prompt) - len(other.request.prompt))
        near = self._backend.spread is None or far <= self._backend.spread
        return near and _kind(first) == _kind(other)


def _kind(row: Row) -> Hashable:
    sampling = row.request.sampling
    return row.request.adapter, sampling, row if sampling.seeded else None


def _closed() -> ModelUnavailable:
    return ModelUnavailable("The local model has been closed.", fix="Start ragsmith again.")
