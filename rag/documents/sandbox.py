"""Child processes for work on hostile files.

The work is a generator function that takes a request, a JSON object, and yields frames of bytes. It runs in a
child with limited memory and time, so that a file that exceeds them costs one child and nothing else. Only bytes
come back, never a pickle: code that a file smuggled into the child must not reach the parent.

``python -m rag.documents.sandbox MODULE:FUNCTION MEMORY CPU_SECONDS`` runs the child; ``Sandbox`` is the parent's
side.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Literal, NoReturn

from rag.errors import LoadError, RagsmithError

Request = Mapping[str, object]
Work = Callable[[dict[str, object]], Iterator[bytes]]
Reason = Literal["memory", "time", "crash", "protocol", "start"]

MEGABYTE = 1_000_000
START_S = 30.0
"""Seconds until a child must be ready; it usually takes about 0.2."""
LONGEST_FAILURE = 65_536
_NEARLY_ALL = 0.85
"""Share of the memory limit from which a failure is attributed to lack of memory."""
WATCH_S = 0.1
"""Seconds between two checks of the child's memory."""

_FRAME, _END, _READY, _REFUSED, _FAILED, _NO_MEMORY = b"F", b"E", b"R", b"X", b"C", b"M"
_HEAD = struct.Struct(">cQ")
_SIZE = struct.Struct(">Q")
# The only environment variables that the child gets: what a program needs to run, but no secrets.
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
# Signals by which C and C++ libraries abort when memory runs out.
_ABORTED = (signal.SIGABRT, signal.SIGTRAP, signal.SIGILL)


class SandboxError(Exception):
    """The child did not finish a request.

    Attributes:
        reason: The limit that it exceeded, or the kind of failure.
        detail: Details for a message; may be empty.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Sandbox:
    """Runs requests in a child process, one at a time, and replaces a failed child.

    Safe to use from several threads: a request waits for the previous one.

    Args:
        target: The generator function that the child runs, as ``module:function``.
        memory_mb: Memory limit of the child in megabytes, including the interpreter.
        timeout_s: Limit of one request in seconds, of both waiting time and CPU time.
        longest_frame: Maximum bytes of a frame; a child that announces a longer one is killed.
    """

    def __init__(self, target: str, *, memory_mb: int, timeout_s: float, longest_frame: int) -> None:
        self._target = target
        self._memory = memory_mb * MEGABYTE
        self._timeout_s = timeout_s
        self._longest_frame = longest_frame
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._ending: weakref.finalize[[], Sandbox] | None = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the child in the background."""
        # The first request reports a failure to start.
        with self._lock, contextlib.suppress(SandboxError):
            self._running()

    def run(self, request: Request) -> Generator[bytes, None, None]:
        """Run one request and yield its frames as they come.

        A caller that stops early kills the child, whose remaining work is of no use.

        Raises:
            LoadError: The work refused the request, with its own message.
            SandboxError: The child died, exceeded a limit, or violated the protocol.
        """
        with self._lock:
            shared, begun = self._child is not None and self._child.alive(), False
            try:
                with contextlib.closing(self._attempt(request)) as frames:
                    for frame in frames:
                        begun = True
                        yield frame
            except SandboxError as error:
                # What earlier requests have left in the child may be what it lacks.
                if error.reason != "memory" or begun or not shared:
                    raise
            else:
                return
            yield from self._attempt(request)

    def _attempt(self, request: Request) -> Generator[bytes, None, None]:
        child = self._running()
        done = False
        try:
            child.send(json.dumps(request).encode())
            child.expect(self._timeout_s)
            yield from child.frames(self._longest_frame)
            done = True
        except LoadError:
            done = True
            raise
        finally:
            # After a large file, ending the process returns its memory to the system.
            if not done or child.memory() > self._memory // 4:
                self._end()

    def close(self) -> None:
        """End the child without waiting, together with a request that is still running.

        A later request starts another child.
        """
        if self._lock.acquire(blocking=False):
            try:
                self._end()
            finally:
                self._lock.release()
        elif (child := self._child) is not None:
            child.kill()

    def _running(self) -> _Child:
        if self._child is not None and self._child.alive():
            return self._child
        self._end()
        child = _Child(self._target, self._memory, self._timeout_s)
        # Ends the child even if the sandbox is never closed.
        self._ending = weakref.finalize(self, child.end)
        self._child = child
        return child

    def _end(self) -> None:
        self._child = None
        if self._ending is not None:
            self._ending()
            self._ending = None


class _Child:
    """The parent's view of a running child."""

    def __init__(self, target: str, memory: int, timeout_s: float) -> None:
        command = [
            sys.executable,
            "-P",
            "-m",
            "rag.documents.sandbox",
            target,
            str(memory),
            str(int(timeout_s) + 1),
        ]
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # The output of a crashing parser is of no use to users.
                stderr=subprocess.DEVNULL,
                env=_environment(),
                # Ctrl-C in a terminal goes to the parent only, which then closes the child.
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            raise SandboxError("start", error.strerror or str(error)) from error
        assert self._process.stdin is not None  # noqa: S101 - requested above
        assert self._process.stdout is not None  # noqa: S101
        self._into = self._process.stdin.fileno()
        self._out_of = self._process.stdout.fileno()
        os.set_blocking(self._into, False)
        os.set_blocking(self._out_of, False)
        self._memory = memory
        self._left_s = START_S
        self._read = bytearray()
        self._ready = False
        self._peak_memory = 0

    def alive(self) -> bool:
        """Whether the child is running."""
        return self._process.returncode is None and not self._reaped(os.WNOHANG)

    def memory(self) -> int:
        """Return the bytes of memory that the child uses now; 0 when it has ended."""
        import psutil

        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.Error:
            return 0

    def expect(self, seconds: float) -> None:
        """Set the seconds to wait for the next frames."""
        self._left_s = seconds
        self._peak_memory = 0

    def send(self, request: bytes) -> None:
        """Send a request.

        Raises:
            SandboxError: The child is not ready in time, or dies.
        """
        if not self._ready:
            kind, payload = self._frame(LONGEST_FAILURE)
            if kind != _READY:
                raise SandboxError("start", _failure(payload)[0])
            self._ready = True
        data = memoryview(_SIZE.pack(len(request)) + request)
        while data:
            try:
                data = data[os.write(self._into, data) :]
            except BlockingIOError:
                self._wait(self._into, select.POLLOUT)
            except BrokenPipeError:
                raise self._death() from None

    def frames(self, longest: int) -> Iterator[bytes]:
        """Yield the frames of a request.

        Raises:
            LoadError: The work refused the request.
            SandboxError: The child died, exceeded a limit, or violated the protocol.
        """
        while True:
            kind, payload = self._frame(longest)
            if kind == _FRAME:
                yield payload
            elif kind == _END:
                return
            elif kind == _REFUSED:
                message, fix = _failure(payload)
                raise LoadError(message, fix=fix)
            elif kind == _NO_MEMORY:
                raise SandboxError("memory")
            elif kind == _FAILED:
                raise SandboxError("crash", _failure(payload)[0])
            else:
                raise SandboxError("protocol")

    def kill(self) -> None:
        """Kill the child and everything it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill the child and close its pipes."""
        if self._process.returncode is None:
            self.kill()
            self._reaped(0)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _frame(self, longest: int) -> tuple[bytes, bytes]:
        kind, size = _HEAD.unpack(self._bytes(_HEAD.size))
        if size > (longest if kind == _FRAME else LONGEST_FAILURE):
            raise SandboxError("protocol")
        return kind, self._bytes(size)

    def _bytes(self, size: int) -> bytes:
        # The buffer grows by received bytes, not by the announced size.
        while len(self._read) < size:
            try:
                piece = os.read(self._out_of, 1 << 17)
            except BlockingIOError:
                self._wait(self._out_of, select.POLLIN)
                continue
            if not piece:
                raise self._death()
            self._read += piece
        with memoryview(self._read) as view:
            taken = bytes(view[:size])
        del self._read[:size]
        return taken

    def _wait(self, file: int, event: int) -> None:
        """Wait until a pipe is ready, checking time and the child's memory.

        The system limits the memory as well, except on macOS, which does not support that limit.
        """
        poller = select.poll()
        poller.register(file, event)
        while True:
            started = time.monotonic()
            ready = poller.poll(max(min(self._left_s, WATCH_S), 0.001) * 1000)
            self._left_s -= time.monotonic() - started
            if ready:
                return
            if self._left_s <= 0:
                raise SandboxError("time" if self._ready else "start", "")
            self._peak_memory = max(self._peak_memory, self.memory())
            if self._peak_memory > self._memory:
                raise SandboxError("memory")

    def _death(self) -> SandboxError:
        """Derive the cause from the exit status."""
        deadline = time.monotonic() + 1
        while not self._reaped(os.WNOHANG):
            if time.monotonic() > deadline:
                return SandboxError("protocol")
            time.sleep(0.005)
        status = self._process.returncode
        if not self._ready:
            return SandboxError("start", f"it ended with status {status}")
        if status == -signal.SIGXCPU:
            return SandboxError("time")
        if -status in (*_ABORTED, signal.SIGKILL) or self._peak_memory > self._memory // 2:
            return SandboxError("memory")
        return SandboxError("crash", signal.Signals(-status).name if status < 0 else f"status {status}")

    def _reaped(self, options: int) -> bool:
        """Whether the child has ended; sets its return code."""
        try:
            number, status = os.waitpid(self._process.pid, options)
        except ChildProcessError:
            # Something else has reaped it, such as a SIGCHLD handler.
            self._process.returncode = 0
            return True
        if not number:
            return False
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return True


def _environment() -> dict[str, str]:
    """Return the environment of the child, including the path of our packages."""
    found = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    places = [place for place in sys.path if place]
    ours = str(Path(__file__).resolve().parents[2])
    return {
        **found,
        "PYTHONPATH": os.pathsep.join(places if ours in places else [*places, ours]),
        "PYTHONUTF8": "1",
        # Further arenas would reserve address space, which counts towards the limit.
        "MALLOC_ARENA_MAX": "1",
        "OMP_NUM_THREADS": "1",
    }


def _failure(payload: bytes) -> tuple[str, str]:
    """Read message and fix from a child's failure."""
    try:
        message, fix = json.loads(payload)
    except (ValueError, TypeError, RecursionError) as error:
        raise SandboxError("protocol") from error
    return _storable(message), _storable(fix)


def _storable(value: object) -> str:
    return str(value).encode("utf-8", "replace").decode()


# The child's side.


def main(target: str, memory: str, cpu_seconds: str) -> None:
    """Answer requests until the parent closes the pipe."""
    # Output printed by a parser must not mix with the frames.
    output = os.dup(1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, int(memory))
    try:
        module, _, name = target.partition(":")
        work: Work = getattr(import_module(module), name)
    except Exception as error:  # noqa: BLE001 - the parent reports whatever it is
        _write(output, _FAILED, _failure_payload(f"{type(error).__name__}: {error}"))
        return
    _write(output, _READY)
    while (request := _request()) is not None:
        _limit_cpu(int(cpu_seconds))
        _answer(output, work, request, int(memory))


def _answer(output: int, work: Work, request: dict[str, object], memory: int) -> None:
    before = _peak()
    try:
        for frame in work(request):
            _write(output, _FRAME, frame)
        _write(output, _END)
    except BrokenPipeError:
        os._exit(1)
    except MemoryError:
        _give_up(output)
    except RagsmithError as error:
        # C libraries report lack of memory as an unspecific failure.
        if error.__cause__ is not None and before < _NEARLY_ALL * memory <= _peak():
            _give_up(output)
        _write(output, _REFUSED, _failure_payload(error.message, error.fix))
    except Exception as error:  # noqa: BLE001 - the parent reports whatever it is
        _write(output, _FAILED, _failure_payload(f"{type(error).__name__}: {error}"))


def _give_up(output: int) -> NoReturn:
    """Report lack of memory and exit at once, because cleanup might need more of it."""
    _write(output, _NO_MEMORY)
    os._exit(1)


def _peak() -> int:
    """Return the peak memory of this process in bytes."""
    # On Linux, rusage starts at the parent's value when it started this process.
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _failure_payload(message: str, fix: str = "") -> bytes:
    # At most six bytes per character, so that both fit into LONGEST_FAILURE.
    return json.dumps([message[:4_000], fix[:4_000]]).encode()


def _write(output: int, kind: bytes, payload: bytes = b"") -> None:
    head = _HEAD.pack(kind, len(payload))
    data = memoryview(payload)
    if len(payload) <= 1 << 16:
        data = memoryview(head + payload)
    else:
        os.write(output, head)
    while data:
        data = data[os.write(output, data) :]


def _request() -> dict[str, object] | None:
    """Read the next request, or None when the parent has closed the pipe or died."""
    head = sys.stdin.buffer.read(_SIZE.size)
    if len(head) < _SIZE.size:
        return None
    (size,) = _SIZE.unpack(head)
    body = sys.stdin.buffer.read(size)
    return json.loads(body) if len(body) == size else None


def _limit_cpu(seconds: int) -> None:
    """Limit the CPU time from now on, in case the parent is gone and cannot kill this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + seconds + 1)


def _limit(which: int, value: int) -> None:
    """Set a soft limit, capped by the hard one."""
    _, hard = resource.getrlimit(which)
    bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
    # macOS refuses limits on the address space; there, only the parent checks the memory.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(which, (bounded, hard))


def _run() -> NoReturn:
    main(*sys.argv[1:4])
    sys.exit(0)


if __name__ == "__main__":
    _run()
