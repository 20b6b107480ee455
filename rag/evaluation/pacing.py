"""How many questions a run asks at a time, adapted to the limits of the model servers.

The number is halved when a server refuses, and grows by one after as many answers as are asked at a time (Chiu and
Jain, Analysis of the Increase and Decrease Algorithms for Congestion Avoidance in Computer Networks, 1989).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from rag.errors import ModelLimited
from rag.tracing.figures import format_seconds

T = TypeVar("T")

LONGEST_WAIT_S = 600.0
"""Maximum seconds without an answer; a longer wait ends the run, which can be resumed."""
# Pauses where the server does not say how long, doubled after every refusal.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0


class Pace:
    """The places of a run's questions, and its pauses; for one event loop.

    Args:
        most: Maximum questions at a time.
        stop: Ends all waiting when set.
        on_wait: Called when a pause begins.

    Attributes:
        at_once: Questions that may be asked at a time now.
        problem: Why the run must end, as a sentence; empty as long as it need not.
    """

    def __init__(self, most: int, stop: asyncio.Event, on_wait: Callable[[], None] = lambda: None) -> None:
        self.at_once = most
        self.problem = ""
        self._most = most
        self._stop = stop
        self._on_wait = on_wait
        self._places = asyncio.Condition()
        self._asking = self._answered = self._refused = 0
        self._open_at = 0.0
        self._refused_since: float | None = None

    @property
    def waiting_s(self) -> float:
        """Seconds until the next question may be asked; 0 if no server has reached its limit."""
        return max(self._open_at - time.monotonic(), 0.0)

    async def ask(self, attempt: Callable[[], Awaitable[T]], *, begun: bool = False) -> T | None:
        """Return the result of an attempt, which is repeated while it raises ModelLimited.

        Args:
            attempt: Asks a model.
            begun: Whether the case has an answer, so that it is finished when the run stops, unless it must wait.

        Returns:
            The result; None if the run ends.
        """
        while await self._enter(begun=begun):
            try:
                result = await attempt()
            except ModelLimited as error:
                self._refuse(error)
            else:
                self._accept()
                return result
            finally:
                await self._leave()
        return None

    async def _enter(self, *, begun: bool) -> bool:
        while not self.problem:
            wait = self.waiting_s
            if self._stop.is_set() and (wait or not begun):
                break
            if wait:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._stop.wait()
            elif self._asking < self.at_once:
                self._asking += 1
                return True
            else:
                async with self._places:
                    await self._places.wait()
        return False

    async def _leave(self) -> None:
        self._asking -= 1
        async with self._places:
            self._places.notify_all()

    def _accept(self) -> None:
        self._refused, self._refused_since = 0, None
        self._answered += 1
        if self._answered >= self.at_once and self.at_once < self._most:
            self.at_once, self._answered = self.at_once + 1, 0

    def _refuse(self, error: ModelLimited) -> None:
        now = time.monotonic()
        pause = error.after_s
        if pause is None:
            pause = min(_FIRST_PAUSE_S * 2**self._refused, _LONGEST_PAUSE_S)
        if self._refused_since is None:
            self._refused_since = now
        if now + pause - self._refused_since > LONGEST_WAIT_S:
            asked = f"asks to wait {format_seconds(pause)}" if pause > LONGEST_WAIT_S else "does not lift it"
            self.problem = f"A limit of the model server is reached, and it {asked}: {error.message}"
        # Of questions that were asked together, all are refused, which counts once.
        if now >= self._open_at:
            self.at_once, self._answered = max(self.at_once // 2, 1), 0
            self._refused += 1
        self._open_at = max(self._open_at, now + pause)
        self._on_wait()
