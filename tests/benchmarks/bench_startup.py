"""How long until something happens: the help text, the first answer to a query, the page, the first token."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks.bench_handbook import prepared_home
from tests.benchmarks.bench_indexes import CORPUS, indexes
from tests.benchmarks.bench_report import Group, Row, times
from tests.benchmarks.child import ChildError, call, environment, last_words
from tests.benchmarks.machine import load_line
from tests.benchmarks.plan import Plan

ROUNDS = 7
SERVER_ROUNDS = 3
PATIENCE_S = 60.0
QUERY = "How are type hints for generic classes written?"
QUESTION = "Which Python do I need to have installed?"


@dataclass(frozen=True, slots=True)
class ServerStart:
    """Seconds from the start of the server's process, the last one from its own request.

    Attributes:
        page: Until ``GET /`` was answered with 200.
        token: Until the first token of an answer that was asked for as soon as the page was there.
        warm_token: From a later request to its first token.
    """

    page: float
    token: float
    warm_token: float


def run(plan: Plan) -> Iterator[Group]:
    """Measure; the group grows with every subject."""
    started = load_line()
    rows: list[Row] = []
    raw: dict[str, object] = {}

    def group() -> Group:
        return Group(
            "Start-up, median seconds", tuple(rows), _how(started), {**raw, "load": [started, load_line()]}
        )

    rounds = 2 if plan.quick else ROUNDS
    _help()  # The first one reads from the disk.
    raw["help"] = helps = [_help() for _ in range(rounds)]
    rows.append(Row("`ragsmith --help`", _median(helps, 2)))
    yield group()

    ours, theirs, memory = _ready(plan, rounds)
    raw["ready"] = {"ours": ours, "theirs": theirs, "peak_mb": memory}
    factors = [other / one for one, other in zip(ours, theirs, strict=True)]
    rows.append(
        Row(
            "ready: first query answered on an existing index",
            _median(ours, 2),
            _median(theirs, 2),
            times(factors),
        )
    )
    share = f"{memory[0] / memory[1]:.2f} of it"
    rows.append(Row("peak memory by then, MB", f"{memory[0]:.0f}", f"{memory[1]:.0f}", share))
    yield group()

    starts = [_server(plan) for _ in range(1 if plan.quick else SERVER_ROUNDS)]
    raw["server"] = [asdict(start) for start in starts]
    rows.append(Row("server: first page", _median([start.page for start in starts], 2)))
    rows.append(
        Row("server: first token, asked when the page is there", _median([start.token for start in starts], 2))
    )
    rows.append(
        Row(
            "server: first token of a later answer, from its request",
            _median([start.warm_token for start in starts], 2),
        )
    )
    yield group()


def _median(values: Sequence[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f}"


def _how(load_before: str) -> str:
    return (
        "From the start of the process, files in the page cache, encoder converted. The plain pipeline opens "
        "its store, loads its model and answers one `similarity_search`; the two take turns, the factors are "
        f"of neighbouring turns. Load average {load_before} before, {load_line()} after."
    )


def _program() -> list[str]:
    script = Path(sys.executable).parent / "ragsmith"
    return [str(script)] if script.is_file() else [sys.executable, "-m", "ui.cli"]


def _help() -> float:
    started = time.perf_counter()
    subprocess.run([*_program(), "--help"], env=environment(), stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def _ready(plan: Plan, rounds: int) -> tuple[list[float], list[float], tuple[float, float]]:
    built = indexes(plan)
    ours, theirs, peaks = [], [], []
    for turn in range(rounds + 1):
        one = call("tests.benchmarks.ours:ready", home=built.home, corpus=CORPUS, query=QUERY)
        other = call("tests.benchmarks.langchain_pipeline:ready", folder=built.chroma, query=QUERY)
        if turn:  # The first one reads from the disk.
            ours.append(one.seconds)
            theirs.append(other.seconds)
            peaks.append((one.value["peak_mb"], other.value["peak_mb"]))
    return ours, theirs, (statistics.median(p[0] for p in peaks), statistics.median(p[1] for p in peaks))


def _server(plan: Plan) -> ServerStart:
    home = prepared_home(plan)
    port = _free_port()
    started = time.perf_counter()
    with _serving(home, port) as process:
        _until_page(port, process)
        page = time.perf_counter() - started
        _until_token(port)
        token = time.perf_counter() - started
        asked = time.perf_counter()
        _until_token(port)
        return ServerStart(page, token, time.perf_counter() - asked)


@contextmanager
def _serving(home: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryDirectory() as elsewhere, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [*_program(), "serve"],
            cwd=elsewhere,
            env={**environment(), "RAGSMITH_HOME": str(home), "RAGSMITH_PORT": str(port)},
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        try:
            yield process
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


def _until_page(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise ChildError(f"It ended with status {process.returncode}.")
        # Until the server listens there is nobody to connect to, which is what is waited for.
        with (
            closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)) as connection,
            suppress(ConnectionError, http.client.HTTPException),
        ):
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
            if answer.status == 200:
                return
        time.sleep(0.02)
    raise ChildError(f"No page within {PATIENCE_S:.0f} seconds.")


def _until_token(port: int) -> None:
    """Ask over the HTTP API and read until the first piece of the answer."""
    question = {"model": "ragsmith", "stream": True, "messages": [{"role": "user", "content": QUESTION}]}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request(
            "POST", "/v1/chat/completions", json.dumps(question), {"Content-Type": "application/json"}
        )
        answer = connection.getresponse()
        if answer.status != 200:
            raise ChildError(f"The API answers {answer.status}: {answer.read(300)!r}.")
        for line in answer:
            if line.startswith(b"data: {"):
                choices = json.loads(line[len(b"data: ") :]).get("choices") or [{}]
                if choices[0].get("delta", {}).get("content"):
                    # The rest is read, so that the next question does not meet this one.
                    answer.read()
                    return
        raise ChildError("The API's answer ended without a token.")
    finally:
        connection.close()
