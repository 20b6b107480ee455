from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from streams import stream_of

from rag.answering.answer_gate import AnswerGate
from rag.answering.answer_stream import AnswerStream
from rag.errors import Busy
from rag.types import Event, Started, Token


class Answers:
    """Answers that go on until they are let go, and that count how many are written."""

    def __init__(self) -> None:
        self.writing: list[str] = []
        self.most = 0
        self.closed: list[str] = []
        self.go = asyncio.Event()

    async def answer(self, name: str) -> AsyncGenerator[Event, None]:
        self.writing.append(name)
        self.most = max(self.most, len(self.writing) - len(self.closed))
        try:
            yield Started(name)
            await self.go.wait()
            yield Token("done")
        finally:
            self.closed.append(name)


async def read(stream: AnswerStream) -> int:
    try:
        return len([event async for event in stream])
    finally:
        await stream.close()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_some_are_written_some_wait_and_the_rest_are_turned_away() -> None:
    gate, answers = AnswerGate(2, 1), Answers()
    tasks = [asyncio.create_task(read(stream_of(answers.answer(name), gate))) for name in "abc"]
    with pytest.raises(Busy, match="Too many questions") as raised:
        stream_of(answers.answer("d"), gate)
    assert raised.value.retry_after > 0
    await settle()
    assert answers.writing == ["a", "b"]
    answers.go.set()
    assert await asyncio.gather(*tasks) == [2, 2, 2]
    assert answers.writing == ["a", "b", "c"]
    assert await read(stream_of(answers.answer("e"), gate)) == 2


async def test_a_question_that_is_given_up_while_it_waits_makes_room() -> None:
    gate, answers = AnswerGate(1, 1), Answers()
    first = asyncio.create_task(read(stream_of(answers.answer("a"), gate)))
    waiting = asyncio.create_task(read(stream_of(answers.answer("b"), gate)))
    await settle()
    waiting.cancel()
    await settle()
    third = asyncio.create_task(read(stream_of(answers.answer("c"), gate)))
    answers.go.set()
    assert await asyncio.gather(first, third) == [2, 2]
    assert answers.writing == ["a", "c"]


async def test_events_that_nobody_reads_give_their_place_back() -> None:
    gate, answers = AnswerGate(1, 0), Answers()
    answers.go.set()
    forgotten = stream_of(answers.answer("a"), gate)
    del forgotten
    gc.collect()
    await settle()
    closed = stream_of(answers.answer("b"), gate)
    assert isinstance(await anext(aiter(closed)), Started)
    await closed.close()
    task = asyncio.create_task(read(stream_of(answers.answer("c"), gate)))
    task.cancel()
    await settle()
    del task
    gc.collect()
    await settle()
    assert await read(stream_of(answers.answer("d"), gate)) == 2


async def test_an_answer_that_fails_gives_its_place_back() -> None:
    async def fails() -> AsyncGenerator[Event, None]:
        yield Started("a")
        raise RuntimeError("broken")

    gate, answers = AnswerGate(1, 0), Answers()
    answers.go.set()
    with pytest.raises(RuntimeError):
        await read(stream_of(fails(), gate))
    assert await read(stream_of(answers.answer("b"), gate)) == 2


@given(st.lists(st.sampled_from(["ask", "stop", "finish"]), max_size=40))
def test_there_are_never_more_than_are_let_in_and_all_places_come_back(steps: list[str]) -> None:
    async def play() -> None:
        gate, answers = AnswerGate(2, 2), Answers()
        tasks: list[asyncio.Task[int]] = []
        for number, step in enumerate(steps):
            running = [task for task in tasks if not task.done()]
            if step == "ask":
                try:
                    tasks.append(asyncio.create_task(read(stream_of(answers.answer(str(number)), gate))))
                except Busy:
                    assert len(running) >= 4
            elif step == "stop" and running:
                running[number % len(running)].cancel()
            elif step == "finish":
                answers.go.set()
                await settle()
                answers.go.clear()
            await settle()
        answers.go.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert answers.most <= 2
        await asyncio.gather(*(read(stream_of(answers.answer("end"), gate)) for _ in range(4)))

    asyncio.run(play())
