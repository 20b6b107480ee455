from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from live_server import running
from scripted_app import ScriptedApp
from tracked import wait_for

from rag.settings import Settings

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\ncontent-length: 100\r\n"
HALF_HEAD = HEAD
HALF_BODY = HEAD + b"\r\n{"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    home = tmp_path_factory.mktemp("connections")
    app = ScriptedApp(home, Settings(home=home, limits={"connections": 12, "request_s": 1}))
    with running(app) as address:
        yield urlsplit(address).port or 0
    app.close()


def begin(port: int, sent: bytes) -> socket.socket:
    opened = socket.create_connection(("127.0.0.1", port), timeout=10)
    opened.sendall(sent)
    return opened


@contextmanager
def many(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Connections of which each has sent a part of a request, or nothing."""
    with ExitStack() as stack:
        parts = (HALF_HEAD, HALF_BODY, b"", b"G")
        yield [stack.enter_context(begin(port, parts[number % 4])) for number in range(count)]


def status_of(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def status_of_health(port: int) -> int:
    return status_of(port, "/healthz")


def ended(connection: socket.socket, within_s: float) -> bytes:
    """What the server still says until it closes the connection."""
    connection.settimeout(within_s)
    told = b""
    # One that is closed with something unread is reset.
    with suppress(ConnectionResetError):
        while piece := connection.recv(1000):
            told += piece
    return told


@pytest.mark.parametrize("sent", [HALF_HEAD, HALF_BODY])
def test_a_request_that_is_half_sent_is_ended_in_time(port: int, sent: bytes) -> None:
    with begin(port, sent) as connection:
        assert ended(connection, 6).startswith(b"HTTP/1.1 408")


def test_a_connection_that_says_nothing_is_ended_in_time(port: int) -> None:
    with begin(port, b"") as connection:
        assert ended(connection, 6) == b""


def test_a_trickle_does_not_keep_a_request_alive(port: int) -> None:
    begun = time.monotonic()
    with begin(port, HALF_BODY) as connection:
        connection.settimeout(0.3)
        told = b""
        while not told and time.monotonic() - begun < 10:
            try:
                connection.sendall(b" ")
                told = connection.recv(1000)
            except TimeoutError:
                continue
        assert told.startswith(b"HTTP/1.1 408")


def test_more_half_sent_requests_than_connections_leave_room_for_others(port: int) -> None:
    with many(port, 60) as connections:
        for _ in range(3):
            assert status_of_health(port) == 200
        for connection in connections:
            ended(connection, 6)
    assert status_of_health(port) == 200


def test_answers_in_progress_are_not_given_up_for_new_connections(port: int) -> None:
    asked = json.dumps({"messages": [{"role": "user", "content": "a slow one"}], "stream": True})
    with ExitStack() as stack:
        streams = []
        for _ in range(12):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            stack.callback(connection.close)
            connection.request("POST", "/v1/chat/completions", asked, {"content-type": "application/json"})
            streams.append(connection.getresponse())
        assert [stream.status for stream in streams] == [200] * 12
        # The reserve says whether the server is well, and nothing else.
        assert status_of_health(port) == 200
        refused = begin(port, b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
        told = ended(refused, 6)
        assert told.startswith(b"HTTP/1.1 503")
        assert b"retry-after" in told
        refused.close()
        assert all(stream.readline() for stream in streams)
    # The server notices that the clients have gone; on the reserve it would say 503.
    wait_for(lambda: status_of(port, "/v1/models") == 200)


def test_a_slow_but_honest_upload_is_taken(port: int) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "How long?" + " " * 60_000}]}).encode()
    with begin(port, HEAD.replace(b"100", str(len(body)).encode()) + b"connection: close\r\n\r\n") as connection:
        for at in range(0, len(body), 10_000):
            connection.sendall(body[at : at + 10_000])
            time.sleep(0.4)
        assert ended(connection, 10).startswith(b"HTTP/1.1 200")


FEW_FILES = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
sys.path.insert(0, {tests!r})
from rag.settings import Settings
from scripted_app import ScriptedApp
from tracked import wait_for
from ui.server import serve
home = Path({home!r})
serve(ScriptedApp(home, Settings(home=home, port=0, limits={{"request_s": 2}})), open_browser=False)
"""


def test_a_process_that_may_open_few_files_keeps_some_for_itself(tmp_path: Path) -> None:
    program = FEW_FILES.format(tests=str(HERE), home=str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=HERE.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().split(":")[2].split()[0])
        with many(port, 200):
            for _ in range(3):
                assert status_of_health(port) == 200
                assert httpx.get(f"http://127.0.0.1:{port}/documents/1").status_code == 200
        process.terminate()
        _output, errors = process.communicate(timeout=30)
    assert errors == ""
