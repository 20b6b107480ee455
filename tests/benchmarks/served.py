"""``ragsmith serve`` in a process of its own, asked over its HTTP API."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.benchmarks.child import ChildError, environment, last_words

PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds from a request to the first piece of its answer, and to its end."""

    first_token: float
    whole: float


class Server:
    """A running server.

    Args:
        process: Its process.
        port: Where it listens.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self._process = process
        self._port = port

    def wait_for_page(self) -> None:
        """Wait until the page is there.

        Raises:
            ChildError: The server ended, or there is no page in time.
        """
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise ChildError(f"It ended with status {self._process.returncode}.")
            # Until the server listens there is nobody to connect to, which is what is waited for.
            with (
                closing(self._connection()) as connection,
                suppress(ConnectionError, http.client.HTTPException),
            ):
                connection.request("GET", "/")
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    return
            time.sleep(0.02)
        raise ChildError(f"No page within {PATIENCE_S:.0f} seconds.")

    def ask(self, question: str) -> Timed:
        """Ask over the HTTP API and read the whole answer.

        Raises:
            ChildError: The API refuses, or sends nothing.
        """
        body = {"model": "ragsmith", "stream": True, "messages": [{"role": "user", "content": question}]}
        begun, first = time.perf_counter(), 0.0
        with closing(self._connection()) as connection:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise ChildError(f"The API answers {answer.status}: {answer.read(300)!r}.")
            for line in answer:
                if not first and line.startswith(b"data: {"):
                    choices = json.loads(line[len(b"data: ") :]).get("choices") or [{}]
                    if choices[0].get("delta", {}).get("content"):
                        first = time.perf_counter() - begun
        if not first:
            raise ChildError("The API's answer ended without a token.")
        return Timed(first, time.perf_counter() - begun)

    def memory_mb(self) -> float:
        """Return the resident memory of the server and its own processes, in MB (10^6 bytes)."""
        main = psutil.Process(self._process.pid)
        return sum(float(one.memory_info().rss) for one in (main, *main.children(recursive=True))) / 1e6

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)


def program() -> list[str]:
    """Return the command line's program."""
    script = Path(sys.executable).parent / "ragsmith"
    return [str(script)] if script.is_file() else [sys.executable, "-m", "ui.cli"]


@contextmanager
def serving(home: Path, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Run a server for a workspace.

    Args:
        home: The workspace.
        settings: More variables of the environment, such as ``RAGSMITH_MODEL``.

    Raises:
        ChildError: The server fails; with the end of its error output.
    """
    port = _free_port()
    with tempfile.TemporaryDirectory() as elsewhere, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [*program(), "serve"],
            cwd=elsewhere,
            env={**environment(), "RAGSMITH_HOME": str(home), "RAGSMITH_PORT": str(port), **(settings or {})},
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        try:
            yield Server(process, port)
        except (ChildError, OSError) as error:
            process.kill()
            process.wait()
            raise ChildError(f"ragsmith serve: {error} Its last words: {last_words(errors)}") from error
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
