"""How many answers are written at the same time, and how many questions wait for their turn."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Protocol

from rag.errors import Busy

RETRY_S = 10
"""Seconds after which a question that was turned away may be asked again: about a turn of the queue."""


class Place(Protocol):
    """A place at a gate."""

    async def turn(self) -> None:
        """Wait for the turn."""
        ...

    def leave(self) -> None:
        """Give the place back; a second call does nothing."""
        ...


class Gate(Protocol):
    """Decides when an answer may begin."""

    def enter(self) -> Place:
        """Take a place at once.

        Raises:
            Busy: There is none left, not even for waiting.
        """
        ...


class OpenGate:
    """Lets every answer begin at once."""

    def enter(self) -> Place:
        """Take a place; there is always one."""
        return _FreePlace()


class AnswerGate:
    """Lets some answers be written, makes further questions wait in their order, and turns away the rest.

    It belongs to the event loop in which questions are asked.

    Args:
        concurrency: Answers that are written at the same time.
        waiting: Questions that wait.
    """

    def __init__(self, concurrency: int, waiting: int) -> None:
        self._free = concurrency
        self._longest_queue = waiting
        self._queue: deque[asyncio.Future[None]] = deque()

    def check(self) -> None:
        """Check whether a question that comes now would be let in, or would wait.

        Raises:
            Busy: It would be turned away.
        """
        if not self._free and len(self._queue) >= self._longest_queue:
            raise Busy(
                "Too many questions are being answered at the moment.",
                fix="Ask again in a few seconds.",
                retry_after=RETRY_S,
            )

    def enter(self) -> Place:
        """Take a place at once.

        Raises:
            Busy: There is none left, not even for waiting.
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
