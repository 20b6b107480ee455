"""Loading of files in a child process, so that a hostile or huge file cannot harm the application.

The child reads the file, parses it with ``load`` of this package and sends its documents one by one. A failure of
the child is reported as a problem of the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.documents.loaders import load
from rag.documents.loaders._frames import LONGEST_FRAME, FrameError, TooLarge, document_of, frames_of, text_bytes
from rag.documents.loaders._text import OnProblem, clean, refused
from rag.documents.sandbox import Sandbox, SandboxError
from rag.errors import LoadError
from rag.types import Document

if TYPE_CHECKING:
    from rag.settings import IngestSettings

MEGABYTE = 1_000_000
MOST_PROBLEMS = 100
"""Maximum problems of a file that are reported individually."""
LONGEST_PROBLEM = 1_000
MOST_RECORDS = 150_000
"""Maximum documents of a file. Chroma keeps about 4.3 KB per passage in memory, so that one file with more records
could take over 1.5 GB."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ParseLimits:
    """Limits on parsing a file.

    Attributes:
        file_bytes: Maximum size of the file.
        text_bytes: Maximum size of a document's text in UTF-8.
        memory_mb: Memory limit of the child process in megabytes.
        timeout_s: Time limit per file in seconds.
        ocr: Whether text is recognized in scanned pages, in half of that time at most.
    """

    file_bytes: int
    text_bytes: int
    memory_mb: int
    timeout_s: float
    ocr: bool = False

    @classmethod
    def of(cls, settings: IngestSettings) -> ParseLimits:
        """Take the limits from the settings."""
        return cls(
            file_bytes=settings.max_file_mb * MEGABYTE,
            text_bytes=settings.max_text_mb * MEGABYTE,
            memory_mb=settings.parse_memory_mb,
            timeout_s=settings.parse_timeout_s,
            ocr=settings.ocr == "auto",
        )


@dataclass(frozen=True, slots=True)
class Loading:
    """A file that is being loaded.

    Attributes:
        sha256: Hash of the file's bytes.
        documents: The documents, as yielded (and with the errors raised) by ``rag.documents.loaders.load``.
    """

    sha256: str
    documents: Generator[Document, None, None]


class IsolatedLoader:
    """Loads files one at a time in a child process, which starts immediately and is replaced when it dies.

    Args:
        limits: Limits per file.
    """

    def __init__(self, limits: ParseLimits) -> None:
        self.limits = limits
        self._sandbox = Sandbox(
            f"{__name__}:parse",
            memory_mb=limits.memory_mb,
            timeout_s=limits.timeout_s,
            longest_frame=LONGEST_FRAME,
        )
        self._sandbox.start()

    def __enter__(self) -> IsolatedLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child."""
        self._sandbox.close()

    def load(self, path: Path, *, on_problem: OnProblem = lambda _: None) -> Loading:
        """Start loading a file.

        Args:
            path: Path of the file; its suffix selects the loader.
            on_problem: See ``rag.documents.loaders.load``; called while the documents are iterated.

        Raises:
            LoadError: The file cannot be read or, while the documents are iterated, cannot be parsed or exceeds
                a limit.
        """
        messages = self._messages(path)
        return Loading(str(next(messages)), self._documents(path, messages, on_problem))

    def _messages(self, path: Path) -> Generator[str | Document, None, None]:
        """Yield the hash, then problems and documents in the order of arrival."""
        limits = self.limits
        request = {
            "path": str(path),
            "file_bytes": limits.file_bytes,
            "text_bytes": limits.text_bytes,
            "ocr_s": limits.timeout_s / 2 if limits.ocr else 0.0,
        }
        with explained(path, limits.memory_mb, limits.timeout_s), closing(self._sandbox.run(request)) as frames:
            yield _sha256(next(frames, b""))
            for frame in frames:
                head = _object(frame)
                yield str(head["problem"]) if "problem" in head else document_of(head, frames, limits.text_bytes)

    def _documents(
        self, path: Path, messages: Generator[str | Document, None, None], on_problem: OnProblem
    ) -> Generator[Document, None, None]:
        documents = characters = 0
        left = MOST_PROBLEMS + 1  # The last one reports how many more there are.
        with closing(messages):
            for message in messages:
                if isinstance(message, Document):
                    documents += 1
                    characters += len(message.text)
                    # The child checks this too, unless the file has taken it over.
                    if documents > MOST_RECORDS or characters > self.limits.text_bytes:
                        raise refused(path, *_NONSENSE)
                    yield message
                elif left:
                    left -= 1
                    on_problem(clean(message)[:LONGEST_PROBLEM])


@contextmanager
def explained(path: Path, memory_mb: int, timeout_s: float) -> Iterator[None]:
    """Translate ``SandboxError`` and ``FrameError`` to ``LoadError``, as a problem of the file."""
    try:
        yield
    except FrameError as error:
        raise refused(path, *_NONSENSE) from error
    except SandboxError as error:
        raise refused(path, *_explanation(error, memory_mb, timeout_s)) from error


_NONSENSE = ("makes its parser send invalid data", "It may be malicious: leave it out.")


def _explanation(error: SandboxError, memory_mb: int, timeout_s: float) -> tuple[str, str]:
    """Return the problem of a file, and the fix."""
    larger = "Split the file, raise the setting, or leave the file out."
    if error.reason == "memory":
        return f"takes more than {memory_mb:,} MB to parse (ingest.parse_memory_mb)", larger
    if error.reason == "time":
        return f"takes longer than {timeout_s:g} s to parse (ingest.parse_timeout_s)", larger
    if error.reason == "protocol":
        return _NONSENSE
    if error.reason == "start":
        problem = (
            f"was not read, because the process that parses files does not start ({error.detail or 'too slow'})"
        )
        return problem, "Free some memory, or raise ingest.parse_memory_mb, and add the file again."
    problem = f"makes its parser crash ({error.detail})"
    return problem, "It seems to be damaged: save it again, or leave it out."


def _object(frame: bytes) -> dict[str, Any]:
    try:
        found = json.loads(frame)
    except (ValueError, RecursionError) as error:
        raise FrameError("a frame must be JSON") from error
    if not isinstance(found, dict):
        raise FrameError("a frame must be a JSON object")
    return found


def _sha256(frame: bytes) -> str:
    found = _object(frame).get("sha256")
    if not isinstance(found, str) or not _SHA256.fullmatch(found):
        raise FrameError("the hash is missing")
    return found


# The child's side.


def parse(request: dict[str, Any]) -> Iterator[bytes]:
    """Load a file and yield frames: its hash, then documents and problems as they come up.

    Raises:
        LoadError: The file cannot be read or parsed, or a document exceeds a limit.
    """
    path, longest = Path(request["path"]), int(request["text_bytes"])
    data = _read(path, int(request["file_bytes"]))
    yield json.dumps({"sha256": hashlib.sha256(data).hexdigest()}).encode()
    problems = _Problems()
    sent = size = 0
    documents = load(path, data, on_problem=problems.add, ocr_s=float(request["ocr_s"]))
    del data
    try:
        for document in documents:
            yield from problems.taken()
            if sent == MOST_RECORDS:
                raise refused(path, f"contains more than {MOST_RECORDS:,} records", "Split it.")
            own = text_bytes(document.text)
            if own <= longest < size + own:
                problem = (
                    f"contains more than {longest / MEGABYTE:,.0f} MB of text in its records (ingest.max_text_mb)"
                )
                raise refused(path, problem, "Split it, or raise the setting.")
            try:
                yield from frames_of(document, longest)
                sent += 1
                size += own
            except TooLarge as error:
                if not document.record:
                    raise refused(path, error.problem, error.fix) from error
                problems.add(f"record {document.record[:100]} {error.problem}")
        if not sent:
            raise refused(path, "has no readable record", "Fix the file, or leave it out.")
    except LoadError:
        yield from problems.rest()
        raise
    yield from problems.rest()


class _Problems:
    """Collects problems to send, and counts those beyond the limit."""

    def __init__(self) -> None:
        self._waiting: list[str] = []
        self._left = MOST_PROBLEMS
        self._more = 0

    def add(self, reason: str) -> None:
        """Add a problem."""
        if not self._left:
            self._more += 1
            return
        self._left -= 1
        self._waiting.append(reason[:LONGEST_PROBLEM])

    def taken(self) -> Iterator[bytes]:
        """Yield the waiting problems as frames."""
        waiting, self._waiting = self._waiting, []
        for reason in waiting:
            yield json.dumps({"problem": reason}).encode()

    def rest(self) -> Iterator[bytes]:
        """Yield the waiting problems, and the number of those that were dropped."""
        if self._more:
            self._waiting.append(f"and {self._more:,} more problems")
        yield from self.taken()


def _read(path: Path, most: int) -> bytes:
    """Read a whole file.

    Raises:
        LoadError: It cannot be read, is not a regular file, or has more than ``most`` bytes.
    """
    try:
        # Non-blocking, because the path may have become a pipe.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise LoadError("It must be a regular file, not a pipe, a socket or a device.")
            data = file.read(most + 1) if found.st_size <= most else b""
    except OSError as error:
        raise LoadError(error.strerror or str(error)) from error
    if max(found.st_size, len(data)) > most:
        raise LoadError(f"larger than ingest.max_file_mb allows ({found.st_size / MEGABYTE:.0f} MB)")
    return data
