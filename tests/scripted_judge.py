"""A judging model that follows a script, and what it judges."""

from __future__ import annotations

import json
from typing import Any

from tiny import ScriptedChat

from prompts import PromptTemplate, find_prompt
from rag.evaluation.cases import Case
from rag.evaluation.judge import ModelJudge
from rag.evaluation.run_store import Score
from rag.evaluation.scoring import Judgement
from rag.types import Answer, AnswerStatus, Hit, Passage

PROMPT = find_prompt("judge-answer@1")
REPAIR = find_prompt("repair-json@1")
CASE = Case(id="1", question="When was the gauge installed?", answers=("1871", "in the year 1871"))
FAILED = {"judge_errors": Score(1)}


def hit(text: str, title: str = "Tides") -> Hit:
    return Hit(Passage(1, 1, "/docs/tides.md", "tides.md", title, text, 0, len(text), ("Gauge",), 2), 0.5)


def answer(text: str = "In 1871. [1]", *passages: str, status: AnswerStatus = "answered") -> Answer:
    return Answer(text, status, hits=tuple(map(hit, passages or ("The gauge was installed in 1871.",))))


def gives(score: object, reason: str = "Because.") -> str:
    return json.dumps({"reason": reason, "score": score})


def replies(*texts: str) -> ScriptedChat:
    """A model that writes one text after the other, each in two pieces, and fails when it is asked once more."""
    left = [(text[:3], text[3:]) for text in texts]
    return ScriptedChat(reply=lambda _: left.pop(0))


def judge_by(model: ScriptedChat, prompt: PromptTemplate = PROMPT, **told: Any) -> ModelJudge:
    return ModelJudge(model, prompt, "openai:judge-1", repair=REPAIR, **told)


async def judged(model: ScriptedChat, case: Case = CASE, given: Answer | None = None, **told: Any) -> Judgement:
    return await judge_by(model, **told).judge(case, given or answer())
