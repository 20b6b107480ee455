"""What a model thinks aloud before its answer is no part of the answer, however its reply is split."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scripted_openai import WRONG_TYPES, answered_by, says
from tiny import CORPUS, FOLLOW_UP, QUESTION, SENTENCE, ScriptedChat, only_llm, scripted, steps_of, told

from rag.models.thoughts import Spoken, ThoughtFilter, without_thoughts
from rag.types import Ask, Done, Token
from ui.app.app import App

pytestmark = WRONG_TYPES

MUSING = "<think>\nPassage [2] is about ferries, [3] about bread. 1871?\n</think>\n\n"


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("In 1871. [1]", "In 1871. [1]"),
        (f"{MUSING}In 1871. [1]", "In 1871. [1]"),
        ("\n <THINKING>a</Thinking>b", "b"),
        ("<thought></thought><think>\n\n</think>\n\nb", "b"),
        # Other models have other tags.
        ("<|Thought|>a < b<|/Thought|>\nb", "b"),
        ("<reasoning>a</reasoning>\n<thoughts>b</thoughts>c", "c"),
        ("[THINK]See [2].[/THINK]In 1871. [1]", "In 1871. [1]"),
        ("◁think▷a◁/think▷b", "b"),
        ("<seed:think>a</seed:think>b", "b"),
        ("<|begin_of_thought|>a<|end_of_thought|>\n\nb", "b"),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b", "b"),
        ("<|channel|>final<|message|>b", "b"),
        ("<|start|>assistant<|channel|>analysis<|message|>a<|end|><|channel|>final<|message|>b<|return|>", "b"),
        ("analysisWe look at [2].assistantfinalIn 1871.", "In 1871."),
        ("<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>b<|END_RESPONSE|>", "b"),
        ("<unused94>thought\na<unused95>b", "b"),
        ("Here's my thought process:\na\nHere is my response:\nb", "b"),
        ("Thinking...\na\n...done thinking.\n\nb", "b"),
        ("```thinking\na\n```\nb", "b"),
        ('<details type="reasoning" done="true">\n> a\n</details>\nb', "b"),
        ('<think time="3">a</think>\nb', "b"),
        ("<analysis>a</analysis>b", "b"),
        ("\ufeff<think>a</think>b", "b"),
        # Behind thoughts, an answer may have tags of its own.
        ("<think>a</think>\n<answer>\nb</answer>\n", "b"),
        ("a\n</think>\n<response>b</response>", "b"),
        # Of a chat template.
        ("<|im_start|>assistant\n<think>a</think>b<|im_end|>\n</s>", "b"),
        # Some models think again.
        ("In 1871. [1]\n\n<think>\nOr [2]?\n</think>", "In 1871. [1]"),
        ("In 1871. [1]\n<think>\nOr [2]?", "In 1871. [1]"),
        # Some templates put the beginning into the prompt.
        ("So it was 1871, I think.\n</think>\n\nIn 1871. [1]", "In 1871. [1]"),
        ("First.</think>\nIn 1871.", "In 1871."),
        ("<think>a <think> b</think>\nc</think>\nd", "d"),
        # An answer about tags keeps them.
        ("Thoughts stand between <think> and </think> there. [1]", None),
        ("Use `</think>`\nto end them. [1]", None),
        ("```\n<think>\n</think>\n```\nis the form. [1]", None),
        ("a < b, and <thin", None),
        ("<think", None),
        ("[1] says so, and [TH", None),
        ("<answer>\n<reasoning>a</reasoning>\n<result>b</result>\n</answer>", None),
        ("<thinker>", None),
        ("analysis of the tides", None),
        ("A turn ends with <|im_end|> there. [1]", None),
        ("<answer>b</answer>", None),
        ("1 </", None),
        ("", ""),
    ],
)
def test_only_the_answer_is_left(reply: str, answer: str | None) -> None:
    assert without_thoughts(reply) == Spoken(reply if answer is None else answer, thinking=False)


@pytest.mark.parametrize(
    "reply", ["<think>So", "<think>", "<think>a</think>\n<think>b</thin", "<think>a</thinker>"]
)
def test_thoughts_that_never_end_leave_no_answer(reply: str) -> None:
    assert without_thoughts(reply) == Spoken("", thinking=True)


PARTS = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<thi",
        "nk>",
        "[THINK]",
        "[/THINK]",
        "[/TH",
        "</s>",
        "</s",
        "</",
        "\n",
        " ",
        "a",
        "<",
        ">",
        "[1]",
        "`",
    ]
)


@given(st.lists(PARTS, max_size=12).map("".join), st.lists(st.integers(0, 40), max_size=6))
@example("<think>a</think>b", list(range(18)))
def test_a_reply_reads_the_same_however_it_is_split(reply: str, places: list[int]) -> None:
    cuts = sorted({0, len(reply), *(place for place in places if place < len(reply))})
    whole, split = ThoughtFilter(), ThoughtFilter()
    pieces = [split.feed(reply[start:end]) for start, end in pairwise(cuts)]
    assert "".join(pieces) + split.end() == whole.feed(reply) + whole.end()
    assert split.thinking == whole.thinking


@pytest.mark.parametrize(
    "unit", ["<think></think>", "</think>\n", "<think>", "\n<think>", "<", " ", "`</think>", "</s> "]
)
def test_a_long_reply_takes_linear_time(unit: str) -> None:
    began = time.process_time()
    without_thoughts(unit * (1_000_000 // len(unit)))
    assert time.process_time() - began < 2


# In an answer


async def test_thoughts_are_neither_shown_nor_cited_and_stay_in_the_trace(app: App) -> None:
    reply = f"{MUSING}{SENTENCE} [1]"
    events = await told(scripted(app, *reply).start(Ask(QUESTION, corpus=CORPUS)))
    answer = events[-1]
    assert isinstance(answer, Done)
    assert answer.answer.text == f"{SENTENCE} [1]"
    assert answer.answer.status == "answered"
    assert [citation.marker for citation in answer.answer.citations] == [1]
    assert "".join(event.text for event in events if isinstance(event, Token)) == f"{SENTENCE} [1]"
    output: Any = only_llm(app.stores.traces.get(answer.answer.trace_id)).output
    assert output["content"] == reply


async def test_a_refusal_behind_thoughts_is_one(app: App) -> None:
    refusal = steps_of(app, ScriptedChat()).refusal
    answer, _ = await answered_by(app, says(MUSING, refusal))
    assert (answer.status, answer.text) == ("abstained", refusal)


async def test_thoughts_that_were_cut_off_are_a_failure(app: App) -> None:
    answer, _ = await answered_by(app, says("<think>\nLet me see: ", SENTENCE, ending="length"))
    assert answer.status == "failed"
    assert "within its thoughts, without an answer (finish reason: length)" in answer.error
    assert "decoding.max_tokens" in answer.error


async def test_a_follow_up_is_rewritten_without_the_thoughts(app: App) -> None:
    answer, server = await answered_by(
        app, says(MUSING, f"{SENTENCE} [1]"), question="When was it installed?", history=FOLLOW_UP
    )
    assert len(server.received) == 2
    assert answer.standalone == f"{SENTENCE} [1]"
