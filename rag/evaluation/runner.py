"""Answers every case of a dataset in the way of every variant, and keeps each answer at once.

Whatever ends a run, taking it up again answers only what is not there yet.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from rag.answering.answer_stream import AnswerStream
from rag.errors import RagsmithError
from rag.evaluation.cache import AnswerCache, key_of
from rag.evaluation.cases import Case
from rag.evaluation.run_store import Cell, CellPassage, Run, RunStatus, RunStore
from rag.evaluation.scoring import Judge, Scorer
from rag.types import Answer, Ask

# Cases that are read at once.
PAGE = 200
# After so many failures one after the other it is no case that is at fault.
GIVE_UP_AFTER = 20


@dataclass(frozen=True, slots=True)
class Contestant:
    """A variant, ready to answer.

    Attributes:
        state: What decides its answers: the release, and the state of its index.
        start: Begins to answer one question, as ``rag.answering.assistant.Assistant.start`` does.
    """

    state: str
    start: Callable[[Ask], AnswerStream]


@dataclass(frozen=True, slots=True)
class EvaluationProgress:
    """How far a run is.

    Attributes:
        done, total: Answers; ``cached`` and ``failed`` of those done in this sitting.
        seconds_left: None while nothing can be said.
    """

    done: int
    total: int
    cached: int = 0
    failed: int = 0
    seconds_left: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """A run with all that it needs.

    Attributes:
        run: Begun, or taken up.
        size: How many cases there are.
        cases: Gives those from a number up to another.
        contestants: One for each variant of the plan.
        cache: None asks everything anew.
        on_progress: Called after each answer.
    """

    run: Run
    size: int
    cases: Callable[[int, int], Sequence[Case]]
    contestants: Sequence[Contestant]
    store: RunStore
    scorer: Scorer
    judge: Judge
    cache: AnswerCache | None
    on_progress: Callable[[EvaluationProgress], None] = lambda _: None

    async def work(self, stop: asyncio.Event) -> RunStatus:
        """Answer what is not answered yet.

        Args:
            stop: Set it to stop after the answers that are being given.

        Returns:
            ``finished``, ``stopped`` or ``failed``; the run is marked so.

        Raises:
            DatabaseError: The database refuses.
        """
        sitting = _Sitting(self, stop)
        status: RunStatus = "interrupted"
        error = ""
        try:
            status, error = await sitting.work()
        except ExceptionGroup as several:
            known = several.subgroup(RagsmithError)
            if known is None:
                raise
            # One worker's failure ends them all.
            first = known.exceptions[0]
            error = str(first)
            raise first from first.__cause__
        finally:
            await asyncio.to_thread(self.store.end, self.run.id, status, error)
        return status


@dataclass(frozen=True, slots=True)
class _Job:
    case: Case
    position: int
    variant: int
    # It failed in an earlier sitting.
    again: bool


class _Sitting:
    """One time that a run is worked on."""

    def __init__(self, evaluation: Evaluation, stop: asyncio.Event) -> None:
        self._of = evaluation
        self._stop = stop
        self._alone = _Locks()
        self._before = self._done = self._cached = self._failed = self._failed_in_a_row = 0
        self._error = ""
        self._started = time.monotonic()

    async def work(self) -> tuple[RunStatus, str]:
        self._before = await asyncio.to_thread(self._of.store.count, self._of.run.id)
        workers = self._of.run.plan.at_once
        jobs: asyncio.Queue[_Job | None] = asyncio.Queue(workers)
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._worker(jobs))
            async for job in self._jobs():
                await jobs.put(job)
            for _ in range(workers):
                await jobs.put(None)
        if self._gave_up:
            return "failed", self._error
        return ("stopped", "") if self._stop.is_set() else ("finished", "")

    @property
    def _gave_up(self) -> bool:
        return self._failed_in_a_row >= GIVE_UP_AFTER

    async def _jobs(self) -> AsyncIterator[_Job]:
        """What is to be answered, a page of cases after the other, the variants of a case together."""
        of = self._of
        for start in range(0, of.size, PAGE):
            end = min(start + PAGE, of.size)
            cases = await asyncio.to_thread(of.cases, start, end)
            known = await asyncio.to_thread(of.store.statuses, of.run.id, start, end)
            for position, case in enumerate(cases, start):
                for variant in range(len(of.contestants)):
                    if self._stop.is_set() or self._gave_up:
                        return
                    status = known.get((variant, position), "failed")
                    if status == "failed":
                        yield _Job(case, position, variant, again=(variant, position) in known)

    async def _worker(self, jobs: asyncio.Queue[_Job | None]) -> None:
        while (job := await jobs.get()) is not None:
            # What waits in the queue is not begun any more.
            if self._stop.is_set() or self._gave_up:
                continue
            self._tell(await self._kept(job), again=job.again)

    async def _kept(self, job: _Job) -> Cell:
        """Answer one case in one way, and keep what comes of it."""
        of = self._of
        ask = Ask(job.case.question, job.case.history, of.run.plan.corpus, of.run.id)
        contestant = of.contestants[job.variant]
        key = key_of(contestant.state, ask.question, ask.history)
        async with self._alone.held(key):
            known = await asyncio.to_thread(of.cache.get, key) if of.cache else None
            answer = await contestant.start(ask).answer() if known is None else known
            cell = await self._cell(job, answer, cached=known is not None)
            # Before the cache has it: after a crash between the two the run would hold it as free of cost.
            await asyncio.to_thread(of.store.keep, of.run.id, [cell])
            if of.cache and known is None and answer.status in ("answered", "abstained"):
                await asyncio.to_thread(of.cache.put, key, answer)
        return cell

    async def _cell(self, job: _Job, answer: Answer, *, cached: bool) -> Cell:
        scores = await asyncio.to_thread(self._of.scorer.score, job.case, answer)
        judged = await self._of.judge.judge(job.case, answer)
        cited = {citation.marker for citation in answer.citations}
        passages = (
            CellPassage(hit.passage.name, hit.passage.title, hit.passage.page, hit.passage.text, number in cited)
            for number, hit in enumerate(answer.hits, 1)
        )
        return Cell(
            variant=job.variant,
            position=job.position,
            status=answer.status,
            answer=answer.text,
            error=answer.error,
            scores=scores | judged.scores,
            rationale=judged.reason,
            passages=tuple(passages),
            trace_id=answer.trace_id,
            latency_s=answer.latency_s,
            input_tokens=answer.usage.input_tokens,
            output_tokens=answer.usage.output_tokens,
            cost_usd=0.0 if cached else answer.cost_usd,
            cached=cached,
        )

    def _tell(self, cell: Cell, *, again: bool) -> None:
        self._done += 1
        self._cached += cell.cached
        failed = cell.status == "failed"
        self._failed += failed
        # Those that failed before stand in a row when a run is taken up, and may be at fault themselves.
        if not (again and failed):
            self._failed_in_a_row = self._failed_in_a_row + 1 if failed else 0
        self._error = cell.error or self._error
        of = self._of
        total = of.size * len(of.contestants)
        # Cached answers take no time, and say nothing of what the others will take.
        asked = self._done - self._cached
        passed = time.monotonic() - self._started
        left = passed / asked * max(total - self._before - self._done, 0) if asked else None
        of.on_progress(EvaluationProgress(self._before + self._done, total, self._cached, self._failed, left))


class _Locks:
    """A lock for each key that somebody holds or waits for."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def held(self, key: str) -> AsyncIterator[None]:
        """Nobody else is inside with the same key."""
        lock, users = self._held.get(key, (asyncio.Lock(), 0))
        self._held[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._held.pop(key)
            if users > 1:
                self._held[key] = (lock, users - 1)
