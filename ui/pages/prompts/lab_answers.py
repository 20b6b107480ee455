"""One question to all columns of the lab, answered at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from typing import TYPE_CHECKING

from rag.answering.answer_stream import AnswerStream, PartialAnswer
from rag.errors import PromptError
from rag.types import Ask
from ui.pages.prompts.direct import run_prompt
from ui.pages.prompts.lab_columns import Column, resolve, source_of_passages

if TYPE_CHECKING:
    from rag.types import Hit
    from ui.app.models import Models
    from ui.app.releases import Releases


@dataclass(frozen=True, slots=True)
class LabQuestion:
    """The question to all columns.

    Attributes:
        corpus: Name of the corpus; empty for the one in the settings.
        values: Values of the variables that the chain does not fill.
        fixed: Whether all columns read the passages of ``replayed``, or else those that the first one finds.
        replayed: The question of the trace that is open in the playground, with its history, filters and passages.
    """

    text: str
    corpus: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    fixed: bool = False
    replayed: Ask | None = None


@dataclass(slots=True)
class Lane:
    """The answer of one column so far.

    Attributes:
        problem: Why it failed, where its ``draft`` does not say.
        over: Whether it has ended.
    """

    draft: PartialAnswer = field(default_factory=PartialAnswer)
    problem: Exception | None = None
    over: bool = False


class SideBySide:
    """Answers that are written at the same time and end independently. Needs a running loop.

    Args:
        starts: Functions that each begin an answer, which may take a while.
    """

    def __init__(self, starts: Sequence[Callable[[], Awaitable[AnswerStream]]]) -> None:
        self.lanes = [Lane() for _ in starts]
        self._starts = starts
        self._streams: dict[int, AnswerStream] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._changed: set[int] = set()

    async def changes(self, pause_s: float) -> AsyncIterator[list[int]]:
        """Yield the numbers of the lanes that have changed, once in ``pause_s`` at most, until all have ended."""
        self._tasks = [asyncio.create_task(self._follow(number, pause_s)) for number in range(len(self.lanes))]
        try:
            waiting: set[asyncio.Task[None]] = set(self._tasks)
            while waiting:
                _, waiting = await asyncio.wait(waiting, timeout=pause_s)
                if self._changed:
                    changed, self._changed = sorted(self._changed), set()
                    yield changed
        finally:
            await self.close()

    def stop(self) -> None:
        """Stop all answers; ``changes`` ends after what has arrived so far."""
        for number, task in enumerate(self._tasks):
            if number in self._streams:
                self._streams[number].stop()
            else:
                task.cancel()

    async def close(self) -> None:
        """Stop all answers, and wait until they have ended and their traces are stored."""
        self.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self, number: int, pause_s: float) -> None:
        lane = self.lanes[number]
        try:
            stream = self._streams[number] = await self._starts[number]()
            try:
                async for events in stream.batches(pause_s):
                    lane.draft = reduce(PartialAnswer.after, events, lane.draft)
                    self._changed.add(number)
            finally:
                await stream.close()
        except Exception as error:  # noqa: BLE001 - a failure in one column leaves the others alone
            lane.problem = error
        finally:
            lane.over = True
            self._changed.add(number)


def ask_all(releases: Releases, models: Models, columns: Sequence[Column], asked: LabQuestion) -> SideBySide:
    """Begin to answer a question in all columns. Needs a running loop."""
    search: Callable[[], Awaitable[tuple[Hit, ...]]] | None = None
    if asked.fixed:
        found: asyncio.Task[tuple[Hit, ...]] | None = None

        async def shared() -> tuple[Hit, ...]:
            nonlocal found
            if found is None:
                found = asyncio.create_task(asyncio.to_thread(fixed_hits, releases, columns, asked))
            # A column that is stopped must not cancel the search of the others.
            return await asyncio.shield(found)

        search = shared
    return SideBySide([partial(_start, releases, models, column, asked, search) for column in columns])


async def _start(
    releases: Releases,
    models: Models,
    column: Column,
    asked: LabQuestion,
    search: Callable[[], Awaitable[tuple[Hit, ...]]] | None,
) -> AnswerStream:
    resolved = await asyncio.to_thread(resolve, releases, column)
    if resolved.free:
        values = {"question": asked.text} | dict(asked.values)
        chosen = {name: values.get(name, "") for name in resolved.free}
        return run_prompt(releases, models, resolved.variant, chosen, resolved.draft)
    if not asked.text.strip():
        raise PromptError("There must be a question.", fix="Write one above the columns.")
    hits = await search() if search else None
    assistant = releases.assistant(resolved.variant, gate=releases.gate, draft=resolved.draft)
    ask = asked.replayed or Ask("", purpose="lab")
    return assistant.start(replace(ask, question=asked.text, corpus=asked.corpus, hits=hits))


def fixed_hits(releases: Releases, columns: Sequence[Column], asked: LabQuestion) -> tuple[Hit, ...]:
    """Return the passages of the replayed question, or those that the first searching column finds.

    Raises:
        RagsmithError: No column searches, or the corpus is missing.
    """
    if asked.replayed and asked.replayed.hits is not None:
        return asked.replayed.hits
    _, resolved = source_of_passages(releases, columns)
    retrieval = releases.resolve(resolved.variant, resolved.draft).settings.retrieval
    return tuple(releases.retriever(asked.corpus, retrieval).search(asked.text))
