"""Model servers that refuse, are down, too slow or talk rubbish: one clear message each."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from scripted_openai import (
    KEY,
    WRONG_TYPES,
    Received,
    Reply,
    Script,
    ScriptedOpenAI,
    answered_by,
    chunk,
    refuses,
    reply_of,
    says,
    scripted_openai,
    scripts,
    settings_for,
    silent,
)

from rag.errors import ModelError, ModelLimited, ModelProtocolError, ModelTimeout, ModelUnavailable, NoAnswer
from rag.models.remote_model import LONGEST_REPLY
from ui.app.app import App

pytestmark = WRONG_TYPES


async def failure(script: Script, **openai: Any) -> tuple[ModelError, ScriptedOpenAI]:
    with scripted_openai(script) as server, pytest.raises(ModelError) as caught:
        await reply_of(settings_for(server.base_url, **openai))
    assert "\n" not in str(caught.value)
    assert caught.value.fix
    assert KEY not in str(caught.value)
    return caught.value, server


# What fails


@pytest.mark.parametrize(
    ("status", "fix"),
    [
        (400, "decoding"),
        (401, "OPENAI_API_KEY"),
        (403, "OPENAI_API_KEY"),
        (404, "/v1"),
        (422, "server's log"),
        (429, "Wait"),
        (500, "server's log"),
        (503, "server's log"),
    ],
)
async def test_a_server_that_refuses_is_quoted_and_the_fix_fits(status: int, fix: str) -> None:
    error, server = await failure(refuses(status, f"because of {status}"))
    assert isinstance(error, ModelUnavailable)
    assert f"The model server at {server.base_url} refuses: " in error.message
    assert f"because of {status}" in error.message
    assert fix in error.fix


@pytest.mark.parametrize(
    "body",
    [
        '[{"error": {"message": "no such key"}}]',
        '{"error": "no such key"}',
        '{"detail": [{"msg": "no such key"}]}',
    ],
)
async def test_a_reason_in_another_form_is_quoted(body: str) -> None:
    error, _ = await failure(lambda reply, _: reply.whole(422, body.encode()))
    assert error.message.endswith("refuses: Error code: 422 - no such key.")


async def test_a_prompt_that_a_filter_blocks_is_filtered() -> None:
    body = b'{"error": {"message": "The prompt was filtered.", "code": "content_filter", "param": "prompt"}}'
    error, server = await failure(lambda reply, _: reply.whole(400, body), max_retries=2)
    assert isinstance(error, NoAnswer)
    assert error.filtered
    assert "Rephrase" in error.fix
    assert len(server.received) == 1


async def test_a_page_of_html_is_not_quoted() -> None:
    page = b"<html>\r\n<head><title>502 Bad Gateway</title></head></html>"
    error, _ = await failure(lambda reply, _: reply.whole(502, page, "text/html"))
    assert isinstance(error, ModelUnavailable)
    assert error.message.endswith("refuses: Error code: 502.")


@pytest.mark.parametrize(("status", "asked"), [(429, 3), (500, 3), (503, 3), (400, 1), (401, 1), (404, 1)])
async def test_only_what_may_pass_is_tried_again(status: int, asked: int) -> None:
    _, server = await failure(refuses(status, "no", retry_after="0.01"), max_retries=2)
    assert len(server.received) == asked


def http_date(seconds: float) -> str:
    """Return the time in so many seconds; to be called when it is sent, since a run of the tests takes minutes."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("status", "headers", "least", "most"),
    [
        (429, {"retry_after": "7.5"}, 7.5, 7.5),
        (429, {"retry_after": 3600}, 3000, 3600),
        (429, {"retry_after": -60}, 0, 0),
        (429, {"retry_after_ms": "250"}, 0.25, 0.25),
        (503, {"retry_after": "86400"}, 86400, 86400),
        (429, {}, None, None),
        (429, {"retry_after": "soon"}, None, None),
        (429, {"retry_after": "-5"}, None, None),
        (429, {"retry_after": "9" * 400}, None, None),
    ],
)
async def test_a_limit_says_when_to_ask_again(
    status: int, headers: dict[str, str | int], least: float | None, most: float | None
) -> None:
    sent = {name: http_date(value) if isinstance(value, int) else value for name, value in headers.items()}
    error, _ = await failure(refuses(status, "Rate limit reached", **sent))
    assert isinstance(error, ModelLimited)
    assert error.fix.startswith("Wait ")
    if least is None or most is None:
        assert error.after_s is None
        return
    assert error.after_s is not None
    assert least <= error.after_s <= most


@pytest.mark.parametrize(("seconds", "asked"), [("0.05", 2), ("3600", 1)])
async def test_a_pause_is_as_long_as_the_server_says_unless_it_is_too_long(seconds: str, asked: int) -> None:
    began = time.monotonic()
    _, server = await failure(refuses(429, "no", retry_after=seconds), max_retries=1)
    assert len(server.received) == asked
    assert (asked - 1) * 0.05 <= time.monotonic() - began < 3


async def test_a_quota_that_is_used_up_is_no_limit_that_passes() -> None:
    body = b'{"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}'
    error, server = await failure(lambda reply, _: reply.whole(429, body), max_retries=2)
    assert not isinstance(error, ModelLimited)
    assert len(server.received) == 1


async def test_a_caller_that_waits_itself_is_refused_at_once(app: App) -> None:
    answer, server = await answered_by(app, refuses(429, "no", retry_after="2"), paced=True)
    assert len(server.received) == 1
    assert (answer.status, answer.limited, answer.limited_s) == ("failed", True, 2.0)


async def test_a_server_that_recovers_is_answered_from() -> None:
    script = scripts([refuses(503, "starting", retry_after="0.01"), says("Here.")])
    with scripted_openai(script) as server:
        assert (await reply_of(settings_for(server.base_url, max_retries=1)))[0] == "Here."
    assert len(server.received) == 2


@contextmanager
def nobody() -> Iterator[str]:
    """An address at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


async def test_a_server_that_is_down_is_named() -> None:
    with nobody() as address, pytest.raises(ModelUnavailable) as caught:
        await reply_of(settings_for(address))
    expected = f"The model server at {address} cannot be reached: All connection attempts failed."
    assert caught.value.message == expected
    assert "openai.base_url" in caught.value.fix


@pytest.mark.parametrize(
    "address", ["not an address", "http://", "ftp://127.0.0.1/v1", "http://127.0.0.1:99999/v1"]
)
async def test_an_address_that_is_none_is_an_error_with_a_fix(address: str) -> None:
    with pytest.raises(ModelError) as caught:
        await reply_of(settings_for(address))
    assert "openai.base_url" in caught.value.fix


def silent_after_its_head(reply: Reply, _: Received) -> None:
    reply.head()
    reply.wait_until_gone()


def silent_in_the_middle(reply: Reply, _: Received) -> None:
    reply.head()
    reply.piece("The tide ")
    reply.wait_until_gone()


def alive_without_a_word(reply: Reply, _: Received) -> None:
    reply.head()
    try:
        for _ in range(300):
            reply.send(b": still thinking\n\n")
            time.sleep(0.02)
    except OSError:
        reply.wait_until_gone()


@pytest.mark.parametrize("script", [silent, silent_after_its_head, silent_in_the_middle, alive_without_a_word])
async def test_a_silent_server_is_given_up_within_the_time_out(script: Script) -> None:
    error, server = await failure(script, timeout_s=0.4, max_retries=5)
    # Further tries would take as long again.
    assert len(server.received) == 1
    assert isinstance(error, ModelTimeout)
    assert "openai.timeout_s" in error.fix


def html(reply: Reply, _: Received) -> None:
    reply.whole(200, b"<html><body>Welcome to nginx!</body></html>", "text/html")


def json_of_something_else(reply: Reply, _: Received) -> None:
    reply.whole(200, b'{"detail": "Not Found"}')


def nothing(reply: Reply, _: Received) -> None:
    reply.whole(200, b"", "text/event-stream")


def only_the_end(reply: Reply, _: Received) -> None:
    reply.whole(200, b"data: [DONE]\n\n", "text/event-stream")


def broken_json(reply: Reply, _: Received) -> None:
    reply.head()
    reply.piece("The tide ")
    reply.event(b'{"choices": [{"delta"')
    reply.end()


def no_utf8(reply: Reply, _: Received) -> None:
    reply.whole(200, b"data: \xff\xfe\x80\n\n" * 3, "text/event-stream")


def events_of(*values: object) -> Script:
    def script(reply: Reply, _: Received) -> None:
        reply.head()
        for value in values:
            reply.event(value)
        reply.end()

    return script


RUBBISH: dict[str, Script] = {
    "html": html,
    "json": json_of_something_else,
    "nothing": nothing,
    "only the end": only_the_end,
    "broken json": broken_json,
    "no utf-8": no_utf8,
    "null": events_of(None),
    "a number": events_of(5),
    "a list": events_of([1, 2, 3]),
    "an empty object": events_of({}),
    "choices as text": events_of({"choices": "no"}),
    "choices of nothing": events_of({"choices": [None]}),
    "a delta of nothing": events_of({"choices": [{"delta": None}]}),
    "a number as content": events_of(chunk({"content": 5})),
    "a list as content": events_of(chunk({"content": [{"a": 1}]})),
    "usage as text": events_of(chunk({"content": "x"}), {**chunk({}), "choices": [], "usage": "much"}),
    "counts as text": events_of({**chunk({}), "choices": [], "usage": {"prompt_tokens": "many"}}),
}


@pytest.mark.parametrize("name", RUBBISH)
async def test_rubbish_is_told_as_such(name: str) -> None:
    error, _ = await failure(RUBBISH[name])
    assert isinstance(error, ModelProtocolError)


async def test_an_error_inside_the_stream_is_quoted() -> None:
    error, _ = await failure(events_of({"error": {"message": "CUDA out of memory", "type": "server_error"}}))
    assert isinstance(error, ModelUnavailable)
    assert error.message.endswith("failed: CUDA out of memory.")


def cut_off(reply: Reply, _: Received) -> None:
    reply.head()
    reply.piece("The tide ")
    reply.piece("gauge was")


def ended_without_an_end(reply: Reply, _: Received) -> None:
    cut_off(reply, _)
    reply.end()


@pytest.mark.parametrize("script", [cut_off, ended_without_an_end])
async def test_half_an_answer_is_not_taken_for_a_whole_one(app: App, script: Script) -> None:
    error, _ = await failure(script)
    assert isinstance(error, ModelProtocolError)
    assert error.message == "The model server broke off in the middle of its answer."
    answer, _ = await answered_by(app, script)
    assert (answer.status, answer.error) == ("failed", str(error))
    trace = app.stores.traces.get(answer.trace_id)
    assert (trace.status, trace.answer) == ("error", "The tide gauge was")
    assert str(error) in trace.error


async def test_a_giant_line_is_not_taken_for_an_answer() -> None:
    error, _ = await failure(says("x" * (LONGEST_REPLY + 1)))
    assert isinstance(error, ModelProtocolError)
    assert "does not stop writing" in error.message


def endless(reply: Reply, _: Received) -> None:
    reply.head()
    reply.drip("word " * 20_000, 0.0)


async def test_a_server_without_an_end_is_left() -> None:
    with scripted_openai(endless) as server:
        with pytest.raises(ModelProtocolError, match="does not stop writing"):
            await reply_of(settings_for(server.base_url))
        assert await asyncio.to_thread(server.gone.wait, 5)
