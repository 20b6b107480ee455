"""A run asks as many questions at a time as it may, each once, and one process works on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import pytest
from sqlalchemy import update
from streams import stream_of

from rag.answering.answer_stream import AnswerStream
from rag.database import open_database, writing
from rag.encoders import Encoder
from rag.errors import DatabaseError, EvaluationError, ModelLimited
from rag.evaluation.cache import AnswerCache
from rag.evaluation.cases import Case
from rag.evaluation.run_store import Cell, Plan, Run, RunStore, Score
from rag.evaluation.runner import GIVE_UP_AFTER, Evaluation, EvaluationProgress, ReadyVariant
from rag.evaluation.scoring import Judgement, NullJudge, Scorer
from rag.evaluation.variants import Variant
from rag.settings import CostSettings
from rag.tables import evaluation_runs
from rag.tracing.budget import open_budget
from rag.tracing.ledger import Expense, Ledger
from rag.tracing.processes import process_identity
from rag.types import Answer, Ask, Done, Event, Started, Turn, Usage
from rag.workspace import Workspace


def many(count: int) -> list[Case]:
    """Cases that nothing is known of."""
    return [Case(id=str(number), question=f"What is {number}?") for number in range(count)]


class Crew:
    """Answers that are made up, with a note of what was asked and of how many were asked at a time.

    Attributes:
        answer: From a question to its answer.
    """

    def __init__(self, answer: Callable[[Ask], Answer] | None = None, pause_s: float = 0.0) -> None:
        self.answer = answer or (lambda ask: Answer(f"About {ask.question}", "answered", cost_usd=0.25))
        self.asked: list[str] = []
        self.most = 0
        self._now = 0
        self._pause_s = pause_s

    def __call__(self, ask: Ask) -> AnswerStream:
        return stream_of(self._events(ask))

    async def _events(self, ask: Ask) -> AsyncGenerator[Event, None]:
        self.asked.append(ask.question)
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            yield Started("t")
            await asyncio.sleep(self._pause_s)
            yield Done(self.answer(ask))
        finally:
            self._now -= 1


class Made:
    """A run of its own in a fresh workspace."""

    def __init__(self, workspace: Workspace, encoder: Encoder) -> None:
        self.engine = open_database(workspace)
        self.store = RunStore(self.engine)
        self.scorer = Scorer(encoder)

    def begin(self, variants: int = 1, at_once: int = 4) -> Run:
        names = tuple(Variant(name=f"v{number}") for number in range(variants))
        plan = Plan(variants=names, states=tuple(each.name for each in names), corpus="c", at_once=at_once)
        return self.store.begin(plan, name="n", dataset="d", version=1, sha256="0" * 64)

    def evaluation(self, run: Run, cases: Sequence[Case], *crews: Crew, cached: bool = True) -> Evaluation:
        return Evaluation(
            run=run,
            size=len(cases),
            cases=lambda start, end: cases[start:end],
            variants=[ReadyVariant(f"v{number}", crew) for number, crew in enumerate(crews)],
            store=self.store,
            scorer=self.scorer,
            judge=NullJudge(),
            cache=AnswerCache(self.engine) if cached else None,
        )


@pytest.fixture
def made(workspace: Workspace, encoder: Encoder) -> Iterator[Made]:
    given = Made(workspace, encoder)
    yield given
    given.engine.dispose()


@pytest.mark.parametrize("at_once", [1, 5])
async def test_so_many_questions_are_asked_at_a_time_and_never_more(made: Made, at_once: int) -> None:
    crew = Crew(pause_s=0.02)
    run = made.begin(at_once=at_once)
    assert await made.evaluation(run, many(30), crew).work(asyncio.Event()) == "finished"
    assert crew.most == at_once
    assert sorted(crew.asked) == sorted(case.question for case in many(30))


async def test_more_cases_than_are_read_at_once_are_all_answered_once(made: Made) -> None:
    crews = (Crew(), Crew())
    run = made.begin(variants=2, at_once=8)
    await made.evaluation(run, many(450), *crews, cached=False).work(asyncio.Event())
    for number, crew in enumerate(crews):
        assert len(crew.asked) == len(set(crew.asked)) == 450
        assert [cell.position for cell in made.store.cells(run.id, number)] == list(range(450))


@pytest.mark.parametrize(("cached", "asked"), [(True, 2), (False, 6)])
async def test_the_same_question_in_one_run_is_asked_once_where_answers_are_kept(
    made: Made, cached: bool, asked: int
) -> None:
    same = [Case(id=str(each), question="Why?", history=(Turn("A?", "B."),) * (each % 2)) for each in range(6)]
    crew = Crew(pause_s=0.01)
    run = made.begin(at_once=6)
    await made.evaluation(run, same, crew, cached=cached).work(asyncio.Event())
    cells = list(made.store.cells(run.id, 0))
    assert len(crew.asked) == asked
    assert sum(not cell.cached for cell in cells) == asked
    # What it costs to ask does not depend on who has asked before.
    assert [cell.cost_usd for cell in cells] == [0.25] * 6


async def test_a_spent_budget_ends_a_run_before_a_case_and_it_can_be_resumed(made: Made) -> None:
    ledger = Ledger(made.engine)
    budget = open_budget(ledger, CostSettings(day_usd=1.0))
    crew = Crew()

    def cost(ask: Ask) -> Answer:
        ledger.add(Expense("judging", "run", "judge", "m", "2026-03-01", 0.25))
        return Answer(f"About {ask.question}", "answered", cost_usd=0.25)

    crew.answer = cost
    run = made.begin(at_once=1)
    cases = many(9)
    evaluation = replace(made.evaluation(run, cases, crew), budget=budget)
    assert await evaluation.work(asyncio.Event()) == "stopped"
    assert made.store.get(run.id).error.startswith("The budget of the day is spent: $1.00 of $1.00. Raise")
    assert [cell.status for cell in made.store.cells(run.id, 0)] == ["answered"] * 4
    again = made.store.resume(made.store.get(run.id))
    assert await made.evaluation(again, cases, crew).work(asyncio.Event()) == "finished"
    assert len(crew.asked) == 9


async def test_an_answer_of_the_cache_is_reported_with_what_it_had_cost(made: Made) -> None:
    saved: list[float | None] = []
    for _ in range(2):
        run = made.begin()
        evaluation = made.evaluation(run, many(3), Crew())
        await replace(evaluation, on_cached=lambda answer: saved.append(answer.cost_usd)).work(asyncio.Event())
    assert saved == [0.25] * 3


async def test_failures_of_one_way_do_not_end_a_run_whose_other_way_answers(made: Made) -> None:
    bad = Crew(lambda _: Answer("", "failed", error="No."))
    run = made.begin(variants=2, at_once=1)
    cases = many(GIVE_UP_AFTER + 5)
    assert await made.evaluation(run, cases, Crew(), bad).work(asyncio.Event()) == "finished"
    assert [cell.status for cell in made.store.cells(run.id, 1)] == ["failed"] * len(cases)


async def test_a_run_is_given_up_after_so_many_failures_in_a_row(made: Made) -> None:
    def every_twentieth(ask: Ask) -> Answer:
        number = int(ask.question.split()[-1].rstrip("?"))
        return Answer("Yes.", "answered") if number % GIVE_UP_AFTER == 0 else Answer("", "failed", error="No.")

    hardly, never = Crew(every_twentieth), Crew(lambda _: Answer("", "failed", error="No."))
    run = made.begin(at_once=1)
    assert await made.evaluation(run, many(60), hardly, cached=False).work(asyncio.Event()) == "finished"
    run = made.begin(at_once=1)
    assert await made.evaluation(run, many(60), never, cached=False).work(asyncio.Event()) == "failed"
    assert len(never.asked) == GIVE_UP_AFTER
    ended = made.store.get(run.id)
    assert (ended.status, ended.error) == ("failed", "No.")


async def test_a_run_without_any_answer_has_failed_however_few_cases_it_has(made: Made) -> None:
    never = Crew(lambda _: Answer("", "failed", error="No key."))
    run = made.begin(variants=2)
    assert await made.evaluation(run, many(3), never, never).work(asyncio.Event()) == "failed"
    assert made.store.get(run.id).error == "No key."


async def test_a_finished_run_is_resumed_for_the_answers_that_failed(made: Made) -> None:
    def odd(ask: Ask) -> Answer:
        return (
            Answer("", "failed", error="Busy.")
            if ask.question in ("What is 1?", "What is 3?")
            else Answer("Yes.", "answered")
        )

    run, again = made.begin(), Crew()
    assert await made.evaluation(run, many(5), Crew(odd)).work(asyncio.Event()) == "finished"
    assert made.store.is_resumable(run)
    resumed = made.store.resume(run)
    assert await made.evaluation(resumed, many(5), again).work(asyncio.Event()) == "finished"
    assert sorted(again.asked) == ["What is 1?", "What is 3?"]
    assert made.store.count(run.id) == 5
    assert not made.store.is_resumable(run)
    with pytest.raises(EvaluationError, match="none of its answers failed"):
        made.store.resume(run)


async def test_an_answer_that_a_filter_ended_is_asked_again_by_later_runs(made: Made) -> None:
    filtered = Crew(lambda _: Answer("The gauge", "answered", filtered=True))
    for _ in range(2):
        await made.evaluation(made.begin(), many(1), filtered).work(asyncio.Event())
    assert len(filtered.asked) == 2


async def test_cases_that_failed_before_do_not_end_a_run_that_is_taken_up(made: Made) -> None:
    def hard(ask: Ask) -> Answer:
        number = int(ask.question.split()[-1].rstrip("?"))
        return Answer("Yes.", "answered") if number % 2 else Answer("", "failed", error="Too hard.")

    cases = many(GIVE_UP_AFTER * 3)
    run, stop = made.begin(at_once=1), asyncio.Event()

    def nearly_all(now: EvaluationProgress) -> None:
        if now.done == len(cases) - 2:
            stop.set()

    evaluation = replace(made.evaluation(run, cases, Crew(hard)), on_progress=nearly_all)
    assert await evaluation.work(stop) == "stopped"
    run = made.store.resume(run)
    assert await made.evaluation(run, cases, Crew(hard)).work(asyncio.Event()) == "finished"
    assert made.store.count(run.id) == len(cases) // 2


async def test_a_failure_is_not_kept_for_later_runs(made: Made) -> None:
    bad = Crew(lambda _: Answer("", "failed", error="No."))
    await made.evaluation(made.begin(), many(2), bad).work(asyncio.Event())
    crew = Crew()
    await made.evaluation(made.begin(), many(2), crew).work(asyncio.Event())
    assert len(crew.asked) == 2


async def test_an_answer_that_was_paid_for_keeps_its_cost_through_a_crash(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever comes first, the cell or the cache: between the two everything may end."""
    run = made.begin(at_once=1)
    evaluation = made.evaluation(run, many(3), Crew())

    def ends(*_: object) -> None:
        raise DatabaseError("The power is gone.")

    for side in (AnswerCache, RunStore):
        with monkeypatch.context() as patched:
            patched.setattr(side, {AnswerCache: "put", RunStore: "keep"}[side], ends)
            with pytest.raises(DatabaseError, match="The power is gone"):
                await evaluation.work(asyncio.Event())
        interrupted = made.store.get(run.id)
        assert (interrupted.status, interrupted.error) == ("interrupted", "The power is gone.")
        assert made.store.resume(run).status == "running"
    assert await evaluation.work(asyncio.Event()) == "finished"
    assert [(cell.cached, cell.cost_usd) for cell in made.store.cells(run.id, 0)] == [(False, 0.25)] * 3


async def test_a_run_that_is_cancelled_is_interrupted_and_goes_on(made: Made) -> None:
    crew = Crew(pause_s=0.02)
    run = made.begin(at_once=2)
    task = asyncio.create_task(made.evaluation(run, many(8), crew).work(asyncio.Event()))
    while made.store.count(run.id) < 3:
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert made.store.get(run.id).status == "interrupted"
    kept = made.store.count(run.id)
    again = Crew()
    assert await made.evaluation(made.store.resume(run), many(8), again).work(asyncio.Event()) == "finished"
    assert len(again.asked) <= 8 - kept
    assert made.store.count(run.id) == 8


async def test_tokens_and_cost_that_nobody_knows_stay_unknown(made: Made) -> None:
    run = made.begin()
    unknown = Crew(lambda _: Answer("Yes.", "answered", usage=Usage(5, None), cost_usd=None, latency_s=1.5))
    await made.evaluation(run, many(1), unknown).work(asyncio.Event())
    cell = made.store.cell(run.id, 0, 0)
    assert cell is not None
    assert (cell.input_tokens, cell.output_tokens, cell.cost_usd, cell.latency_s) == (5, None, None, 1.5)


# Who works on a run


def test_what_a_dead_process_left_is_shown_as_interrupted(made: Made) -> None:
    dead, living = made.begin(), made.begin()
    host = process_identity().rsplit(":", 2)[0]
    with writing(made.engine) as connection:
        left = update(evaluation_runs).where(evaluation_runs.c.id == dead.id)
        connection.execute(left.values(process=f"{host}:1:0"))
    assert {run.id: run.status for run in made.store.list()} == {dead.id: "interrupted", living.id: "running"}
    assert made.store.resume(dead).status == "running"


def test_a_run_that_somebody_works_on_is_not_taken_up(made: Made) -> None:
    run = made.begin()
    with pytest.raises(EvaluationError, match="is running and cannot be resumed"):
        made.store.resume(run)


def test_of_many_that_resume_a_run_at_once_one_gets_it(made: Made) -> None:
    run = made.begin()
    made.store.end(run.id, "stopped")

    def tries(_: int) -> bool:
        try:
            return made.store.resume(run).status == "running"
        except EvaluationError:
            return False

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(tries, range(8))) == 1


def test_a_run_is_found_by_the_beginning_of_its_id(made: Made) -> None:
    run = made.begin()
    assert made.store.get(f" {run.id[:4]} ").id == run.id
    for wrong in (run.id[:3], "", "%%%%", "zzzzzzzz"):
        with pytest.raises(EvaluationError, match="There is no run"):
            made.store.get(wrong)


def test_a_cell_comes_back_as_it_was_kept_and_goes_with_its_run(made: Made) -> None:
    run = made.begin()
    odd = Cell(0, 0, "answered", answer="'; -- \u202e\U0001f4a9 {{x}}", scores={}, latency_s=0.5, cost_usd=None)
    made.store.keep(run.id, [odd, replace(odd, position=1)])
    made.store.keep(run.id, [replace(odd, answer="Better.")])
    assert [cell.answer for cell in made.store.cells(run.id, 0)] == ["Better.", odd.answer]
    assert made.store.cell(run.id, 0, 1) == replace(odd, position=1)
    assert [cell.answer for cell in made.store.cells(run.id, 0, texts=False)] == ["", ""]
    made.store.delete(run.id)
    assert made.store.cell(run.id, 0, 1) is None
    with pytest.raises(EvaluationError, match="There is no run"):
        made.store.get(run.id)


# Limits of a server


class Limited(Crew):
    """Answers that a server refuses as long as more than ``room`` are asked for at a time."""

    def __init__(self, room: int, after_s: float | None = 0.01, pause_s: float = 0.002) -> None:
        super().__init__(self._within, pause_s)
        self._room, self._after_s = room, after_s
        self.refused = 0

    def _within(self, ask: Ask) -> Answer:
        if self._now > self._room:
            self.refused += 1
            return Answer("", "failed", error="Too many requests.", limited=True, limited_s=self._after_s)
        return Answer("Yes.", "answered")


async def test_a_run_adapts_to_the_limit_of_a_server_and_answers_everything(made: Made) -> None:
    crew, run = Limited(room=2), made.begin(at_once=8)
    waited: list[float] = []
    evaluation = replace(
        made.evaluation(run, many(60), crew), on_progress=lambda now: waited.append(now.waiting_s)
    )
    assert await evaluation.work(asyncio.Event()) == "finished"
    assert [cell.status for cell in made.store.cells(run.id, 0)] == ["answered"] * 60
    # Eight at first; later hardly more than there is room for.
    assert crew.refused < 60
    assert any(waited)


async def test_a_server_is_asked_again_when_it_says(made: Made) -> None:
    crew, run = Limited(room=0, after_s=0.05), made.begin(at_once=1)

    def then_lifted(ask: Ask) -> Answer:
        asked_at.append(time.monotonic())
        return Limited._within(crew, ask) if len(asked_at) < 3 else Answer("Yes.", "answered")

    asked_at: list[float] = []
    crew.answer = then_lifted
    assert await made.evaluation(run, many(1), crew).work(asyncio.Event()) == "finished"
    assert all(later - earlier >= 0.05 for earlier, later in pairwise(asked_at))


async def test_a_wait_of_over_ten_minutes_ends_the_run_which_can_be_resumed(made: Made) -> None:
    def tomorrow(ask: Ask) -> Answer:
        if ask.question == "What is 3?":
            return Answer("", "failed", error="The server refuses: quota.", limited=True, limited_s=86_400.0)
        return Answer("Yes.", "answered")

    run, again = made.begin(at_once=2), Crew()
    assert await made.evaluation(run, many(8), Crew(tomorrow)).work(asyncio.Event()) == "stopped"
    ended = made.store.get(run.id)
    assert "asks to wait 24 h 0 min: The server refuses: quota." in ended.error
    # A question that could not be asked is missing, and has not failed.
    assert {cell.status for cell in made.store.cells(run.id, 0)} == {"answered"}
    assert await made.evaluation(made.store.resume(run), many(8), again).work(asyncio.Event()) == "finished"
    assert "What is 3?" in again.asked
    assert made.store.count(run.id) == 8


async def test_a_limit_that_is_never_lifted_ends_the_run(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.evaluation.pacing.LONGEST_WAIT_S", 0.2)
    run = made.begin()
    assert await made.evaluation(run, many(3), Limited(room=0)).work(asyncio.Event()) == "stopped"
    assert "does not lift it" in made.store.get(run.id).error


async def test_a_run_that_waits_can_be_stopped(made: Made) -> None:
    stop, run = asyncio.Event(), made.begin()
    evaluation = replace(
        made.evaluation(run, many(3), Limited(room=0, after_s=500.0)), on_progress=lambda _: stop.set()
    )
    assert await asyncio.wait_for(evaluation.work(stop), 20) == "stopped"
    assert made.store.get(run.id).error == ""


async def test_a_judge_at_its_limit_is_waited_for_and_the_answer_not_asked_again(made: Made) -> None:
    class Busy(NullJudge):
        asked = 0

        async def judge(self, case: Case, answer: Answer) -> Judgement:
            self.asked += 1
            if self.asked < 3:
                raise ModelLimited("Too many requests.", after_s=0.01)
            return Judgement({"judge": Score(4.0)})

    crew, run = Crew(), made.begin(at_once=1)
    evaluation = replace(made.evaluation(run, many(1), crew), judge=Busy())
    assert await evaluation.work(asyncio.Event()) == "finished"
    cell = made.store.cell(run.id, 0, 0)
    assert cell is not None
    assert (cell.scores or {})["judge"] == Score(4.0)
    assert len(crew.asked) == 1
