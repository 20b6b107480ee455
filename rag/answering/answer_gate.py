"""Limits on concurrent answers and waiting questions."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Protocol

from rag.errors import Busy

RETRY_S = 10
"""Seconds until a rejected question may be asked again."""


class Place(Protocol):
    """A place at a gate."""

    async def turn(self) -> None:
        """Wait until the answer may begin."""
        ...

    def leave(self) -> None:
        """Release the place; repeated calls have no effect."""
        ...


class Gate(Protocol):
    """Admits questions."""

    def enter(self) -> Place:
        """Take a place immediately.

        Raises:
            Busy: Even the queue is full.
        """
        ...


class OpenGate:
    """Admits every question immediately."""

    def enter(self) -> Place:
        """Take a place, which is always available."""
        return _FreePlace()


class AnswerGate:
    """Admits some questions, queues further ones in order, and rejects the rest.

    It must be used in a single event loop.

    Args:
        concurrency: Maximum number of concurrent answers.
        waiting: Maximum number of queued questions.
    """

    def __init__(self, concurrency: int, waiting: int) -> None:
        self._free = concurrency
        self._longest_queue = waiting
        self._queue: deque[asyncio.Future[None]] = deque()

    def check(self) -> None:
        """Check whether a new question would be admitted or queued.

        Raises:
            Busy: It would be rejected.
        """
        if not self._free and len(self._queue) >= self._longest_queue:
            raise Busy(
                "Too many questions are being answered at the moment.",
                fix="Ask again in a few seconds.",
                retry_after=RETRY_S,
            )

    def enter(self) -> Place:
        """Take a place immediately.

        Raises:
            Busy: Even the queue is full.
        """
        self.check()
        turn = asyncio.get_running_loop().create_future()
        if self._free:
            self._free -= 1
            turn.set_result(None)
        else:
            self._queue.append(turn)
        return _QueuedPlace(self, turn)

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


class _QueuedPlace:
    def __init__(self, gate: AnswerGate, turn: asyncio.Future[None]) -> None:
        self._gate = gate
        self._turn = turn
        self._left = False

    async def turn(self) -> None:
        await self._turn

    def leave(self) -> None:
        if not self._left:
            self._left = True
            self._gate._leave(self._turn)


class _FreePlace:
    async def turn(self) -> None:
        pass

    def leave(self) -> None:
        pass
