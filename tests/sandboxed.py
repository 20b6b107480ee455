"""What the child of a sandbox does in tests: ``sandboxed:work``."""

from __future__ import annotations

import mmap
import os
import resource
import signal
import struct
import time
from collections.abc import Iterator

from rag.errors import LoadError

_RESERVED: list[mmap.mmap] = []


def work(request: dict[str, object]) -> Iterator[bytes]:
    """Do what the request names."""
    match request["do"]:
        case "frames":
            yield from (b"one", b"", b"x" * 3_000_000)
        case "pid":
            yield str(os.getpid()).encode()
        case "facts":
            names = sorted(os.environ)
            core, cpu = resource.getrlimit(resource.RLIMIT_CORE)[0], resource.getrlimit(resource.RLIMIT_CPU)[0]
            yield repr((names, os.getsid(0) == os.getpid(), core, cpu)).encode()
        case "print":
            os.write(1, b"Look at this!\n")
            os.write(2, b"And at that!\n")
            yield b"frame"
        case "allocate":
            kept = []
            while True:
                kept.append(bytearray(10_000_000))
        case "allocate, and call it something else":
            try:
                yield from work({"do": "allocate"})
            except MemoryError as error:
                raise LoadError("The file is damaged.") from error
        case "reserve":  # Pages that nobody touches take addresses, and no memory.
            try:
                _RESERVED.append(mmap.mmap(-1, 30_000_000))
            except OSError as error:
                raise MemoryError from error
            yield b"frame"
        case "spin":
            while True:
                pass
        case "sleep":
            time.sleep(60)
        case "refuse":
            yield b"before"
            raise LoadError("It is \udcff no file.", fix="Leave it out.")
        case "fail":
            raise ZeroDivisionError("by zero")
        case "abort":
            os.abort()
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exit":
            os._exit(3)
        case "boast":  # The pipe to the parent is the first one that the child opened itself.
            os.write(3, struct.pack(">cQ", b"F", 1 << 60))
            time.sleep(60)
        case "babble":
            os.write(3, b"GET / HTTP/1.1\r\n\r\n")
            time.sleep(60)
