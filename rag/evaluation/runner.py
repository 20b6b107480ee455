"""Answering every case of a dataset with every variant, storing every answer immediately.

However a run ends, resuming it answers only what is missing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from rag.answering.answer_stream import AnswerStream
from rag.errors import BudgetSpent, ModelLimited, RagsmithError
from rag.evaluation.cache import AnswerCache, key_of
from rag.evaluation.cases import Case
from rag.evaluation.pacing import Pace
from rag.evaluation.run_store import Cell, CellPassage, Run, RunStatus, RunStore
from rag.evaluation.scoring import Judge, Scorer
from rag.tracing.budget import Budget, NoBudget
from rag.types import Answer, Ask

# Cases per read.
PAGE = 200
# Consecutive failures after which the cause must lie outside of the cases.
GIVE_UP_AFTER = 20


@dataclass(frozen=True, slots=True)
class ReadyVariant:
    """A variant that is ready to answer.

    Attributes:
        state: Identity of the release and of its index's state, which determine the answers.
        start: Starts to answer a question, like ``rag.answering.assistant.Assistant.start``.
    """

    state: str
    start: Callable[[Ask], AnswerStream]


@dataclass(frozen=True, slots=True)
class EvaluationProgress:
    """Progress of a run.

    Attributes:
        done, total: Answers of the run.
        cached, failed: Answers since the run was started or resumed.
        seconds_left: Estimate; None if there is no basis for one yet.
        waiting_s: Seconds until the next question, if a limit of a model server is reached; else 0.
    """

    done: int
    total: int
    cached: int = 0
    failed: int = 0
    seconds_left: float | None = None
    waiting_s: float = 0.0


@dataclass(frozen=True)
class Evaluation:
    """A run with everything that it needs.

    Attributes:
        run: A run that was begun or resumed.
        size: Number of cases.
        cases: Returns the cases from a start to an end position.
        variants: The variants of the plan, in order.
        cache: None to answer without a cache.
        on_progress: Called after every answer.
        on_cached: Called in a thread with every answer of the cache, once it is stored.
        budget: Stops the run before a case that it does not allow.
    """

    run: Run
    size: int
    cases: Callable[[int, int], Sequence[Case]]
    variants: Sequence[ReadyVariant]
    store: RunStore
    scorer: Scorer
    judge: Judge
    cache: AnswerCache | None
    on_progress: Callable[[EvaluationProgress], None] = lambda _: None
    on_cached: Callable[[Answer], None] = lambda _: None
    budget: Budget = field(default_factory=NoBudget)

    async def work(self, stop: asyncio.Event) -> RunStatus:
        """Answer everything that is missing.

        Args:
            stop: When set, the run stops after the answers in progress.

        Returns:
            ``finished``, ``stopped`` or ``failed``, which is also stored as the status of the run.

        Raises:
            DatabaseError: The database refuses.
        """
        status: RunStatus = "interrupted"
        error = ""
        try:
            status, error = await _Pass(self, stop).work()
        except ExceptionGroup as several:
            known = several.subgroup(RagsmithError)
            if known is None:
                raise
            # The failure of one worker ends all of them.
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
    failed_before: bool


class _Pass:
    """One pass over the missing answers of a run."""

    def __init__(self, evaluation: Evaluation, stop: asyncio.Event) -> None:
        self._evaluation = evaluation
        self._stop = stop
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._before = self._done = self._cached = self._failed = self._failed_in_a_row = 0
        self._error = self._over_budget = ""
        self._started = time.monotonic()
        self._pace = Pace(evaluation.run.plan.at_once, stop, self._show)

    async def work(self) -> tuple[RunStatus, str]:
        self._before = await asyncio.to_thread(self._evaluation.store.count, self._evaluation.run.id)
        workers = self._evaluation.run.plan.at_once
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
        if self._pace.problem or self._over_budget or self._stop.is_set():
            return "stopped", self._pace.problem or self._over_budget
        answered = await asyncio.to_thread(self._evaluation.store.count, self._evaluation.run.id)
        # A run without any answer measures nothing, however small it is.
        return ("finished", "") if answered or not self._error else ("failed", self._error)

    async def _may_spend(self) -> bool:
        """Whether the budget allows another case; the run ends if not, and can be resumed later."""
        budget = self._evaluation.budget
        if not budget.is_limited:
            return True
        budget.spent()
        try:
            await asyncio.to_thread(budget.check)
        except BudgetSpent as error:
            self._over_budget = str(error)
        return not self._over_budget

    @property
    def _gave_up(self) -> bool:
        return self._failed_in_a_row >= GIVE_UP_AFTER

    @property
    def _ends(self) -> bool:
        return self._stop.is_set() or self._gave_up or bool(self._pace.problem or self._over_budget)

    async def _jobs(self) -> AsyncIterator[_Job]:
        """Yield what must be answered, in the order of the cases."""
        evaluation = self._evaluation
        for start in range(0, evaluation.size, PAGE):
            end = min(start + PAGE, evaluation.size)
            cases = await asyncio.to_thread(evaluation.cases, start, end)
            known = await asyncio.to_thread(evaluation.store.statuses, evaluation.run.id, start, end)
            for position, case in enumerate(cases, start):
                for variant in range(len(evaluation.variants)):
                    if self._ends:
                        return
                    status = known.get((variant, position), "failed")
                    if status == "failed":
                        yield _Job(case, position, variant, failed_before=(variant, position) in known)

    async def _worker(self, jobs: asyncio.Queue[_Job | None]) -> None:
        while (job := await jobs.get()) is not None:
            # Jobs that still wait in the queue are dropped.
            if self._ends or not await self._may_spend():
                continue
            if cell := await self._answer(job):
                self._report(cell, failed_before=job.failed_before)

    async def _answer(self, job: _Job) -> Cell | None:
        """Answer one case with one variant, and store the scored answer; None if the run ends before."""
        run, store, cache = self._evaluation.run, self._evaluation.store, self._evaluation.cache
        ask = Ask(job.case.question, job.case.history, run.plan.corpus, run.id, paced=True, purpose="evaluation")
        variant = self._evaluation.variants[job.variant]
        key = key_of(variant.state, ask.question, ask.history)
        # Equal variants answer a case only once.
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            known = await asyncio.to_thread(cache.get, key) if cache else None
            answer = known or await self._pace.ask(lambda: _answered(variant, ask))
            if answer is None:
                return None
            cell = await self._cell(job, answer, cached=known is not None)
            # Stored before it is cached: a crash in between would make a resumed run record it as not paid for.
            if cell:
                await asyncio.to_thread(store.keep, run.id, [cell])
                if known:
                    await asyncio.to_thread(self._evaluation.on_cached, known)
            # What a filter ended may be whole the next time.
            if cache and known is None and answer.status in ("answered", "abstained") and not answer.filtered:
                await asyncio.to_thread(cache.put, key, answer)
        return cell

    async def _cell(self, job: _Job, answer: Answer, *, cached: bool) -> Cell | None:
        """Score an answer; None if the run ends before it is judged."""
        scores = await asyncio.to_thread(self._evaluation.scorer.score, job.case, answer)
        judged = await self._pace.ask(lambda: self._evaluation.judge.judge(job.case, answer), begun=True)
        if judged is None:
            return None
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
            scores=scores | judged.scores | judged.spent,
            rationale=judged.reason,
            passages=tuple(passages),
            trace_id=answer.trace_id,
            latency_s=answer.latency_s,
            input_tokens=answer.usage.input_tokens,
            output_tokens=answer.usage.output_tokens,
            cost_usd=answer.cost_usd,
            cached=cached,
        )

    def _report(self, cell: Cell, *, failed_before: bool) -> None:
        self._done += 1
        self._cached += cell.cached
        failed = cell.status == "failed"
        self._failed += failed
        # A resumed run repeats its failures first, which may be the fault of their cases.
        if not (failed_before and failed):
            self._failed_in_a_row = self._failed_in_a_row + 1 if failed else 0
        self._error = cell.error or self._error
        self._show()

    def _show(self) -> None:
        total = self._evaluation.size * len(self._evaluation.variants)
        # Cached answers take no time, so they do not count towards the estimate.
        asked = self._done - self._cached
        passed = time.monotonic() - self._started
        left = passed / asked * max(total - self._before - self._done, 0) if asked else None
        done, waiting = self._before + self._done, self._pace.waiting_s
        self._evaluation.on_progress(EvaluationProgress(done, total, self._cached, self._failed, left, waiting))


async def _answered(variant: ReadyVariant, ask: Ask) -> Answer:
    """Return the answer of a variant.

    Raises:
        ModelLimited: A limit of the model server is reached.
    """
    answer = await variant.start(ask).answer()
    if answer.limited:
        raise ModelLimited(answer.error, after_s=answer.limited_s)
    return answer
