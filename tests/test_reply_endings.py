"""A reply that was blocked is a failure with its reason, and never an honest refusal."""

from __future__ import annotations

from typing import Any

import pytest
from scripted_openai import WRONG_TYPES, Received, Reply, Script, answered_by, chunk, says
from tiny import FOLLOW_UP, SENTENCE, only_llm

from rag.models.reply_endings import writes_call
from ui.app.app import App
from ui.commands._answers import _footer
from ui.pages.chat.answer_html import footer_html

pytestmark = WRONG_TYPES


def sends(*deltas: dict[str, Any], ending: str = "stop") -> Script:
    """Stream these deltas, then the usage."""

    def script(reply: Reply, _: Received) -> None:
        reply.head()
        for delta in deltas:
            reply.event(chunk(delta))
        reply.finish(ending)

    return script


CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "search", "arguments": "{}"}}
BLOCKED: dict[str, tuple[Script, str]] = {
    "filtered": (
        says(ending="content_filter"),
        "content filter withheld the answer (finish reason: content_filter)",
    ),
    "filtered for safety": (says(ending="SAFETY"), "content filter withheld the answer (finish reason: SAFETY)"),
    "filtered behind a proxy": (says(ending="guardrail-intervened"), "content filter withheld the answer"),
    "a tool of another kind": (says("I will search.", ending="tool_use"), "calls a tool instead of answering"),
    "out of tokens by another name": (says(ending="MAX_TOKENS"), "used up its tokens before it wrote an answer"),
    "refused": (
        sends({"refusal": "I can't help "}, {"refusal": "with that."}),
        "refuses to answer: I can't help with that (finish reason: stop)",
    ),
    "a tool": (sends({"tool_calls": [CALL]}, ending="tool_calls"), "calls a tool instead of answering"),
    "a tool after a preface": (
        sends({"content": "I will search."}, {"tool_calls": [CALL]}, ending="tool_calls"),
        "calls a tool instead of answering (finish reason: tool_calls)",
    ),
    "a tool that ends like an answer": (
        sends({"content": "I will search."}, {"tool_calls": [CALL]}),
        "calls a tool instead of answering (finish reason: stop)",
    ),
    "a function": (sends({"content": "So."}, {"function_call": {"name": "a"}}), "calls a tool instead"),
    "a tool in its text": (
        says('I will search.\n<tool_call>\n{"name": "search"}\n</tool_call>'),
        "calls a tool instead of answering",
    ),
    "filtered by Gemini": (
        says("Verdi composed", ending="content_filter: RECITATION"),
        "content filter ended the answer before",
    ),
    "an enumeration": (says(ending="FinishReason.SAFETY"), "content filter withheld the answer"),
    "only marks": (says('"…" [1]\u200b'), "wrote nothing"),
    "a broken model": (says("!" * 40), "wrote nothing"),
    "empty": (says(), "wrote nothing (finish reason: stop)"),
    "white space": (says(" ", "\n"), "wrote nothing (finish reason: stop)"),
    "only thoughts": (sends({"reasoning_content": "Hm."}, {"reasoning_content": " So."}), "wrote only thoughts"),
    "out of tokens": (says(ending="length"), "used up its tokens before it wrote an answer"),
    "aborted": (says(SENTENCE, ending="abort"), "ended the answer early (finish reason: abort)"),
    # Neither supported nor a refusal: what they would have said, nobody knows.
    "filtered early": (says("Verdi composed", ending="content_filter"), "content filter ended the answer before"),
    "cut early": (says("Verdi composed", ending="length"), "used up its tokens before anything"),
}


@pytest.mark.parametrize("name", BLOCKED)
async def test_a_blocked_reply_is_a_failure_with_its_reason(app: App, name: str) -> None:
    script, reason = BLOCKED[name]
    answer, _ = await answered_by(app, script)
    assert (answer.status, answer.text) == ("failed", "")
    assert reason in answer.error
    trace = app.stores.traces.get(answer.trace_id)
    assert trace.status == ("filtered" if answer.filtered else "error")
    # It was paid for.
    assert (trace.input_tokens, trace.output_tokens) == (40, 3)


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ('[TOOL_CALLS][{"name": "search"}]', True),
        ("<function=search>{}</function>", True),
        ("<function_calls>\n<invoke>", True),
        ("<|tool_calls_section_begin|>", True),
        ("<｜tool▁calls▁begin｜>", True),
        ('<|python_tag|>search.call("a")', True),
        ("A call begins with <tool_call> there. [1]", False),
        ("```\n<tool_call>\n```\nis the form. [1]", False),
    ],
)
def test_a_call_in_the_text_is_known(text: str, calls: bool) -> None:
    assert writes_call(text) is calls


async def test_what_a_server_sends_apart_stays_in_the_trace(app: App) -> None:
    script = sends({"reasoning_content": "By "}, {"reasoning": "whom?"}, {"content": f"{SENTENCE} [1]"})
    answer, _ = await answered_by(app, script)
    assert answer.text == f"{SENTENCE} [1]"
    output: Any = only_llm(app.stores.traces.get(answer.trace_id)).output
    assert output["additional_kwargs"] == {"reasoning_content": "By whom?"}


async def test_an_answer_that_was_filtered_midway_says_so(app: App) -> None:
    answer, _ = await answered_by(app, says(f"{SENTENCE} [1]", ending="content_filter"))
    assert (answer.status, answer.text, answer.filtered) == ("answered", f"{SENTENCE} [1]", True)
    for footer in (footer_html(answer), _footer(answer)):
        assert "ended early by a content filter" in footer


@pytest.mark.parametrize(
    "ending", ["length", "max_tokens", "MODEL_LENGTH", "FinishReason.MAX_TOKENS", "token_limit"]
)
async def test_an_answer_that_a_limit_ended_says_so(app: App, ending: str) -> None:
    answer, _ = await answered_by(app, says(f"{SENTENCE} [1]", ending=ending))
    assert (answer.status, answer.cut) == ("answered", True)


async def test_an_answer_that_was_withheld_is_not_said_to_have_ended_early(app: App) -> None:
    answer, _ = await answered_by(app, says(ending="content_filter"))
    assert (answer.status, answer.filtered, answer.notes) == ("failed", True, ())


async def test_a_refusal_is_one_even_if_it_ends_early(app: App) -> None:
    refusal = "The documents do not answer this question."
    answer, _ = await answered_by(app, says(f"{refusal} But", ending="length"))
    assert (answer.status, answer.text) == ("abstained", refusal)


async def test_a_finish_reason_that_comes_twice_counts_once(app: App) -> None:
    def script(reply: Reply, _: Received) -> None:
        reply.head()
        reply.piece(f"{SENTENCE} [1]")
        reply.event(chunk({}, finish_reason="length"))
        reply.finish("length")

    answer, _ = await answered_by(app, script)
    assert answer.cut


async def test_a_follow_up_that_cannot_be_rewritten_is_searched_as_it_is(app: App) -> None:
    def script(reply: Reply, request: Received) -> None:
        rewrites = "You rewrite" in str(request.body["messages"][0])
        (says(ending="content_filter") if rewrites else says(f"{SENTENCE} [1]"))(reply, request)

    question = "When was the tide gauge installed?"
    answer, server = await answered_by(app, script, question=question, history=FOLLOW_UP)
    assert len(server.received) == 2
    assert (answer.status, answer.standalone) == ("answered", question)
