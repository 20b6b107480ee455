"""A child process for work that a hostile file could turn against the process that does it.

The work is a generator function that takes a request, a JSON object, and yields frames of bytes. It runs in a
child with a limit on its memory and on its time, so that a file that takes either too far costs one child and
nothing else. Nothing but bytes comes back, and never a pickle: code that a file smuggled into the child must
not reach the parent.

``python -m rag.documents.sandbox MODULE:FUNCTION MEMORY CPU_SECONDS`` is the child; ``Sandbox`` is the parent's
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
"""Seconds for a child to be ready; it takes about 0.2."""
LONGEST_FAILURE = 65_536
_NEARLY_ALL = 0.85
"""Share of its memory at which a child that fails is taken to have failed for want of more."""
WATCH_S = 0.1
"""Seconds between two looks at the memory of a child that is being waited for."""

_FRAME, _END, _READY, _REFUSED, _FAILED, _NO_MEMORY = b"F", b"E", b"R", b"X", b"C", b"M"
_HEAD = struct.Struct(">cQ")
_SIZE = struct.Struct(">Q")
# The child gets these and no others: what a program needs to run, and never a key or a password.
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
# Libraries in C and C++ end their process in these ways when there is no memory left.
_ABORTED = (signal.SIGABRT, signal.SIGTRAP, signal.SIGILL)


class SandboxError(Exception):
    """The child did not finish a request.

    Attributes:
        reason: The limit that it ran into, or what else went wrong.
        detail: More about it, for a message; may be empty.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Sandbox:
    """Runs requests in a child process, one at a time, and replaces a child that failed.

    Safe to use from several threads: a request waits for the one before it.

    Args:
        target: ``module:function``, the generator function that the child runs.
        memory_mb: Megabytes that the child may take, the interpreter included.
        timeout_s: Seconds that one request may keep its caller waiting, and seconds of processor time.
        longest_frame: Bytes of a frame; a child that announces a longer one is ended.
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
        """Start the child without waiting for it, so that it gets ready beside other work."""
        # Whatever keeps it from starting, the first request says so.
        with self._lock, contextlib.suppress(SandboxError):
            self._running()

    def run(self, request: Request) -> Generator[bytes, None, None]:
        """Run one request and yield its frames as they come.

        A caller that stops early ends the child, since what it still does is of no use.

        Raises:
            LoadError: The work refused, with its own message.
            SandboxError: The child died, ran into a limit, or sent what cannot be understood.
        """
        with self._lock:
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
                # What a large file leaves behind is given back to the system with the process.
                if not done or child.memory() > self._memory // 4:
                    self._end()

    def close(self) -> None:
        """End the child; a later request starts another.

        It never waits: a request that runs still, or whose caller has left it, ends with its child.
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
        # Also where nobody closes it: at the end of the program, or when it is forgotten.
        self._ending = weakref.finalize(self, child.end)
        self._child = child
        return child

    def _end(self) -> None:
        self._child = None
        if self._ending is not None:
            self._ending()
            self._ending = None


class _Child:
    """A running child, as its parent sees it."""

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
                # What a dying parser prints is of no use to a person.
                stderr=subprocess.DEVNULL,
                env=_environment(),
                # Ctrl-C in a terminal stops the parent, which then closes the child in good order.
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            raise SandboxError("start", error.strerror or str(error)) from error
        assert self._process.stdin is not None  # noqa: S101 - asked for above
        assert self._process.stdout is not None  # noqa: S101
        self._into = self._process.stdin.fileno()
        self._out_of = self._process.stdout.fileno()
        os.set_blocking(self._into, False)
        os.set_blocking(self._out_of, False)
        self._memory = memory
        self._left_s = START_S
        self._read = bytearray()
        self._ready = False
        self._seen = 0

    def alive(self) -> bool:
        """Whether it runs still."""
        return self._process.returncode is None and not self._reaped(os.WNOHANG)

    def memory(self) -> int:
        """Bytes of memory that it takes now; 0 when it is gone."""
        import psutil

        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.Error:
            return 0

    def expect(self, seconds: float) -> None:
        """Set the seconds that may be spent waiting for the frames that come now."""
        self._left_s = seconds
        self._seen = 0

    def send(self, request: bytes) -> None:
        """Hand over a request.

        Raises:
            SandboxError: It is not ready in time, or dies.
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
            LoadError: The work refused.
            SandboxError: It died, ran into a limit, or sends nonsense.
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
        """Kill it, with all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill it and let go of its pipes."""
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
        # It grows by what has come, and not by what was announced.
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
        """Wait until a pipe is ready, with an eye on the time and on the child's memory.

        The system bounds the memory as well, but for macOS, which does not know that limit.
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
            self._seen = max(self._seen, self.memory())
            if self._seen > self._memory:
                raise SandboxError("memory")

    def _death(self) -> SandboxError:
        """Tell from how it ended what it ran into."""
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
        if -status in (*_ABORTED, signal.SIGKILL) or self._seen > self._memory // 2:
            return SandboxError("memory")
        return SandboxError("crash", signal.Signals(-status).name if status < 0 else f"status {status}")

    def _reaped(self, options: int) -> bool:
        """Whether it has ended; its status is known then."""
        try:
            number, status = os.waitpid(self._process.pid, options)
        except ChildProcessError:
            # Someone else has waited for it, as a handler of SIGCHLD may.
            self._process.returncode = 0
            return True
        if not number:
            return False
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return True


def _environment() -> dict[str, str]:
    """What the child gets to know: where our packages are, and how to run."""
    found = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    places = [place for place in sys.path if place]
    ours = str(Path(__file__).resolve().parents[2])
    return {
        **found,
        "PYTHONPATH": os.pathsep.join(places if ours in places else [*places, ours]),
        "PYTHONUTF8": "1",
        # One arena: each further one would reserve address space, which is what the limit counts.
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
    # Whatever a parser prints must not get between the frames.
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
        _write(output, _FAILED, _told(f"{type(error).__name__}: {error}"))
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
        # Libraries in C report memory that is missing as whatever failed for want of it.
        if error.__cause__ is not None and before < _NEARLY_ALL * memory <= _peak():
            _give_up(output)
        _write(output, _REFUSED, _told(error.message, error.fix))
    except Exception as error:  # noqa: BLE001 - the parent reports whatever it is
        _write(output, _FAILED, _told(f"{type(error).__name__}: {error}"))


def _give_up(output: int) -> NoReturn:
    """Say that there is not enough memory, and end: tidying up might need more of it."""
    _write(output, _NO_MEMORY)
    os._exit(1)


def _peak() -> int:
    """The most bytes of memory that this process has taken."""
    # On Linux the usage begins with what the parent had when it started this process.
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _told(message: str, fix: str = "") -> bytes:
    # Six bytes a character at most, so that both fit a failure.
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
    """Read the next request; None when the parent has closed the pipe, or has died."""
    head = sys.stdin.buffer.read(_SIZE.size)
    if len(head) < _SIZE.size:
        return None
    (size,) = _SIZE.unpack(head)
    body = sys.stdin.buffer.read(size)
    return json.loads(body) if len(body) == size else None


def _limit_cpu(seconds: int) -> None:
    """Let the system end this process after so many seconds more: nobody may be left who would."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + seconds + 1)


def _limit(which: int, value: int) -> None:
    """Set a soft limit, as far as the hard one lets it."""
    _, hard = resource.getrlimit(which)
    bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
    # macOS refuses limits on the address space; there the parent's look at the memory is all.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(which, (bounded, hard))


def _run() -> NoReturn:
    main(*sys.argv[1:4])
    sys.exit(0)


if __name__ == "__main__":
    _run()
