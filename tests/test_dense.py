"""The dense side: nearest vectors by cosine, the same in the embedded Chroma and on a Chroma server."""

from __future__ import annotations

import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rag.errors import RagsmithError, SettingsError, StorageFull, VectorStoreError
from rag.indexing import dense_index as dense
from rag.indexing.dense_index import DenseEntry, DenseIndex, open_chroma
from rag.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

DIMENSIONS = 12
CHROMA = Path(sys.executable).parent / "chroma"


def vectors(count: int, seed: int = 0) -> NDArray[np.float32]:
    made = np.random.default_rng(seed).standard_normal((count, DIMENSIONS)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def entries(count: int, texts: int = 3, pages: int = 2) -> list[DenseEntry]:
    return [DenseEntry(number, number % texts, number % pages) for number in range(count)]


def numbers(found: Sequence[tuple[int, float]]) -> list[int]:
    return [number for number, _ in found]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def chroma_server(folder: Path) -> Iterator[str]:
    """A real Chroma server on a free port, ended with the context."""
    port = free_port()
    command = [CHROMA, "run", "--path", folder, "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = monotonic() + 60
            while True:
                assert process.poll() is None
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert monotonic() < deadline
                sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


@contextmanager
def connected(url: str, workspace: Workspace) -> Iterator[ClientAPI]:
    """A client of a server; chromadb leaves its connections open when it is closed."""
    client: Any = open_chroma(workspace, url)
    try:
        yield client
    finally:
        servers = client._server, client._admin_client._server
        client.close()
        for server in servers:
            server._session.close()


@pytest.fixture(scope="module", params=["embedded", "server"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClientAPI]:
    folder = tmp_path_factory.mktemp("chroma")
    if request.param == "embedded":
        yield open_chroma(open_workspace(folder), None)
        return
    with chroma_server(folder) as url, connected(url, Workspace(folder / "unused")) as client:
        yield client


@pytest.fixture
def index(client: ClientAPI) -> Iterator[DenseIndex]:
    made = DenseIndex(client, f"notes-{uuid.uuid4().hex}")
    yield made
    made.drop()


# Adding, removing, searching: in both


def test_the_nearest_come_first_with_their_cosines(index: DenseIndex) -> None:
    stored = vectors(40)
    index.add(entries(40), stored)
    query = vectors(1, seed=1)[0]
    expected = stored @ query
    found = index.search(query, 10)
    assert numbers(found) == list(np.argsort(-expected)[:10])
    assert [score for _, score in found] == pytest.approx(sorted(expected, reverse=True)[:10], abs=1e-5)


def test_a_vector_finds_itself_with_a_cosine_of_one(index: DenseIndex) -> None:
    stored = vectors(10)
    index.add(entries(10), stored)
    assert index.search(stored[4], 1) == [(4, pytest.approx(1, abs=1e-6))]


def test_ties_are_ordered_by_number(index: DenseIndex) -> None:
    same = np.repeat(vectors(1), 4, axis=0)
    index.add([DenseEntry(number, 0, 0) for number in (12, 5, 103, 7)], same)
    assert numbers(index.search(same[0], 10)) == [5, 7, 12, 103]


def test_a_limit_above_the_number_of_passages_finds_all(index: DenseIndex) -> None:
    index.add(entries(3), vectors(3))
    assert len(index.search(vectors(1)[0], 1_000)) == 3


def test_no_document_has_a_page_beyond_64_bits(index: DenseIndex) -> None:
    index.add(entries(3), vectors(3))
    assert index.search(vectors(1)[0], 10, page=2**63) == []


def test_an_empty_collection_finds_nothing(index: DenseIndex) -> None:
    assert index.search(vectors(1)[0], 10) == []
    assert index.passage_ids() == []
    assert index.vectors([]) == {}
    assert len(index) == 0
    index.remove([1, 2])
    index.remove([])
    index.add([], vectors(0))


def test_what_was_removed_is_not_found(index: DenseIndex) -> None:
    stored = vectors(5)
    index.add(entries(5), stored)
    index.remove([0, 3, 99])
    assert index.passage_ids() == [1, 2, 4]
    assert numbers(index.search(stored[3], 10)).count(3) == 0
    assert len(index) == 3


def test_a_passage_with_the_same_number_replaces_the_old_one(index: DenseIndex) -> None:
    old, new = vectors(2)
    index.add([DenseEntry(1, 1, 1)], old[None])
    index.add([DenseEntry(1, 2, 2)], new[None])
    assert len(index) == 1
    assert index.search(new, 1) == [(1, pytest.approx(1, abs=1e-6))]
    assert index.search(new, 1, [1]) == []
    assert numbers(index.search(new, 1, [2], 2)) == [1]


def test_the_stored_vectors_can_be_read_back(index: DenseIndex) -> None:
    stored = vectors(5)
    index.add(entries(5), stored)
    held = index.vectors([4, 2, 99])
    assert sorted(held) == [2, 4]
    assert np.allclose(held[2], stored[2])


def test_only_the_texts_and_the_page_that_are_asked_for_are_found(index: DenseIndex) -> None:
    index.add(entries(12), vectors(12))
    query = vectors(1, seed=1)[0]
    assert sorted(numbers(index.search(query, 20, [1, 2]))) == [1, 2, 4, 5, 7, 8, 10, 11]
    assert sorted(numbers(index.search(query, 20, None, 1))) == [1, 3, 5, 7, 9, 11]
    assert sorted(numbers(index.search(query, 20, [0], 1))) == [3, 9]
    assert index.search(query, 20, []) == []
    assert index.search(query, 20, [99]) == []


def test_a_filter_keeps_order_and_cosines(index: DenseIndex) -> None:
    index.add(entries(60), vectors(60))
    query = vectors(1, seed=1)[0]
    wanted = [pair for pair in index.search(query, 60) if pair[0] % 3 == 1][:5]
    assert index.search(query, 5, [1]) == [(number, pytest.approx(score, abs=1e-6)) for number, score in wanted]


@pytest.mark.parametrize("limit", [1, 5, 100])
@pytest.mark.parametrize("page", [None, 1])
def test_a_filter_too_long_for_the_database_finds_the_same(
    index: DenseIndex, monkeypatch: pytest.MonkeyPatch, limit: int, page: int | None
) -> None:
    index.add(entries(200, texts=50), vectors(200))
    query = vectors(1, seed=1)[0]
    expected = index.search(query, limit, [7, 8, 9], page)
    monkeypatch.setattr(dense, "LARGEST_FILTER", 2)
    assert numbers(index.search(query, limit, [7, 8, 9], page)) == numbers(expected)


@pytest.mark.slow
def test_more_than_the_largest_batch_goes_through_in_parts(index: DenseIndex) -> None:
    count = 2 * index._most + 10
    index.add(entries(count), vectors(count))
    assert len(index) == count
    assert index.passage_ids() == list(range(count))
    assert len(index.vectors(range(count))) == count
    index.remove(range(count - 1))
    assert index.passage_ids() == [count - 1]


def test_a_collection_is_still_there_when_opened_again(client: ClientAPI, index: DenseIndex) -> None:
    index.add(entries(3), vectors(3))
    assert DenseIndex(client, index._name).passage_ids() == [0, 1, 2]


def test_a_collection_that_was_dropped_starts_empty(client: ClientAPI) -> None:
    name = f"dropped-{uuid.uuid4().hex}"
    index = DenseIndex(client, name)
    index.add(entries(3), vectors(3))
    index.drop()
    assert name not in [each.name for each in client.list_collections()]
    again = DenseIndex(client, name)
    assert len(again) == 0
    again.drop()


def test_vectors_of_another_length_are_refused(index: DenseIndex) -> None:
    index.add(entries(2), vectors(2))
    with pytest.raises(VectorStoreError, match="Chroma reports an error"):
        index.add([DenseEntry(9, 0, 0)], np.ones((1, DIMENSIONS + 1), np.float32))
    with pytest.raises(VectorStoreError, match="Chroma reports an error"):
        index.search(np.ones(DIMENSIONS + 1, np.float32), 3)


# The embedded one


def test_the_embedded_store_persists(workspace: Workspace) -> None:
    import chromadb.api.client

    stored = vectors(5)
    DenseIndex(open_chroma(workspace, None), "notes").add(entries(5), stored)
    chromadb.api.client.SharedSystemClient.clear_system_cache()
    again = DenseIndex(open_chroma(workspace, None), "notes")
    assert numbers(again.search(stored[2], 1)) == [2]


def test_a_store_that_is_no_folder_is_refused(workspace: Workspace) -> None:
    workspace.chroma.write_text("no store")
    with pytest.raises(VectorStoreError, match="Chroma reports an error"):
        open_chroma(workspace, None)


# The server


def test_a_server_that_is_down_is_named_with_the_fix(workspace: Workspace) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(VectorStoreError, match=f"The Chroma server for {url} does not answer") as raised:
        open_chroma(workspace, url)
    assert "chroma run" in raised.value.fix
    assert "chroma_url" in raised.value.fix


def test_a_server_that_never_answers_is_given_up(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.indexing.dense_index.PROBE_S", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(VectorStoreError, match="does not answer: Cannot connect within"):
            open_chroma(workspace, f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_a_server_that_goes_down_is_named_with_the_fix(tmp_path: Path, workspace: Workspace) -> None:
    with ExitStack() as stack:
        with chroma_server(tmp_path / "server") as url:
            index = DenseIndex(stack.enter_context(connected(url, workspace)), "notes")
            index.add(entries(2), vectors(2))
        steps: list[Any] = [
            lambda: index.search(vectors(1)[0], 1),
            lambda: index.add(entries(1), vectors(1)),
            lambda: index.remove([1]),
            lambda: len(index),
            index.passage_ids,
            index.drop,
        ]
        for step in steps:
            with pytest.raises(VectorStoreError, match="does not answer") as raised:
                step()
            assert "chroma run" in raised.value.fix


@pytest.mark.parametrize("url", ["ftp://host", "localhost:8000", "http://", "nonsense"])
def test_an_address_that_is_none_is_a_mistake_in_the_settings(workspace: Workspace, url: str) -> None:
    with pytest.raises(SettingsError, match="must be an http") as raised:
        open_chroma(workspace, url)
    assert "http://host:8000" in raised.value.fix


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("database or disk is full", StorageFull),
        ("No space left on device (os error 28)", StorageFull),
        ("Could not connect to tenant default_tenant", VectorStoreError),
        ("anything else", VectorStoreError),
        ("", VectorStoreError),
    ],
)
def test_what_chroma_raises_is_translated(
    workspace: Workspace, reason: str, kind: type[RagsmithError], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = DenseIndex(open_chroma(workspace, None), "notes")

    def refuse(**_: object) -> None:
        raise RuntimeError(reason)

    monkeypatch.setattr(index._collection, "upsert", refuse)
    with pytest.raises(kind) as raised:
        index.add(entries(1), vectors(1))
    assert raised.value.fix
    assert isinstance(raised.value.__cause__, RuntimeError)
