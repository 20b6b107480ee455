from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_server import running
from scripted_app import SENTENCE, TEXT, Health, ScriptedApp
from tracked import wait_for

from rag.settings import Settings
from rag.types import Turn
from ui.api import remainder
from ui.openai_requests import Message, history_of

COMPLETIONS = "/v1/chat/completions"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedApp]:
    made = ScriptedApp(tmp_path_factory.mktemp("api"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def address(app: ScriptedApp) -> Iterator[str]:
    with running(app) as at:
        yield at


@pytest.fixture
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=20) as made:
        yield made


def ask(question: str, **more: Any) -> dict[str, Any]:
    return {"model": "ragsmith", "messages": [{"role": "user", "content": question}], **more}


def events(client: httpx.Client, body: dict[str, Any]) -> list[Any]:
    with client.stream("POST", COMPLETIONS, json=body) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_an_answer_has_openais_shape_and_its_sources_beside(client: httpx.Client) -> None:
    body = client.post(COMPLETIONS, json=ask("How long is a passage?")).json()

    assert body["object"] == "chat.completion"
    assert SENTENCE in body["choices"][0]["message"]["content"]
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"] == {"prompt_tokens": 700, "completion_tokens": 112, "total_tokens": 812}
    extra = body["ragsmith"]
    assert (extra["status"], extra["prompt"], extra["cost_usd"]) == ("answered", "answer@1", 0.0001)
    first, second, third = extra["sources"]
    assert (first["cited"], third["cited"]) == (True, False)
    quote = first["quote"]
    assert TEXT[quote["start"] : quote["end"]] == SENTENCE
    assert second["quote"] == {"start": None, "end": None, "support": 0.62}
    assert TEXT[first["start"] : first["end"]] == first["text"]


def test_a_stream_is_the_same_answer_in_pieces(client: httpx.Client) -> None:
    pieces = events(client, ask("How long is a passage?", stream=True, stream_options={"include_usage": True}))
    whole = client.post(COMPLETIONS, json=ask("How long is a passage?")).json()

    assert all(piece["object"] == "chat.completion.chunk" for piece in pieces)
    assert len({piece["id"] for piece in pieces}) == 1
    assert pieces[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(piece["choices"][0]["delta"].get("content", "") for piece in pieces if piece["choices"])
    assert text.strip() == whole["choices"][0]["message"]["content"]
    last = pieces[-2]
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["ragsmith"]["status"] == "answered"
    assert (pieces[-1]["choices"], pieces[-1]["usage"]["total_tokens"]) == ([], 812)


def test_usage_is_sent_only_when_it_is_asked_for(client: httpx.Client) -> None:
    assert all("usage" not in piece for piece in events(client, ask("Hello", stream=True)))


def test_earlier_messages_are_the_history(client: httpx.Client, app: ScriptedApp) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "One?"}, {"type": "image_url", "image_url": {}}]},
        {"role": "assistant", "content": "First."},
        {"role": "user", "content": [{"type": "text", "text": "Two?"}]},
    ]
    body = {"model": "ragsmith/reports", "messages": messages, "temperature": 2, "odd": []}
    ignored = client.post(COMPLETIONS, json=body).json()["ragsmith"]["ignored"]
    assert ignored == ["messages.image_url", "messages.system", "temperature", "odd"]
    asked = app.asked[-1]
    assert (asked.question, asked.history, asked.corpus) == ("Two?", (Turn("One?", "First."),), "reports")
    assert asked.conversation_id is None


def test_models_name_the_corpora(client: httpx.Client) -> None:
    ids = [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert ids == ["ragsmith", "ragsmith/handbook", "ragsmith/reports"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (ask("x", model="gpt-4"), 404, "model_not_found"),
        (ask("x", model="ragsmith/none"), 404, "model_not_found"),
        ({"model": "ragsmith", "messages": []}, 400, "invalid_request"),
        ({"model": "ragsmith"}, 400, "invalid_request"),
        ({"model": "ragsmith", "messages": [{"role": "emperor", "content": "x"}]}, 400, "invalid_request"),
        ({"model": "ragsmith", "messages": [{"role": "assistant", "content": "x"}]}, 400, "no_question"),
        (ask("   "), 400, "no_question"),
        (ask("please raise"), 503, "model_unavailable"),
        (ask("please fail"), 502, "answer_failed"),
    ],
)
def test_errors_have_openais_shape(client: httpx.Client, body: dict[str, Any], status: int, code: str) -> None:
    response = client.post(COMPLETIONS, json=body)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert "Traceback" not in response.text


def test_rubbish_is_a_bad_request(client: httpx.Client) -> None:
    response = client.post(COMPLETIONS, content=b"\xff{not json")
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_a_body_without_end_is_refused(client: httpx.Client) -> None:
    response = client.post(COMPLETIONS, json=ask("x" * 4_100_000))
    assert response.status_code == 413
    # Such a client reads nothing before it has sent everything.
    connection = HTTPConnection(client.base_url.host, client.base_url.port or 80, timeout=30)
    with closing(connection):
        connection.request("POST", COMPLETIONS, b"x" * 20_000_000)
        assert connection.getresponse().status == 413


@pytest.mark.parametrize("word", ["raise", "fail"])
def test_an_error_in_a_stream_is_told_in_it(client: httpx.Client, word: str) -> None:
    pieces = events(client, ask(f"please {word}", stream=True))
    assert "The model server" in pieces[-1]["error"]["message"]


def leave_in_a_stream(client: httpx.Client) -> None:
    with client.stream("POST", COMPLETIONS, json=ask("slow", stream=True)) as response:
        lines = response.iter_lines()
        for _ in range(20):
            next(lines)


def leave_while_waiting(client: httpx.Client) -> None:
    with pytest.raises(httpx.ReadTimeout):
        client.post(COMPLETIONS, json=ask("slow"))


@pytest.mark.parametrize("leave", [leave_in_a_stream, leave_while_waiting])
def test_a_client_that_goes_away_stops_the_work(
    address: str, app: ScriptedApp, leave: Callable[[httpx.Client], None]
) -> None:
    app.cancelled.clear()
    with httpx.Client(base_url=address, timeout=0.5) as client:
        leave(client)
    assert app.cancelled.wait(60)
    # The trace is saved right after.
    wait_for(lambda: app.stores.traces.list(limit=1).traces[0].status == "cancelled")


def test_a_refusal_is_an_ordinary_answer(client: httpx.Client) -> None:
    body = client.post(COMPLETIONS, json=ask("an unknown thing")).json()
    assert body["ragsmith"]["status"] == "abstained"
    assert "do not answer" in body["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    ("streamed", "final", "rest"),
    [
        ("", "All.", "All."),
        ("All.", "All.", ""),
        ("All. ", "All.", ""),
        ("Al", "All.", "l."),
        ("Something else", "The documents do not say.", "\n\nThe documents do not say."),
    ],
)
def test_a_stream_ends_with_the_answer_as_it_was_checked(streamed: str, final: str, rest: str) -> None:
    assert remainder(streamed, final) == rest


def test_a_question_without_an_answer_stays_in_the_history() -> None:
    said = (("user", "a"), ("user", "b"), ("assistant", "c"))
    messages = [Message.model_validate({"role": role, "content": text}) for role, text in said]
    assert history_of(messages) == (Turn("a", ""), Turn("b", "c"))
    assert history_of(messages[:1]) == (Turn("a", ""),)


def test_health_is_told(client: httpx.Client, app: ScriptedApp) -> None:
    assert client.get("/healthz").json() == {
        "status": "ok",
        "model": {"ok": True, "detail": "extractive · OpenVINO bf16"},
        "index": {"ok": True, "detail": "handbook: 310 passages"},
        "wandb": {"ok": True, "mode": "offline", "detail": "Results go to a W&B run on this disk."},
        "otlp": {"ok": True, "mode": "off"},
        "notices": [],
    }
    app.health_now = Health(index_ok=False, notices=("There is no corpus. Make one.",))
    assert client.get("/healthz").json()["status"] == "degraded"
    app.health_now = Health()


@pytest.mark.parametrize("path", ["/", "/healthz", "/v1/models", "/documents/1", "/documents/99", "/theme.css"])
def test_every_response_forbids_what_is_not_ours(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy or "default-src 'none'" in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.org", "", "[bad", "::"])
def test_another_name_is_refused(client: httpx.Client, host: str) -> None:
    assert client.get("/healthz", headers={"host": host}).status_code in (400, 403)


@pytest.mark.parametrize("host", ["localhost:1234", "127.0.0.1", "[::1]:7860"])
def test_our_own_names_are_known(client: httpx.Client, host: str) -> None:
    assert client.get("/healthz", headers={"host": host}).status_code == 200


def test_another_site_may_look_but_not_touch(client: httpx.Client) -> None:
    foreign = {"sec-fetch-site": "cross-site"}
    assert client.get("/", headers=foreign).status_code == 200
    assert client.post(COMPLETIONS, json=ask("x"), headers=foreign).status_code == 403
    assert client.post(COMPLETIONS, json=ask("x"), headers={"sec-fetch-site": "same-origin"}).status_code == 200


def test_the_page_has_no_description_that_loads_scripts_from_elsewhere(client: httpx.Client) -> None:
    for path in ("/docs", "/redoc"):
        assert "cdn" not in client.get(path).text


def test_uploads_stay_in_the_workspace(client: httpx.Client, app: ScriptedApp, tmp_path: Path) -> None:
    response = client.post("/gradio_api/upload", files={"files": ("notes.txt", b"hello")})
    assert response.status_code == 200
    assert Path(response.json()[0]).is_relative_to(app.workspace.root)


@pytest.mark.parametrize("path", ["/etc/passwd", "pyproject.toml", "http://example.org/x.png", "../ragsmith.db"])
def test_gradio_hands_out_no_other_files(client: httpx.Client, app: ScriptedApp, path: str) -> None:
    assert client.get(f"/gradio_api/file={path}").status_code in (403, 404)
    assert client.get(f"/gradio_api/file={app.workspace.database}").status_code == 403


def test_a_question_that_is_too_long_is_refused_before_anything_is_done(
    client: httpx.Client, app: ScriptedApp
) -> None:
    before = len(app.asked)
    for question in ("x" * 8_001, "word " * 200_000):
        for stream in (False, True):
            response = client.post(COMPLETIONS, json=ask(question, stream=stream))
            assert response.status_code == 400
            error = response.json()["error"]
            assert (error["code"], error["param"]) == ("question_too_long", "messages")
            assert "8,000" in error["message"]
    assert client.get("/healthz").json()["status"] == "ok"
    assert len(app.asked) == before


def test_when_too_many_ask_the_rest_is_told_to_come_back(tmp_path: Path) -> None:
    limits = {"answers_at_once": 1, "answers_waiting": 1}
    app = ScriptedApp(tmp_path, Settings(home=tmp_path, limits=limits))
    with running(app) as at, httpx.Client(base_url=at, timeout=20) as client:
        with client.stream("POST", COMPLETIONS, json=ask("a slow one", stream=True)) as first:
            lines = first.iter_lines()
            assert next(lines)
            with client.stream("POST", COMPLETIONS, json=ask("a slow one", stream=True)) as second:
                assert second.status_code == 200
                for stream in (False, True):
                    refused = client.post(COMPLETIONS, json=ask("one more", stream=stream))
                    assert refused.status_code == 503
                    assert int(refused.headers["retry-after"]) > 0
                    assert refused.json()["error"]["code"] == "busy"
                assert client.get("/healthz").status_code == 200
        # Those who hang up make room.
        wait_for(lambda: client.post(COMPLETIONS, json=ask("again")).status_code == 200)
    app.close()
