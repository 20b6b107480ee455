"""Work in processes of its own, so that start-up and peak memory are those of the work alone.

``call`` runs one function and gives back what it returns. ``Worker`` keeps a process and asks it again and
again. A function is named ``module:function``, takes and returns what JSON can carry, and paths as strings.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
# What the caller's shell says must not change what is measured.
FOREIGN = ("RAGSMITH_", "WANDB_", "OPENAI_")
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
ENDING_S = 15.0


class ChildError(Exception):
    """A process ended without an answer; the text says with which last words."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call gave.

    Attributes:
        value: What the function returned.
        seconds: From the start of the process to its answer.
    """

    value: Any
    seconds: float


def environment() -> dict[str, str]:
    """The environment of a measured process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return {**kept, **OFFLINE}


def call(function: str, **arguments: object) -> Outcome:
    """Run a function in a process of its own.

    Raises:
        ChildError: It failed.
    """
    started = time.perf_counter()
    with _process("call", function, arguments) as (process, errors):
        value = _answer(process, errors, function)
        return Outcome(value, time.perf_counter() - started)


class Worker:
    """A process that answers requests one after the other; use it as a context.

    Args:
        function: Called once, with the arguments; what it returns answers the requests.
    """

    def __init__(self, function: str, **arguments: object) -> None:
        self._function = function
        self._open = _process("serve", function, arguments)
        self._process, self._errors = self._open.__enter__()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.__exit__(None, None, None)

    def ask(self, **request: object) -> Any:
        """Send a request and wait for the answer.

        Raises:
            ChildError: The process ended.
        """
        assert self._process.stdin is not None
        # A process that has ended reads no more; why it ended is told where its answer is looked for.
        with suppress(BrokenPipeError):
            self._process.stdin.write(_line(request))
            self._process.stdin.flush()
        return _answer(self._process, self._errors, self._function)


@contextmanager
def _process(
    how: str, function: str, arguments: Mapping[str, object]
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.benchmarks.child",
                how,
                function,
                json.dumps(arguments, default=str),
            ],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        try:
            yield process, errors
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Let a process end by itself; after some time, make it."""
    for pipe in (process.stdin, process.stdout):
        if pipe:
            # A request that it never read is still to be written, and nobody is left to read it.
            with suppress(BrokenPipeError):
                pipe.close()
    try:
        process.wait(ENDING_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()


def _answer(process: subprocess.Popen[bytes], errors: IO[bytes], function: str) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.wait()
        raise ChildError(f"{function} ended with status {process.returncode}: {last_words(errors)}")
    return json.loads(line)


def last_words(errors: IO[bytes]) -> str:
    """The last line that a process wrote to its error stream."""
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _line(value: object) -> bytes:
    return json.dumps(value, default=str).encode() + b"\n"


def peak_mb() -> float:
    """The most memory that this process has held so far, in MB (10^6 bytes).

    Linux counts it for each program image; ``ru_maxrss`` would begin with what the parent held at the fork.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6
    except (OSError, IndexError):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def main(how: str, function: str, arguments: str) -> None:
    """The other end of ``call`` and ``Worker``."""
    # Libraries print: what they say goes to the error stream, and the answers keep the pipe for themselves.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    module, _, name = function.partition(":")
    made = getattr(import_module(module), name)(**json.loads(arguments))
    if how == "call":
        answers.write(_line(made))
        answers.flush()
        return
    respond: Callable[..., object] = made
    for request in sys.stdin.buffer:
        answers.write(_line(respond(**json.loads(request))))
        answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
