from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from chromium import Chromium, ask, wait_for_answers, wait_until_ready
from event_client import trigger
from live_server import running
from playwright.sync_api import expect
from scripted_app import ScriptedApp

from rag.errors import SettingsError
from rag.settings import Settings, load_settings
from ui.access import check_access
from ui.server import create_web_app

PASSWORD = "correct horse"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "ragsmith.lan"])
def test_an_address_that_others_reach_needs_a_password(host: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no password is set") as raised:
        check_access(Settings(host=host))
    assert "RAGSMITH_ACCESS__PASSWORD" in raised.value.fix
    assert "--no-auth" in raised.value.fix
    check_access(Settings(host=host, access={"password": PASSWORD}))
    check_access(Settings(host=host, access={"no_auth": True}))
    check_access(Settings())
    app = ScriptedApp(tmp_path, Settings(home=tmp_path, host=host))
    with pytest.raises(SettingsError, match="no password is set"):
        create_web_app(app)  # type: ignore[arg-type]
    app.close()


@pytest.mark.parametrize("field", ["password", "api_key"])
def test_an_empty_password_is_none(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for empty in ("", " "):
        monkeypatch.setenv(f"RAGSMITH_ACCESS__{field.upper()}", empty)
        with pytest.raises(
            SettingsError, match=f"access.{field} is not usable: it must not be empty; leave it out"
        ):
            load_settings({"host": "0.0.0.0"})


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("access")
    app = ScriptedApp(home, Settings(home=home, host="0.0.0.0", access={"password": PASSWORD, "api_key": "key-1"}))
    with pytest.MonkeyPatch.context() as patched, running(app) as at:
        patched.setattr("ui.access.WRONG_S", 0.1)
        yield at
    app.close()


GUARDED = (
    "/v1/models", "/documents/1", "/documents/2/pages/1.png", "/evaluations/x.html", "/config", "/gradio_api/info",
    "/gradio_api/queue/data?session_hash=x", "/gradio_api/heartbeat/x", "/gradio_api/file=/etc/hostname",
    "/gradio_api/upload_progress?upload_id=x", "/nothing",
)  # fmt: skip


@pytest.mark.parametrize("path", GUARDED)
def test_nothing_is_given_without_signing_in(address: str, path: str) -> None:
    response = httpx.get(f"{address}{path}")
    assert response.status_code == 401
    assert len(response.text) < 200


@pytest.mark.parametrize(
    "path",
    ["/v1/chat/completions", "/v1/traces", "/gradio_api/queue/join", "/gradio_api/upload", "/gradio_api/cancel"],
)
def test_nothing_is_done_without_signing_in(address: str, path: str) -> None:
    assert httpx.post(f"{address}{path}", json={"data": []}).status_code == 401


def test_no_event_of_the_page_runs_without_signing_in(address: str) -> None:
    with httpx.Client(base_url=address) as client:
        assert {trigger(client, number, []).status for number in range(20)} == {401}


def test_the_page_itself_shows_only_the_form(address: str) -> None:
    page = httpx.get(address)
    assert page.status_code == 200
    assert "auth_required" in page.text
    assert '"dependencies":[]' in page.text
    assert '"components":[]' in page.text


def test_a_monitor_learns_only_whether_all_is_well(address: str) -> None:
    assert httpx.get(f"{address}/healthz").json() == {"status": "ok"}
    told = httpx.get(f"{address}/healthz", headers={"authorization": "Bearer key-1"}).json()
    assert told["index"]["ok"]


def test_the_key_opens_the_api(address: str) -> None:
    headers = {"authorization": "Bearer key-1"}
    asked = {"messages": [{"role": "user", "content": "How long is a passage?"}]}
    assert httpx.get(f"{address}/v1/models", headers=headers).status_code == 200
    answered = httpx.post(f"{address}/v1/chat/completions", json=asked, headers=headers, timeout=30)
    assert "200 tokens" in answered.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    "offered", ["Bearer key-2", "Bearer", f"Bearer {PASSWORD}", "Basic key-1", "key-1", "Bearer é"]
)
def test_any_other_key_is_refused(address: str, offered: str) -> None:
    response = httpx.get(f"{address}/v1/models", headers={"authorization": offered.encode()})
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "invalid_api_key"


def test_without_a_key_of_its_own_the_api_takes_the_password(tmp_path: Path) -> None:
    app = ScriptedApp(tmp_path, Settings(home=tmp_path, access={"password": PASSWORD}))
    with running(app) as at:
        assert httpx.get(f"{at}/v1/models").status_code == 401
        assert httpx.get(f"{at}/v1/models", headers={"authorization": f"Bearer {PASSWORD}"}).status_code == 200
    app.close()


def test_a_wrong_password_waits_and_gets_no_cookie(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.access.WRONG_S", 0.5)
    for user, password in (("ragsmith", "wrong"), ("somebody", PASSWORD), ("ragsmith", "key-1")):
        begun = time.monotonic()
        response = httpx.post(f"{address}/login", data={"username": user, "password": password})
        assert response.status_code == 400
        assert not response.cookies
        assert time.monotonic() - begun > 0.45


@pytest.mark.slow
def test_guessing_keeps_nobody_else_out(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.access.WRONG_S", 1.0)
    headers = {"authorization": "Bearer wrong"}

    def guess(_number: int) -> int:
        return httpx.get(f"{address}/v1/models", headers=headers, timeout=30).status_code

    with ThreadPoolExecutor(40) as many:
        guesses = many.map(guess, range(80))
        time.sleep(0.3)
        assert httpx.get(f"{address}/healthz", timeout=5).status_code == 200
        statuses = Counter(guesses)
    assert set(statuses) == {401, 429}
    assert statuses[401] < 40
    assert httpx.get(f"{address}/v1/models", headers={"authorization": "Bearer key-1"}).status_code == 200


def test_a_made_up_cookie_is_worth_nothing(address: str) -> None:
    with httpx.Client(base_url=address) as client:
        assert client.post("/login", data={"username": "ragsmith", "password": PASSWORD}).status_code == 200
        assert client.get("/documents/1").status_code == 200
        names = [cookie.name for cookie in client.cookies.jar]
    for name in names:
        assert httpx.get(f"{address}/documents/1", headers={"cookie": f"{name}=made-up"}).status_code == 401


def test_a_person_signs_in_and_asks(browser: Chromium, address: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(address)
    page.get_by_label("username").fill("ragsmith")
    page.get_by_label("password").fill(PASSWORD)
    page.get_by_role("button", name="Login").click()
    wait_until_ready(page)
    ask(page, "How long is a passage?")
    wait_for_answers(page, 1)
    page.locator("a.rs-cite").first.click()
    expect(page.frame_locator("#rs-dialog iframe").locator("mark#cited")).to_be_visible()
    context.close()
