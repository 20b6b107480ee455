"""How many answers are written at the same time, and how many questions wait for their turn."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress

from rag.errors import Busy
from rag.types import Event

RETRY_S = 10
"""Seconds after which a question that was turned away may be asked again: about a turn of the queue."""


class AnswerGate:
    """Lets some answers be written, makes further questions wait in their order, and turns away the rest.

    It belongs to the event loop in which questions are asked.

    Args:
        at_once: Answers that are written at the same time.
        waiting: Questions that wait.
    """

    def __init__(self, at_once: int, waiting: int) -> None:
        self._free = at_once
        self._longest_queue = waiting
        self._queue: deque[asyncio.Future[None]] = deque()

    def check(self) -> None:
        """See whether a question that comes now would be let in, or would wait.

        Raises:
            Busy: It would be turned away.
        """
        if not self._free and len(self._queue) >= self._longest_queue:
            raise Busy(
                "Too many questions are being answered at the moment.",
                fix="Ask again in a few seconds.",
                retry_after=RETRY_S,
            )

    def admit(self, events: AsyncIterator[Event]) -> AsyncGenerator[Event, None]:
        """Return the events of an answer, which begin when its turn has come.

        Its place is taken at once. It is given back when the events end, are closed or are forgotten.

        Args:
            events: Not begun yet; they can be closed.

        Raises:
            Busy: There is no place left, not even for waiting.
        """
        place = _Place(self, self._enter())
        admitted = _in_turn(place, events)
        # A task that is cancelled before its first step never begins the events that it was to read.
        forgotten = weakref.finalize(admitted, _leave_soon, asyncio.get_running_loop(), place)
        forgotten.atexit = False
        return admitted

    def _enter(self) -> asyncio.Future[None]:
        self.check()
        turn = asyncio.get_running_loop().create_future()
        if self._free:
            self._free -= 1
            turn.set_result(None)
        else:
            self._queue.append(turn)
        return turn

    def _leave(self, turn: asyncio.Future[None]) -> None:
        if not turn.done() or turn.cancelled():
            with suppress(ValueError):
                self._queue.remove(turn)
            return
        while self._queue:
            following = self._queue.popleft()
            if not following.done():
                following.set_result(None)
                return
        self._free += 1


class _Place:
    """A place at the gate, which is given back once."""

    def __init__(self, gate: AnswerGate, turn: asyncio.Future[None]) -> None:
        self._gate = gate
        self.turn = turn
        self._left = False

    def leave(self) -> None:
        if not self._left:
            self._left = True
            self._gate._leave(self.turn)


async def _in_turn(place: _Place, events: AsyncIterator[Event]) -> AsyncGenerator[Event, None]:
    try:
        await place.turn
        async with aclosing(events):  # type: ignore[type-var]
            async for event in events:
                yield event
    finally:
        place.leave()


def _leave_soon(loop: asyncio.AbstractEventLoop, place: _Place) -> None:
    # Whichever thread collects the garbage, the queue is the loop's.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(place.leave)
