"""Answers in progress: a stream of events that can be stopped."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from rag.types import Answer, Citation, Cited, Done, Event, Hit, Retrieved, Started, Step, StepStarted, Token

RETRY_S = 1.0
"""Seconds until a stopped answer that has not ended is cancelled again."""


@dataclass(frozen=True, slots=True)
class PartialAnswer:
    """The state of an answer in progress; ``answer`` is set once it is done."""

    text: str = ""
    hits: tuple[Hit, ...] = ()
    citations: tuple[Citation, ...] = ()
    step: Step = "condense"
    trace_id: str = ""
    answer: Answer | None = None

    def after(self, event: Event) -> PartialAnswer:
        """Return the partial answer with what an event adds."""
        match event:
            case Started(trace_id):
                return replace(self, trace_id=trace_id)
            case StepStarted(step):
                return replace(self, step=step)
            case Retrieved(hits):
                return replace(self, hits=hits)
            case Token(text):
                return replace(self, text=self.text + text)
            case Cited(citation):
                return replace(self, citations=(*self.citations, citation))
            case Done(answer):
                return replace(self, answer=answer)
            case _:
                return self


class AnswerStream:
    """The events of one answer, for a single reader; the work runs in a task of its own.

    The creator must close the stream. Garbage collection stops the work, too.

    Args:
        work: Writes the answer and calls its argument with every event; it needs a running loop.
        on_end: Called once when the work ends, even before its first step.
    """

    def __init__(
        self,
        work: Callable[[Callable[[Event], None]], Coroutine[Any, Any, None]],
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        task = asyncio.create_task(work(queue.put_nowait))

        def end(_: asyncio.Task[None]) -> None:
            on_end()
            queue.put_nowait(None)

        task.add_done_callback(end)
        self._queue = queue
        self._task = task
        self._ending: asyncio.Task[None] | None = None
        self.stopped = False
        dropped = weakref.finalize(self, _cancel, task, asyncio.get_running_loop())
        dropped.atexit = False

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Yield the events in order."""
        async for events in self.batches():
            for event in events:
                yield event

    async def batches(self, pause_s: float = 0.0) -> AsyncIterator[list[Event]]:
        """Yield events in order, in batches at intervals of ``pause_s``; the first batch comes immediately."""
        over = False
        while not over:
            batch = [await self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get_nowait())
            over = batch[-1] is None
            events = [event for event in batch if event is not None]
            if events:
                yield events
            if not over:
                await asyncio.sleep(pause_s)
        with suppress(asyncio.CancelledError):
            await self._task

    async def answer(self) -> Answer:
        """Read to the end and return the finished answer.

        Raises:
            asyncio.CancelledError: The work was stopped.
        """
        partial = PartialAnswer()
        try:
            async for events in self.batches():
                partial = reduce(PartialAnswer.after, events, partial)
        finally:
            await self.close()
        if partial.answer is None:
            # The work always emits ``Done`` unless it is cancelled.
            raise asyncio.CancelledError
        return partial.answer

    def stop(self) -> None:
        """Stop the work; ``batches`` ends after the events so far. Call it in the loop of the stream."""
        self.stopped = True
        self._begin_to_end()

    async def close(self) -> None:
        """Stop the work and wait until it has ended and its trace is stored."""
        await asyncio.wait([self._begin_to_end()])
        # When the event loop closes, the ending is cancelled, too, and the work may still run.
        if self._task.done() and not self._task.cancelled():
            # Retrieved, so that asyncio does not log it as never retrieved.
            self._task.exception()

    def _begin_to_end(self) -> asyncio.Task[None]:
        if self._ending is None:
            self._ending = asyncio.create_task(self._end())
        return self._ending

    async def _end(self) -> None:
        # A cancellation may get lost: Python 3.11's ``asyncio.wait_for`` swallows it if a result comes along.
        # It is repeated after a pause, because closing a connection to a model takes a moment.
        while not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=RETRY_S)


def _cancel(task: asyncio.Task[None], loop: asyncio.AbstractEventLoop) -> None:
    # Garbage collection runs in any thread, possibly after the loop has been closed.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(task.cancel)
