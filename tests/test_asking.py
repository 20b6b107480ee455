from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import reduce

import pytest

from rag.errors import ModelTimeout
from rag.types import Answer, Done, Event, Retrieved, Started, StepFinished, StepStarted, Token
from ui.app.asking import AnswerStream, Draft, Running

ANSWER = Answer("All.", "answered")


class Script:
    """An iterator of events that notes how it ended."""

    def __init__(self, *, pace: float = 0.0, stubborn: int = 0, fails: bool = False) -> None:
        self.pace = pace
        self.stubborn = stubborn
        self.fails = fails
        self.ended = ""

    async def events(self) -> AsyncIterator[Event]:
        try:
            yield Started("t-1")
            for number in range(50):
                await self._wait()
                yield Token(f"{number} ")
            if self.fails:
                raise ModelTimeout("Too slow.")
            yield Done(ANSWER)
            self.ended = "done"
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)  # Hanging up takes a moment and must not be broken off.
            self.ended = "cancelled"
            raise

    async def _wait(self) -> None:
        try:
            await asyncio.sleep(self.pace)
        except asyncio.CancelledError:
            self.stubborn -= 1
            if self.stubborn < 0:
                raise


async def collected(stream: AnswerStream, pause_s: float = 0.0) -> list[list[Event]]:
    return [batch async for batch in stream.batches(pause_s)]


async def test_every_event_comes_once_and_in_order() -> None:
    script = Script()
    batches = await collected(AnswerStream(script.events()), 0.02)
    draft = reduce(Draft.after, (event for batch in batches for event in batch), Draft())
    assert draft.trace_id == "t-1"
    assert draft.text == "".join(f"{number} " for number in range(50))
    assert draft.answer is ANSWER
    assert script.ended == "done"
    assert len(batches) < 10


async def test_a_stop_ends_the_work_once_and_keeps_what_came() -> None:
    script = Script(pace=0.01)
    stream = AnswerStream(script.events())
    draft = Draft()
    async for events in stream.batches():
        draft = reduce(Draft.after, events, draft)
        if "5 " in draft.text:
            stream.stop()
    await stream.close()
    assert script.ended == "cancelled"
    assert stream.stopped
    assert draft.answer is None
    assert draft.text.startswith("0 1 2 3 4 5 ")


async def test_a_cancellation_that_gets_lost_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.app.asking.INSIST_S", 0.1)
    script = Script(pace=60, stubborn=2)
    stream = AnswerStream(script.events())
    began = time.monotonic()
    await asyncio.sleep(0.01)
    await stream.close()
    assert script.ended == "cancelled"
    assert 0.2 < time.monotonic() - began < 2


async def test_an_error_reaches_whoever_reads() -> None:
    stream = AnswerStream(Script(fails=True).events())
    with pytest.raises(ModelTimeout):
        await collected(stream)
    await stream.close()


async def test_an_error_that_nobody_reads_is_no_complaint() -> None:
    stream = AnswerStream(Script(fails=True).events())
    await asyncio.sleep(0.05)
    await stream.close()


async def test_closing_what_is_done_does_nothing() -> None:
    script = Script()
    stream = AnswerStream(script.events())
    await collected(stream)
    await stream.close()
    await stream.close()
    assert script.ended == "done"


async def test_a_conversation_has_one_running_answer() -> None:
    running = Running()
    script = Script(pace=60)
    stream = running.start("c-1", script.events())
    assert "c-1" in running
    assert "c-2" not in running
    await asyncio.sleep(0.01)
    running.stop("c-2")
    assert not stream.stopped
    running.stop("c-1")
    await running.end("c-1", stream)
    assert "c-1" not in running
    assert script.ended == "cancelled"


def test_a_draft_knows_the_step_and_the_hits() -> None:
    draft = Draft().after(StepStarted("retrieve")).after(Retrieved(())).after(StepFinished("retrieve", 0.1))
    assert (draft.step, draft.hits) == ("retrieve", ())
