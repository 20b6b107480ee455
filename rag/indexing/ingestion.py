"""Incremental ingestion of files and folders into a corpus, which can be interrupted and resumed.

Files with a known hash are skipped. The others are parsed in a child process and chunked, and texts that are new
to the index are embedded in batches. When all texts of a file are indexed, its documents are replaced in one
transaction; until then its old ones stay searchable. After an interruption, the same command resumes the work.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from tempfile import SpooledTemporaryFile
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlsplit

from sqlalchemy import delete, insert, select

from rag import tables as db
from rag.database import insert_row, reading, writing
from rag.documents.chunking import chunk_document, rule_for
from rag.documents.loaders import LOADER_VERSION, kind_of
from rag.documents.loaders.isolated import IsolatedLoader
from rag.errors import LoadError
from rag.indexing.corpus_index import CorpusIndex, PreparedText, digest_of
from rag.indexing.corpus_sources import delete_sources
from rag.indexing.ingest_report import IngestProgress, IngestReport, Problem
from rag.indexing.unread_files import drop_unread, replace_unread, unread_file
from rag.types import Document

# Passages per batch: large enough for sorting by length and for cheap commits, small enough that little is
# repeated after a crash.
BATCH = 768
# Maximum characters of pending texts and documents, because a batch may contain very long texts.
MOST_WAITING = 4_000_000
ROWS_AT_ONCE = 5_000
MEGABYTE = 1_000_000
# Names of files of other formats in a report.
MOST_NAMES = 5
_SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", "venv"})


@dataclass(frozen=True, slots=True)
class _Found:
    """A file to ingest.

    Attributes:
        name: Display name of the source.
        label: Stands for the title where there is none, and is searched with the text.
    """

    path: Path
    name: str
    label: str
    size: int


class _DocumentRows:
    """The document rows of a file until all of its texts are indexed, on disk if there are many."""

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(max_size=MEGABYTE)  # noqa: SIM115 - `close` closes it

    def add(self, digest: str, row: dict[str, Any]) -> int:
        """Add a document and return its size in bytes."""
        return self._file.write(json.dumps([digest, row]).encode() + b"\n")

    def parts(self) -> Iterator[list[tuple[str, dict[str, Any]]]]:
        """Yield digests and rows in batches."""
        self._file.seek(0)
        while lines := list(islice(self._file, ROWS_AT_ONCE)):
            yield [json.loads(line) for line in lines]

    def close(self) -> None:
        """Discard the entries."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class _LoadedFile:
    found: _Found
    sha256: str
    rows: _DocumentRows
    problems: list[str]


def ingest(
    index: CorpusIndex,
    paths: Sequence[Path],
    loader: IsolatedLoader,
    *,
    on_progress: Callable[[IngestProgress], None] = lambda _: None,
    stop: threading.Event | None = None,
    pages: Mapping[Path, str] = MappingProxyType({}),
) -> IngestReport:
    """Ingest files and folders, and remove files that no longer exist below those folders.

    The caller must own the workspace's write lock.

    Args:
        index: The index to update.
        paths: Files and folders; in folders, all files of supported formats but hidden ones.
        loader: Loads the files; a file that exceeds its limits is reported as a problem.
        on_progress: Called several times a second.
        stop: Set it to stop after the current batch.
        pages: Addresses, by path, of those files that are stored pages of the web; a page is named by its address.

    Returns:
        The result; files that could not be read are in ``problems``.

    Raises:
        LoadError: A path does not exist.
        StoreError: A store refuses.
        StorageFull: The disk is full.
    """
    try:
        return _Ingestion(index, paths, loader, on_progress, stop or threading.Event(), pages).run()
    finally:
        index.publish()


class _Ingestion:
    """The state of one ingestion."""

    def __init__(
        self,
        index: CorpusIndex,
        paths: Sequence[Path],
        loader: IsolatedLoader,
        on_progress: Callable[[IngestProgress], None],
        stop: threading.Event,
        pages: Mapping[Path, str],
    ) -> None:
        self._index = index
        self._roots = [existing_path(path) for path in paths]
        self._loader = loader
        self._on_progress = on_progress
        self._stop = stop
        self._pages = {str(path): address for path, address in pages.items()}
        self._rule = rule_for(index.encoder, index.tokens)
        self._problems: list[Problem] = []
        # Reasons by path, of the files that could not be read at all.
        self._unread: dict[str, str] = {}
        self._leads_out: set[str] = set()
        self._waiting: dict[str, PreparedText] = {}
        self._text_ids: dict[str, int] = {}
        self._loaded: list[_LoadedFile] = []
        self._counts = {"added": 0, "changed": 0, "unchanged": 0, "deleted": 0, "skipped": 0}
        self._skipped_names: list[str] = []
        self._passages = 0
        self._waiting_passages = self._waiting_characters = 0
        self._batch_done = 0
        self._files_done = self._bytes_total = self._bytes_read = self._bytes_embedded = 0
        self._files: list[_Found] = []
        self._started = time.monotonic()
        self._reported_at = 0.0

    def run(self) -> IngestReport:
        """Run the ingestion and clean up temporary files."""
        try:
            return self._run()
        finally:
            self._drop_loaded()

    def _run(self) -> IngestReport:
        self._index.recover(self._embedded, self._stop)
        self._batch_done = 0
        self._files = list(self._walk())
        self._bytes_total = sum(found.size for found in self._files)
        known = self._known_files()
        for found in self._files:
            if self._stop.is_set():
                break
            before = self._bytes_read
            unchanged = self._take(found, known.get(str(found.path)))
            self._files_done += 1
            # Unchanged files need no embedding, so they do not count for the time left.
            self._bytes_total -= found.size if unchanged else 0
            self._bytes_read = before + (0 if unchanged else found.size)
            self._report_progress()
        self._embed()
        # After a stop, texts of an unfinished file have no documents yet, but the next ingestion needs them.
        if not self._stop.is_set():
            self._remove_missing(known)
            self._index.remove_orphans()
        self._record_unread()
        self._report_progress(force=True)
        return IngestReport(
            **self._counts,
            skipped_names=tuple(self._skipped_names),
            passages=self._passages,
            problems=tuple(
                replace(problem, path=self._pages.get(problem.path, problem.path)) for problem in self._problems
            ),
            seconds=time.monotonic() - self._started,
            stopped=self._stop.is_set(),
        )

    def _walk(self) -> Iterator[_Found]:
        known_paths: set[Path] = set()
        for root in self._roots:
            listed = self._files_below(root) if root.is_dir() else iter([root])
            for path in listed:
                if path in known_paths:
                    continue
                known_paths.add(path)
                if root.is_dir() and kind_of(path) is None:
                    self._counts["skipped"] += 1
                    if len(self._skipped_names) < MOST_NAMES:
                        self._skipped_names.append(str(path.relative_to(root)))
                    continue
                try:
                    size = _size_of(path)
                except LoadError as error:
                    self._problem(path, str(error))
                    continue
                address = self._pages.get(str(path))
                yield _Found(path, self._name_of(path), _label_of(address) if address else path.name, size)

    def _files_below(self, root: Path) -> Iterator[Path]:
        """Yield the files below a folder in a fixed order.

        Links to folders are not followed, which could loop. A link that leads out of the folder is reported as a
        problem, so that write access to a folder does not give read access to other files.
        """

        def failed(error: OSError) -> None:
            self._problem(Path(error.filename), error.strerror or str(error))

        real = os.path.realpath(root)
        for folder, folders, names in os.walk(root, onerror=failed):
            folders[:] = sorted(
                name for name in folders if not name.startswith(".") and name not in _SKIPPED_FOLDERS
            )
            for name in folders:
                self._stays_below(real, Path(folder) / name)
            for name in sorted(names):
                path = Path(folder) / name
                # Only report links to files that would be read.
                if not name.startswith(".") and (kind_of(path) is None or self._stays_below(real, path)):
                    yield path

    def _stays_below(self, real: str, path: Path) -> bool:
        """Whether a path is not a link, or links to something below the folder; reports a problem otherwise."""
        if not path.is_symlink() or Path(os.path.realpath(path)).is_relative_to(real):
            return True
        self._leads_out.add(str(path))
        self._problem(path, "It is a link that leads out of the folder. Add its target by its own path.")
        return False

    def _known_files(self) -> dict[str, tuple[int, str, int]]:
        with reading(self._index.engine) as connection:
            rows = connection.execute(
                select(db.sources.c.path, db.sources.c.id, db.sources.c.sha256, db.sources.c.loader_version).where(
                    db.sources.c.index_id == self._index.id
                )
            )
            return {path: (number, sha256, loader) for path, number, sha256, loader in rows}

    def _take(self, found: _Found, known: tuple[int, str, int] | None) -> bool:
        """Load a file if needed, and return whether it was unchanged."""
        try:
            if found.size > self._loader.limits.file_bytes:
                raise LoadError(f"larger than ingest.max_file_mb allows ({found.size / MEGABYTE:.0f} MB)")
            if known and known[2] == LOADER_VERSION and known[1] == _sha256_of(found.path):
                self._counts["unchanged"] += 1
                return True
            if self._load(found):
                self._counts["changed" if known else "added"] += 1
        except OSError as error:
            self._problem(found.path, error.strerror or str(error))
        except LoadError as error:
            self._problem(found.path, str(error))
        return False

    def _load(self, found: _Found) -> bool:
        """Load and chunk a file's documents, and return whether it was completed."""
        day = _day_of(found.path)
        problems: list[str] = []

        def add_problem(reason: str) -> None:
            problems.append(reason)
            self._problem(found.path, reason, whole=False)

        loading = self._loader.load(found.path, on_problem=add_problem)
        file = _LoadedFile(found, loading.sha256, _DocumentRows(), problems)
        with ExitStack() as dropping:
            dropping.callback(file.rows.close)
            documents = dropping.enter_context(closing(loading.documents))
            for document in documents:
                if self._stop.is_set():
                    return False
                digest = digest_of(document)
                self._waiting_characters += file.rows.add(digest, _document_row(document, found, day))
                self._prepare(digest, document, found.label)
                self._bytes_read += len(document.text)
                # Keep only one document in memory at a time.
                del document
                if self._waiting_passages >= BATCH or self._waiting_characters >= MOST_WAITING:
                    self._embed()
            dropping.pop_all()
        self._loaded.append(file)
        if len(self._loaded) >= BATCH:
            self._embed()
        return True

    def _prepare(self, digest: str, document: Document, name: str) -> None:
        if digest in self._text_ids or digest in self._waiting:
            return
        known = self._index.known([digest])
        if known:
            self._text_ids.update(known)
            return
        chunks = chunk_document(document, self._index.encoder.tokens, self._rule)
        self._waiting[digest] = PreparedText(digest, document, tuple(chunks), name)
        self._waiting_passages += len(chunks)
        self._waiting_characters += len(document.text)

    def _embed(self) -> None:
        waiting = list(self._waiting.values())
        if waiting:
            self._text_ids.update(self._index.add(waiting, self._embedded))
            self._waiting.clear()
            self._waiting_passages = self._batch_done = 0
        self._waiting_characters = 0
        self._bytes_embedded = self._bytes_read
        self._record_loaded()

    def _embedded(self, count: int) -> None:
        self._passages += count
        self._batch_done += count
        self._report_progress()

    def _record_loaded(self) -> None:
        """Replace the documents of the files whose texts are all indexed."""
        index_id = self._index.id
        if not self._loaded:
            return
        with writing(self._index.engine) as connection:
            for file in self._loaded:
                path = str(file.found.path)
                same = db.sources.c.path == path
                if path in self._pages:
                    # In another format, a page is stored in another file.
                    same |= db.sources.c.name == file.found.name
                old = select(db.sources.c.id).where(db.sources.c.index_id == index_id, same)
                connection.execute(delete(db.documents).where(db.documents.c.source_id.in_(old)))
                connection.execute(delete(db.sources).where(db.sources.c.index_id == index_id, same))
                drop_unread(connection, index_id, [path])
                source_id = insert_row(
                    connection,
                    db.sources,
                    index_id=index_id,
                    path=path,
                    name=file.found.name,
                    sha256=file.sha256,
                    loader_version=LOADER_VERSION,
                    ingested=time.time(),
                    problems=file.problems,
                )
                for part in file.rows.parts():
                    rows = [
                        {**row, "source_id": source_id, "text_id": self._text_ids[digest]} for digest, row in part
                    ]
                    connection.execute(insert(db.documents), rows)
        self._drop_loaded()

    def _drop_loaded(self) -> None:
        for file in self._loaded:
            file.rows.close()
        self._loaded.clear()

    def _remove_missing(self, known: dict[str, tuple[int, str, int]]) -> None:
        present = {str(found.path) for found in self._files}
        failed = {problem.path for problem in self._problems} - self._leads_out
        gone = [
            number
            for path, (number, _, _) in known.items()
            if path not in present
            # What cannot be read now keeps its old entries.
            and not any(path == problem or path.startswith(problem + os.sep) for problem in failed)
            and any(Path(path).is_relative_to(root) for root in self._roots)
        ]
        if not gone:
            return
        with writing(self._index.engine) as connection:
            delete_sources(connection, gone)
        self._counts["deleted"] = len(gone)

    def _record_unread(self) -> None:
        """Store what could not be read; all else below the roots has been read or is gone, unless stopped."""
        files = [unread_file(path, self._name_of(Path(path)), why) for path, why in self._unread.items()]
        with writing(self._index.engine) as connection:
            replace_unread(connection, self._index.id, files, () if self._stop.is_set() else self._roots)

    def _name_of(self, path: Path) -> str:
        """Return the display name of a file: the address of a page, or its path below the folder ingested."""
        for root in self._roots:
            if path.is_relative_to(root) and root.is_dir():
                return str(path.relative_to(root.parent))
        return self._pages.get(str(path), path.name)

    def _problem(self, path: Path, reason: str, *, whole: bool = True) -> None:
        # The path is shown beside the reason.
        reason = reason.removeprefix(f"{path.name} ")
        self._problems.append(Problem(str(path), reason))
        if whole:
            self._unread[str(path)] = reason

    def _report_progress(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self._reported_at < 0.1:
            return
        self._reported_at = now
        passed = max(now - self._started, 1e-6)
        # Embedding takes most of the time, so progress counts the embedded bytes.
        share = self._batch_done / self._waiting_passages if self._waiting_passages else 0.0
        done = self._bytes_embedded + share * (self._bytes_read - self._bytes_embedded)
        # The first few passages are not representative.
        known = done > self._bytes_total / 1000
        left = passed * max(self._bytes_total - done, 0) / done if known else None
        self._on_progress(
            IngestProgress(
                self._files_done, len(self._files), self._passages, self._passages / passed, 0.0 if force else left
            )
        )


def existing_path(path: Path) -> Path:
    """Return the absolute path of an existing file or folder, with its links unresolved.

    Raises:
        LoadError: The path does not exist.
    """
    full = Path(os.path.abspath(path.expanduser()))
    if not full.exists():
        raise LoadError(
            f"The path {path} does not exist.",
            fix="Check the path. What was ingested from it earlier is kept until `ragsmith corpora forget`.",
        )
    return full


def _label_of(address: str) -> str:
    """Return the last part of an address with a name: of its path, else its host."""
    parts = urlsplit(address)
    return unquote(parts.path.rstrip("/").rpartition("/")[2]) or parts.hostname or address


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size_of(path: Path) -> int:
    """Return the size of a file in bytes.

    Raises:
        LoadError: The path is not a readable regular file.
    """
    try:
        found = path.stat()
        str(path).encode()
    except OSError as error:
        raise LoadError(error.strerror or str(error)) from error
    except UnicodeEncodeError as error:
        raise LoadError("The name must be valid UTF-8.", fix="Rename the file, or the folder it is in.") from error
    # A pipe could block forever, and a device may be endless.
    if not stat.S_ISREG(found.st_mode):
        raise LoadError("It must be a regular file, not a pipe, a socket or a device.")
    return found.st_size


def _day_of(path: Path) -> str | None:
    """Return the day of the last change; None if it is out of range."""
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()
    except (ValueError, OverflowError):
        return None


def _document_row(document: Document, found: _Found, day: str | None) -> dict[str, Any]:
    return {
        "record": document.record,
        "title": document.title or found.label,
        "date": document.date.isoformat() if document.date else day,
        "metadata": dict(document.metadata),
    }
