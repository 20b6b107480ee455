from __future__ import annotations

import asyncio
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from rag.errors import SettingsError
from ui.guard import Farewell, is_loopback
from ui.server import listen

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent

HEAVY = ["torch", "transformers", "sentence_transformers", "chromadb", "wandb", "openvino", "langchain"]

# Serves the scripted app, and tells at the end whether it was closed.
PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from rag.settings import Settings
from scripted_app import ScriptedApp
from ui.server import serve
home = Path({home!r})
app = ScriptedApp(home, Settings(home=home, host={host!r}, port=0, access={access!r}))
serve(app, open_browser=False)
print("closed" if app.closed else "open", "warmed" if app.warmed.is_set() else "cold")
"""


@contextmanager
def served(
    home: Path, host: str = "127.0.0.1", access: Mapping[str, Any] = MappingProxyType({})
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    program = PROGRAM.format(tests=str(HERE), home=str(home), host=host, access=dict(access))
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=HERE.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "ragsmith is at http://127.0.0.1:" in line
            yield process, int(line.split(":")[2].split()[0])
        finally:
            with suppress(ProcessLookupError):
                process.kill()


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it still said, on both streams, until its end."""
    output, errors = process.communicate(timeout=60)
    return output, errors


def ask(port: int, *, stream: bool) -> http.client.HTTPConnection:
    """Send a question with a slow answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = {"messages": [{"role": "user", "content": "a slow one"}], "stream": stream}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    return connection


def traced_answers(home: Path) -> list[str]:
    """The statuses of the traces in a workspace that nobody serves any more."""
    from rag.database import open_database
    from rag.tracing.trace_store import TraceStore
    from rag.workspace import open_workspace

    engine = open_database(open_workspace(home))
    found = [trace.status for trace in TraceStore(engine).list(limit=5).traces]
    engine.dispose()
    return found


def test_a_signal_ends_the_server_in_order_and_every_answer_with_an_error(tmp_path: Path) -> None:
    with served(tmp_path) as (process, port):
        waiting = ask(port, stream=False)
        streaming = ask(port, stream=True)
        streamed = streaming.getresponse()
        # Both answers are on their way.
        for _ in range(12):
            streamed.readline()
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        whole = waiting.getresponse()
        error = json.load(whole)["error"]
        last = streamed.read().decode().strip().splitlines()[-1]
        output, errors = ended(process)
        waiting.close()
        streaming.close()
    assert output.split() == ["Stopping…", "closed", "warmed"]
    assert process.returncode == 0
    assert time.monotonic() - begun < 8
    # No traceback and no complaint of the server.
    assert errors == ""
    assert whole.status == 499
    assert "the server was stopped" in error["message"]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "stopped"
    assert traced_answers(tmp_path) == ["cancelled", "cancelled"]


async def test_two_may_wait_for_one_client_to_go() -> None:
    leaves = asyncio.Event()
    heard: list[Message] = []

    async def client() -> Message:
        await leaves.wait()
        return {"type": "http.disconnect"}

    async def application(_scope: Scope, receive: Receive, _send: Send) -> None:
        waiting = asyncio.gather(receive(), receive())
        await asyncio.sleep(0.01)
        leaves.set()
        heard.extend(await waiting)

    async def sent(_message: Message) -> None:
        pytest.fail("there is nothing to send")

    await Farewell(application)({"type": "http"}, client, sent)
    assert heard == [{"type": "http.disconnect"}] * 2


def test_the_first_page_does_not_wait_for_heavy_libraries(tmp_path: Path) -> None:
    program = PROGRAM.replace(
        "serve(app, open_browser=False)",
        "from ui.server import create_web_app\ncreate_web_app(app)\n"
        "print(sorted(set({heavy!r}) & set(sys.modules)))",
    ).format(tests=str(HERE), home=str(tmp_path), host="127.0.0.1", access={}, heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=HERE.parent, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[0] == "[]"


def test_a_network_address_without_a_password_is_warned_about(tmp_path: Path) -> None:
    with served(tmp_path, host="0.0.0.0", access={"no_auth": True}) as (process, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()
        process.send_signal(signal.SIGTERM)
        _output, errors = ended(process)
    assert "everybody on this network can read" in errors


def test_ctrl_c_ends_a_server_with_a_password_which_has_nothing_to_warn_about(tmp_path: Path) -> None:
    with served(tmp_path, host="0.0.0.0", access={"password": "secret"}) as (process, _port):
        process.send_signal(signal.SIGINT)
        output, errors = ended(process)
    assert (process.returncode, errors) == (0, "")
    assert output.split()[-2] == "closed"


def test_a_taken_port_is_told_clearly() -> None:
    first = listen("127.0.0.1", 0)
    try:
        with pytest.raises(SettingsError, match="is taken") as raised:
            listen("127.0.0.1", first.getsockname()[1])
        assert "--port 0" in raised.value.fix
    finally:
        first.close()


def test_an_address_of_another_machine_is_told_clearly(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_such_name(*_args: object, **_options: object) -> None:
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_name)
    with pytest.raises(SettingsError, match=r"nowhere\.example"):
        listen("nowhere.example", 0)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True), ("127.8.8.8", True), ("localhost", True), ("::1", True), ("[::1]", True),
        ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("example.org", False), ("", False),
        ("127.0.0.1.example.org", False),
    ],
)  # fmt: skip
def test_what_only_this_machine_reaches(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback
