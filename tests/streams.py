"""Answer streams over events that a test makes up."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from rag.answering.answer_gate import Gate, OpenGate
from rag.answering.answer_stream import AnswerStream
from rag.types import Event


def stream_of(events: AsyncGenerator[Event, None], gate: Gate | None = None) -> AnswerStream:
    """A stream of these events, which begin when the gate lets them."""
    place = (gate or OpenGate()).enter()

    async def work(emit: Callable[[Event], None]) -> None:
        await place.turn()
        async with aclosing(events):
            async for event in events:
                emit(event)

    return AnswerStream(work, place.leave)
