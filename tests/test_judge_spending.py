"""A judge may think before it judges, and what it reads and writes is counted."""

from __future__ import annotations

import pytest
from scripted_judge import CASE, FAILED, answer, gives, judge_by, judged, replies

from rag.evaluation.run_store import Score


@pytest.mark.parametrize("thoughts", ['<think>hm {"score": 1}</think>\n', '{"score": 1}? No.\n</think>\n\n'])
async def test_a_judge_may_think_first(thoughts: str) -> None:
    assert (await judged(replies(thoughts + gives(4)))).scores["judge"] == Score(4)


@pytest.mark.parametrize("reply", ["", " \n", "<think>It says 1871, and the right answer"])
async def test_a_judge_that_writes_no_judgement_is_an_error_that_costs(reply: str) -> None:
    model = replies(reply)
    given = await judged(model, price=lambda usage, _: (usage.input_tokens or 0) / 1000)
    assert given.scores == FAILED
    assert given.spent == {"judge_tokens": Score(102), "judge_cost": Score(0.1)}
    assert len(model.sent) == 1


async def test_tokens_and_cost_of_a_judge_are_counted_once_with_every_request() -> None:
    model = replies("Five points!", gives(5))
    judge = judge_by(model, price=lambda usage, _: (usage.output_tokens or 0) * 2.0)
    assert (await judge.judge(CASE, answer())).spent == {"judge_tokens": Score(204), "judge_cost": Score(8.0)}
    assert (await judge.judge(CASE, answer())).spent == {}
    # A price that nobody knows is not 0.
    assert (await judged(replies(gives(5)))).spent == {"judge_tokens": Score(102)}
