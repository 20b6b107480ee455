"""The dense side of an index: a Chroma collection of passage vectors."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rag.errors import SettingsError, StorageFull, VectorStoreError, first_line
from rag.redaction import redact, without_password
from rag.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    from chromadb.api import ClientAPI
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)

# Candidates of a graph search: 200 gave a recall at 10 of 0.999 on real embeddings.
EF_SEARCH = 200
# A filter with more ids is applied after the search, because SQLite allows 32,766 variables in a statement.
LARGEST_FILTER = 10_000
PAGE = 5_000
# Page numbers beyond this match nothing; Chroma and tantivy refuse numbers beyond 64 bits.
LARGEST_PAGE = 2**31
# Time-outs of a Chroma server in seconds: for the heartbeat, and for a request.
PROBE_S = 10.0
TIMEOUT_S = 120.0


# Chroma's messages about damaged files, as opposed to a locked, full or unreachable store.
_DAMAGE = re.compile(
    r"not a database|malformed|code: (?:11|26)\)|[Ee]rror (?:finding id|getting embedding)"
    r"|hnsw|pickle|deserializ|corrupt"
)


@dataclass(frozen=True, slots=True)
class DenseEntry:
    """Ids of passage and text that a vector belongs to, and the page (0: none)."""

    passage_id: int
    text_id: int
    page: int


def open_chroma(workspace: Workspace, url: str | None) -> ClientAPI:
    """Open the store in the workspace, or connect to a server.

    Raises:
        VectorStoreError: The server does not answer, or the store is damaged.
        SettingsError: The URL is invalid.
    """
    import chromadb
    from chromadb.config import Settings

    options = Settings(anonymized_telemetry=False)
    if url is None:
        with _store_errors(str(workspace.chroma)):
            try:
                return chromadb.PersistentClient(path=str(workspace.chroma), settings=options)
            except Exception:
                # Otherwise Chroma would keep the failed instance and fail again the next time.
                forget_chroma()
                raise
    shown = without_password(url)
    try:
        parts = urlsplit(url)
        given = parts.port
    except ValueError:
        # The invalid port may be part of a password: do not repeat it, nor the error that quotes it.
        raise _invalid_url(shown) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _invalid_url(shown)
    secure = parts.scheme == "https"
    port = given or (443 if secure else 8000)
    with _store_errors(shown):
        _check_heartbeat(f"{parts.scheme}://{parts.hostname}:{port}")
        client = chromadb.HttpClient(host=parts.hostname, port=port, ssl=secure, settings=options)
    # Chroma's client has no time-out, and no setting for one.
    client._server._session.timeout = TIMEOUT_S  # type: ignore[attr-defined]
    return client


def _invalid_url(shown: str) -> SettingsError:
    return SettingsError(
        f"chroma_url must be an http(s) URL, not {shown}.", fix="Write it as http://host:8000, or leave it out."
    )


def forget_chroma() -> None:
    """Make the next client of an embedded store reload it; existing clients are not affected."""
    from chromadb.api.shared_system_client import SharedSystemClient

    SharedSystemClient.clear_system_cache()


def is_damage(error: BaseException) -> bool:
    """Whether an error means damaged files, as opposed to a temporary failure."""
    return _DAMAGE.search(str(error)) is not None


def _check_heartbeat(address: str) -> None:
    """Check that the server answers, with a time-out that the constructor of Chroma's client lacks."""
    import httpx

    try:
        httpx.get(f"{address}/api/v2/heartbeat", timeout=PROBE_S)
    except httpx.TimeoutException as error:
        raise httpx.ConnectTimeout(f"Cannot connect within {PROBE_S:g} seconds") from error


class ChromaStore:
    """The Chroma client of a workspace, opened at first use and reopened when another process has written.

    Chroma caches the graph of a collection in memory: a process does not notice the writes of another one, and
    its own next write would permanently lose them.

    Args:
        workspace: The workspace with the embedded store.
        url: URL of a Chroma server; None for the embedded store.

    Attributes:
        notice: A notice for the user; empty if there is none.
    """

    def __init__(self, workspace: Workspace, url: str | None) -> None:
        self._workspace = workspace
        self._url = url
        self._client: ClientAPI | None = None
        self._lock = threading.Lock()
        self.notice = ""

    @property
    def client(self) -> ClientAPI:
        """The open client.

        Raises:
            VectorStoreError: The server does not answer, or the store is damaged.
            SettingsError: The URL is invalid.
        """
        with self._lock:
            if self._client is None:
                self._client = open_chroma(self._workspace, self._url)
            return self._client

    @property
    def embedded(self) -> bool:
        """Whether Chroma runs in this process, on the workspace's files."""
        return self._url is None

    def set_aside(self) -> ClientAPI:
        """Rename the damaged Chroma folder, create a new one, and set ``notice``.

        The caller must own the workspace's write lock.

        Raises:
            VectorStoreError: The folder cannot be renamed, or a new one cannot be opened.
        """
        folder = self._workspace.chroma
        aside = folder.with_name(
            f"{folder.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 1000:03}"
        )
        with _store_errors(str(folder)):
            folder.rename(aside)
        self.notice = (
            f"The folder {folder} was damaged and is now named {aside.name}. The next ingestion into each corpus "
            "rebuilds its vectors; delete the old folder when nothing is missing."
        )
        _log.warning("%s", self.notice)
        return self.reopen()

    def reopen(self) -> ClientAPI:
        """Return a client that sees the writes of other processes; raises as ``client`` does."""
        if self._url is None:
            with self._lock:
                forget_chroma()
                self._client = None
        return self.client

    def close(self) -> None:
        """Close the store or the connection; a later use opens it again."""
        with self._lock:
            if self._client is not None:
                self._client.close()  # type: ignore[attr-defined]  # missing in its interface only
            self._client = None


class DenseIndex:
    """A Chroma collection, created if missing.

    Raises:
        VectorStoreError: Chroma refuses.
    """

    def __init__(self, client: ClientAPI, name: str) -> None:
        self._name = name
        self.use(client)

    def use(self, client: ClientAPI) -> None:
        """Switch to another client, which sees the later writes of other processes."""
        self._client = client
        with _store_errors(self._name):
            self._collection: Any = client.get_or_create_collection(
                self._name,
                configuration={"hnsw": {"space": "cosine", "ef_search": EF_SEARCH}},
                # Otherwise Chroma would download a model of its own.
                embedding_function=None,
            )
            self._most = client.get_max_batch_size()

    def add(self, entries: Sequence[DenseEntry], vectors: NDArray[np.float32]) -> None:
        """Add passages, or replace those with the same ids.

        Args:
            entries: The passages of the vectors.
            vectors: Vectors of shape ``(len(entries), dimensions)``, of unit length.

        Raises:
            StorageFull: The disk is full.
            VectorStoreError: Chroma refuses.
        """
        for at in range(0, len(entries), self._most):
            some = entries[at : at + self._most]
            with _store_errors(self._name):
                self._collection.upsert(
                    ids=[str(entry.passage_id) for entry in some],
                    embeddings=vectors[at : at + self._most],
                    metadatas=[{"text": entry.text_id, "page": entry.page} for entry in some],
                )

    def remove(self, passage_ids: Sequence[int]) -> None:
        """Remove passages; unknown ids are ignored."""
        for at in range(0, len(passage_ids), self._most):
            with _store_errors(self._name):
                self._collection.delete(ids=[str(number) for number in passage_ids[at : at + self._most]])

    def search(
        self,
        vector: NDArray[np.float32],
        limit: int,
        text_ids: Sequence[int] | None = None,
        page: int | None = None,
    ) -> list[tuple[int, float]]:
        """Return the passages nearest to a vector.

        Args:
            vector: A vector of shape ``(dimensions,)``, of unit length.
            limit: Maximum number of passages.
            text_ids: Only passages of these texts.
            page: Only passages of this page.

        Returns:
            Pairs of passage id and cosine similarity, best first; ties by id.
        """
        if text_ids is not None and not text_ids:
            return []
        if page is not None and page > LARGEST_PAGE:
            return []
        clauses: list[dict[str, Any]] = []
        allowed = None
        if text_ids is not None and len(text_ids) <= LARGEST_FILTER:
            clauses.append({"text": {"$in": list(text_ids)}})
        elif text_ids is not None:
            allowed = set(text_ids)
        if page is not None:
            clauses.append({"page": page})
        where = {"$and": clauses} if len(clauses) > 1 else (clauses[0] if clauses else None)
        found = self._nearest(vector, limit, where, allowed)
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))

    def _nearest(
        self, vector: NDArray[np.float32], limit: int, where: dict[str, Any] | None, allowed: set[int] | None
    ) -> list[tuple[int, float]]:
        asked = limit
        while True:
            with _store_errors(self._name):
                answer = self._collection.query(
                    query_embeddings=[vector],
                    n_results=asked,
                    where=where,
                    include=["distances"] if allowed is None else ["distances", "metadatas"],
                )
            numbers, distances = answer["ids"][0], answer["distances"][0]
            found = [(int(number), 1.0 - float(far)) for number, far in zip(numbers, distances, strict=True)]
            if allowed is None:
                return found
            kept = [
                pair for pair, data in zip(found, answer["metadatas"][0], strict=True) if data["text"] in allowed
            ]
            if len(kept) >= limit or len(found) < asked:
                return kept[:limit]
            asked *= 4

    def passage_ids(self) -> list[int]:
        """Return the ids of all passages, ascending."""
        numbers: list[int] = []
        while True:
            with _store_errors(self._name):
                got = self._collection.get(include=[], limit=PAGE, offset=len(numbers))["ids"]
            if not got:
                return sorted(numbers)
            numbers.extend(int(number) for number in got)

    def vectors(self, passage_ids: Sequence[int]) -> dict[int, NDArray[np.float32]]:
        """Return the stored vectors of passages, by id."""
        vectors: dict[int, NDArray[np.float32]] = {}
        for at in range(0, len(passage_ids), PAGE):
            ids = [str(number) for number in passage_ids[at : at + PAGE]]
            with _store_errors(self._name):
                got = self._collection.get(ids=ids, include=["embeddings"])
            vectors.update(
                (int(number), vector) for number, vector in zip(got["ids"], got["embeddings"], strict=True)
            )
        return vectors

    def __len__(self) -> int:
        with _store_errors(self._name):
            return int(self._collection.count())

    def drop(self) -> None:
        """Delete the collection."""
        with _store_errors(self._name):
            self._client.delete_collection(self._name)

    def empty(self) -> None:
        """Replace the collection by an empty one, even if its files are damaged."""
        self.drop()
        self.use(self._client)


@contextmanager
def _store_errors(where: str) -> Iterator[None]:
    from chromadb.errors import ChromaError

    try:
        yield
    # Chroma's Rust code raises RuntimeError, its client httpx errors, its checks ValueError.
    except (ChromaError, RuntimeError, ValueError, OSError) as error:
        raise _translated(error, where) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] in ("httpx", "httpcore"):
            raise _translated(error, where) from error
        raise


def _translated(error: Exception, where: str) -> VectorStoreError | StorageFull:
    reason = redact(first_line(error))
    if "disk is full" in reason or "No space left" in reason:
        return StorageFull(
            f"Cannot write to Chroma ({where}): the disk is full.",
            fix="Free some space and run the same command again; finished work is kept.",
        )
    if "connect" in reason.lower():
        return VectorStoreError(
            f"The Chroma server for {where} does not answer: {reason.partition('. ')[0]}.",
            fix="Start it with `chroma run --path FOLDER --port 8000`, or remove the setting chroma_url.",
        )
    if is_damage(error):
        return VectorStoreError(
            f"Chroma's files are damaged ({where}): {reason}.",
            fix="The next `ragsmith ingest` into this corpus, or Add documents, rebuilds the vectors.",
        )
    return VectorStoreError(
        f"Chroma reports an error ({where}): {reason}.",
        fix="Check the server or the folder chroma/ with `ragsmith doctor`.",
    )
