"""An answer in progress: its events as they come, and a way to stop it from outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace

from rag.types import Answer, Citation, Cited, Done, Event, Hit, Retrieved, Started, Step, StepStarted, Token

INSIST_S = 1.0
"""How long a stopped answer may take to end before it is told again."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What is known of an answer so far; ``answer`` once it is done."""

    text: str = ""
    hits: tuple[Hit, ...] = ()
    citations: tuple[Citation, ...] = ()
    step: Step = "condense"
    trace_id: str = ""
    answer: Answer | None = None

    def after(self, event: Event) -> Draft:
        """The draft with what an event adds."""
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
    """Runs an iterator of events in a task of its own and hands them on.

    The iterator lives in one task from its first event to its end, because LangChain keeps its place in
    context variables, which do not pass from one task to the next. Make it inside a running loop.
    """

    def __init__(self, events: AsyncIterator[Event]) -> None:
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._task = asyncio.create_task(self._pump(events))
        self._ending: asyncio.Task[None] | None = None
        self.stopped = False

    async def _pump(self, events: AsyncIterator[Event]) -> None:
        try:
            async for event in events:
                self._queue.put_nowait(event)
        finally:
            try:
                close = getattr(events, "aclose", None)
                if close is not None:
                    await close()
            finally:
                self._queue.put_nowait(None)

    async def batches(self, pause_s: float = 0.0) -> AsyncIterator[list[Event]]:
        """Events in order, those that came within ``pause_s`` together; the first ones at once.

        Raises:
            RagsmithError: The answer failed; whatever else the iterator raised is raised as well.
        """
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

    def stop(self) -> None:
        """Stop the work; ``batches`` ends after what has come so far. Call it in the loop of the stream."""
        self.stopped = True
        self._begin_to_end()

    async def close(self) -> None:
        """Stop the work and wait until it has ended and its trace is stored."""
        await asyncio.wait([self._begin_to_end()])
        if not self._task.cancelled():
            # Looked at, so that the loop does not complain about an error that nobody waits for any more.
            self._task.exception()

    def _begin_to_end(self) -> asyncio.Task[None]:
        if self._ending is None:
            self._ending = asyncio.create_task(self._end())
        return self._ending

    async def _end(self) -> None:
        # A cancellation may get lost on its way: Python 3.11's ``asyncio.wait_for`` swallows one that comes
        # together with a result. Not at once again, for what hangs up on a model needs a moment.
        while not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=INSIST_S)


class Running:
    """The answers that are being written now, by conversation."""

    def __init__(self) -> None:
        self._streams: dict[str, AnswerStream] = {}

    def __contains__(self, conversation_id: object) -> bool:
        return conversation_id in self._streams

    def start(self, conversation_id: str, events: AsyncIterator[Event]) -> AnswerStream:
        """Begin an answer."""
        stream = AnswerStream(events)
        self._streams[conversation_id] = stream
        return stream

    def stop(self, conversation_id: str) -> None:
        """Stop the answer of a conversation, if one is being written."""
        stream = self._streams.get(conversation_id)
        if stream is not None:
            stream.stop()

    async def end(self, conversation_id: str, stream: AnswerStream) -> None:
        """Forget an answer that is done or given up."""
        if self._streams.get(conversation_id) is stream:
            del self._streams[conversation_id]
        await stream.close()
