"""An OpenAI-compatible server on the loopback that does what a script says, and remembers what it was sent."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from tiny import QUESTION, answered, assistant_for

from rag.models.chat_models import open_remote_model
from rag.settings import Settings
from rag.types import Answer
from ui.app.app import App

MODEL = "scripted-1"
USAGE = {"prompt_tokens": 40, "completion_tokens": 3, "total_tokens": 43}
KEY = "my-own-secret-key-0123456789"
MESSAGES = [SystemMessage("Be brief."), HumanMessage("Why is the sky blue?")]
PATIENCE_S = 60.0
"""How long a script waits for a client that does not go away, before it gives up."""
# What the client library says when a server's types are wrong; the reply is refused all the same.
WRONG_TYPES = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")


@dataclass(frozen=True)
class Received:
    """A request as it arrived; header names in lower case."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class Reply:
    """What a script can do with one request."""

    def __init__(self, handler: BaseHTTPRequestHandler, gone: threading.Event, stopping: threading.Event) -> None:
        self._handler = handler
        self._gone = gone
        self._stopping = stopping
        self._out = handler.wfile

    def head(self, status: int = 200, kind: str = "text/event-stream", **headers: str) -> None:
        """Send the head; what follows is sent in chunks, so that a missing end can be told from a real one."""
        self._handler.send_response(status)
        self._handler.send_header("Content-Type", kind)
        self._handler.send_header("Transfer-Encoding", "chunked")
        # It is: a client that did not know might send its next request into it.
        self._handler.send_header("Connection", "close")
        for name, value in headers.items():
            self._handler.send_header(name.replace("_", "-"), value)
        self._handler.end_headers()

    def send(self, data: bytes) -> None:
        self._out.write(b"%x\r\n%s\r\n" % (len(data), data))
        self._out.flush()

    def event(self, value: object) -> None:
        self.send(b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n")

    def piece(self, text: str) -> None:
        self.event(chunk({"content": text}))

    def finish(self, reason: str = "stop") -> None:
        self.event(chunk({}, finish_reason=reason))
        self.event({**chunk({}), "choices": [], "usage": USAGE})
        self.event(b"[DONE]")
        self.end()

    def end(self) -> None:
        self._out.write(b"0\r\n\r\n")
        self._out.flush()

    def whole(self, status: int, body: bytes, kind: str = "application/json", **headers: str) -> None:
        self.head(status, kind, **headers)
        if body:
            self.send(body)
        self.end()

    def wait_until_gone(self) -> None:
        """Say nothing until the client hangs up."""
        end = time.monotonic() + PATIENCE_S
        connection = self._handler.connection
        connection.settimeout(0.02)
        while time.monotonic() < end and not self._stopping.is_set():
            try:
                if not connection.recv(1):
                    self._gone.set()
                    return
            except TimeoutError:
                continue
            except OSError:
                self._gone.set()
                return

    def drip(self, piece: str, pause_s: float) -> None:
        """Send a piece again and again, until the client hangs up."""
        end = time.monotonic() + PATIENCE_S
        try:
            while time.monotonic() < end and not self._stopping.is_set():
                self.piece(piece)
                time.sleep(pause_s)
        except OSError:
            self._gone.set()


Script = Callable[[Reply, Received], None]


def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    """One event of a streamed chat completion."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": MODEL,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
    }


def says(*pieces: str, ending: str = "stop") -> Script:
    """Stream these pieces, then the usage."""

    def script(reply: Reply, _: Received) -> None:
        reply.head()
        reply.event(chunk({"role": "assistant", "content": ""}))
        for piece in pieces:
            reply.piece(piece)
        reply.finish(ending)

    return script


def refuses(status: int, message: str, **headers: str) -> Script:
    """Answer with an error as OpenAI words it."""
    body = json.dumps({"error": {"message": message, "type": "error", "code": None}}).encode()
    return lambda reply, _: reply.whole(status, body, **headers)


@dataclass
class ScriptedOpenAI:
    """The server; ``script`` may be changed between requests.

    Attributes:
        gone: Set when a client hung up before the script was through.
    """

    script: Script
    received: list[Received] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)
    stopping: threading.Event = field(default_factory=threading.Event)
    base_url: str = ""

    @property
    def only(self) -> Received:
        (request,) = self.received
        return request


@contextmanager
def scripted_openai(script: Script) -> Iterator[ScriptedOpenAI]:
    """Serve on a free port of the loopback."""
    state = ScriptedOpenAI(script)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length))
            request = Received(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            state.received.append(request)
            self.close_connection = True
            try:
                state.script(Reply(self, state.gone, state.stopping), request)
            except OSError:
                state.gone.set()

        def log_message(self, *args: object) -> None:
            """Nothing: the test looks at what was received."""

    class Server(ThreadingHTTPServer):
        daemon_threads = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Nothing: a client that hangs up is a part of the script."""

    with Server(("127.0.0.1", 0), Handler) as server:
        state.base_url = f"http://127.0.0.1:{server.server_port}/v1"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="scripted-openai")
        thread.start()
        try:
            yield state
        finally:
            state.stopping.set()
            server.shutdown()
            thread.join()


def scripts(each: Sequence[Script]) -> Script:
    """The first script for the first request, and so on; the last one stays."""
    left = list(each)
    return lambda reply, request: (left.pop(0) if len(left) > 1 else left[0])(reply, request)


def silent(reply: Reply, _: Received) -> None:
    """Take the question and never answer."""
    reply.wait_until_gone()


def settings_for(base_url: str, name: str = MODEL, **openai: Any) -> Settings:
    """Settings for a model of such a server; ``openai`` are fields of their section."""
    given = {"base_url": base_url, "timeout_s": 5.0, "max_retries": 0, "api_key": KEY}
    return Settings(model=f"openai:{name}", openai=given | openai)


async def reply_of(settings: Settings) -> tuple[str, Any]:
    """The text of a reply and its usage."""
    whole = None
    async for piece in open_remote_model(settings).astream(MESSAGES):
        whole = piece if whole is None else whole + piece  # type: ignore[assignment]
    assert whole is not None
    return whole.text, whole.usage_metadata


async def answered_by(
    app: App, script: Script, name: str = MODEL, question: str = QUESTION, **fields: Any
) -> tuple[Answer, ScriptedOpenAI]:
    """An answer on the small corpus by a server with this script, and the server."""
    with scripted_openai(script) as server:
        assistant = assistant_for(app, settings_for(server.base_url, name))
        return await answered(assistant, question, **fields), server
