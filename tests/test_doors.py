from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from ui.guard import BodyLimit, KnownRoutes, OwnOrigin, SecurityHeaders


async def answer(request: Request) -> JSONResponse:
    body = await request.body()
    allowing = {"access-control-allow-origin": request.headers.get("origin", "*"), "vary": "origin"}
    return JSONResponse({"read": len(body)}, headers=allowing | {"access-control-allow-credentials": "true"})


def client(host: str = "127.0.0.1", allowed_hosts: tuple[str, ...] = (), uploads: int = 10_000_000) -> TestClient:
    app = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST", "OPTIONS", "DELETE"])])
    app.add_middleware(BodyLimit, uploads=uploads)
    app.add_middleware(KnownRoutes)
    app.add_middleware(OwnOrigin, host=host, allowed_hosts=allowed_hosts)
    app.add_middleware(SecurityHeaders)
    return TestClient(app, base_url="http://127.0.0.1:7860")


HOSTS = ("127.0.0.1", "0.0.0.0")


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://evil.example", "host": "ragsmith.lan"},
        {"origin": "http://localhost:3000", "sec-fetch-site": "same-site"},
        {"origin": "http://127.0.0.1:7861"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://[bad"},
        {"origin": "http://127.0.0.1:7860.evil.example"},
        {"origin": "http://evil@127.0.0.1:7860"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "origin": "http://127.0.0.1:7860"},
    ],
)
def test_a_foreign_page_changes_nothing(host: str, headers: dict[str, str]) -> None:
    response = client(host).post("/gradio_api/queue/join", json={}, headers=headers)
    assert response.status_code == 403
    assert not [name for name in response.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:7860"])
def test_no_response_may_be_read_by_other_origins(host: str, origin: str) -> None:
    for method in ("GET", "OPTIONS"):
        headers = {"origin": origin, "access-control-request-method": "POST"}
        response = client(host).request(method, "/gradio_api/queue/join", headers=headers)
        assert not [name for name in response.headers if name.startswith("access-control-")]
        assert response.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"},
        {"origin": "http://localhost:7860", "host": "localhost:7860", "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
        {"origin": "http://[::1]:7860", "host": "[::1]:7860"},
    ],
)
def test_its_own_page_and_other_programs_are_served(host: str, headers: dict[str, str]) -> None:
    assert client(host).post("/v1/chat/completions", json={}, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "name",
    [
        "evil.example",
        "user@localhost",
        "127.0.0.1/evil.example",
        "127.0.0.1.evil.example",
        "",
        "a b",
        "[",
        "evil.example:7860",
    ],
)
def test_a_name_that_is_not_ours_is_refused(name: str) -> None:
    for host in HOSTS:
        assert client(host).get("/", headers={"host": name}).status_code == 403


def test_an_address_of_the_network_is_ours_only_where_the_network_reaches_it() -> None:
    headers = {"host": "192.168.1.5:7860", "origin": "http://192.168.1.5:7860"}
    assert client("0.0.0.0").post("/v1/models", headers=headers).status_code == 200
    assert client("127.0.0.1").post("/v1/models", headers=headers).status_code == 403


BROWSER = {"origin": "https://rag.example.org", "sec-fetch-site": "same-origin"}


class TestProxy:
    """A proxy for https://rag.example.org in front of the loopback."""

    def test_one_that_passes_its_name_on_needs_the_name_in_the_settings(self) -> None:
        headers = {**BROWSER, "host": "rag.example.org"}
        assert client().post("/login", headers=headers).status_code == 403
        assert "access.allowed_hosts" in client().get("/", headers=headers).text
        assert client(allowed_hosts=("rag.example.org",)).post("/login", headers=headers).status_code == 200

    def test_one_that_changes_the_host_needs_it_as_well(self) -> None:
        assert client().post("/login", headers=BROWSER).status_code == 403
        assert client(allowed_hosts=("rag.example.org",)).post("/login", headers=BROWSER).status_code == 200

    def test_another_port_of_its_name_is_another_site(self) -> None:
        headers = {"origin": "https://rag.example.org:8443", "host": "127.0.0.1:7860"}
        assert client(allowed_hosts=("rag.example.org",)).post("/login", headers=headers).status_code == 403
        assert client(allowed_hosts=("rag.example.org:8443",)).post("/login", headers=headers).status_code == 200

    def test_its_name_does_not_open_the_door_to_others(self) -> None:
        headers = {"origin": "https://evil.example", "host": "rag.example.org"}
        assert client(allowed_hosts=("rag.example.org",)).post("/login", headers=headers).status_code == 403


def chunks(size: int, count: int) -> Any:
    yield from (b"x" * size for _ in range(count))


def test_a_large_body_is_refused_whatever_it_says_of_its_length() -> None:
    served = client()
    assert served.post("/v1/chat/completions", content=b"x" * 4_000_000).json() == {"read": 4_000_000}
    for content in (b"x" * 4_000_001, chunks(1_000_000, 5), chunks(5_000_000, 1)):
        response = served.post("/gradio_api/queue/join", content=content)
        assert response.status_code == 413
        assert "4,000,000 bytes" in response.text


@pytest.mark.parametrize("length", ["-1", "1e9", "9" * 5000, "٣"])
def test_a_length_that_is_no_number_is_refused(length: str) -> None:
    response = client().post("/v1/chat/completions", headers={"content-length": length.encode()})
    assert response.status_code == 413


def test_uploads_have_a_limit_of_their_own() -> None:
    served = client(uploads=5_000_000)
    assert served.post("/gradio_api/upload", content=b"x" * 5_000_000).status_code == 200
    assert served.post("/gradio_api/upload", content=b"x" * 5_000_001).status_code == 413


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/proxy=https://example.org/x", "/gradio_api/file=http://127.0.0.1:22/",
        "/gradio_api/vibe-edit/",
        "/gradio_api/stream/1", "/gradio_api/component_server", "/gradio_api/process_recording", "/monitoring",
        "/gradio_api/dev/reload",
        "/gradio_api/call/v2/upload", "/gradio_api/openapi.json", "/gradio_api/file=https:%2F%2Fexample.org",
    ],
)  # fmt: skip
def test_what_the_page_does_not_use_is_not_there(path: str) -> None:
    assert client().get(path).status_code == 404
    assert client().post(path).status_code == 404
