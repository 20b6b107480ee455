"""Ingestions that were stopped, failed or broken off, and what the same command does next."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from corpus_stores import CountingEncoder, assert_in_step, passages_of, places, take_in, write

from rag.encoders import Encoder
from rag.errors import StorageFull
from rag.indexing import ingestion as ingestion
from rag.indexing.corpora import Corpora
from rag.indexing.corpus_index import CorpusIndex
from rag.indexing.lexical_index import LexicalIndex


@pytest.fixture
def counting(encoder: Encoder) -> CountingEncoder:
    return CountingEncoder(encoder)


@pytest.fixture
def index(open_corpora: Callable[..., Corpora], counting: CountingEncoder) -> CorpusIndex:
    return open_corpora(counting).ensure("notes")


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve files, of which three fill a batch."""
    monkeypatch.setattr(ingestion, "BATCH", 3)
    return write(tmp_path / "many", {f"{n:02}.md": f"Stone number {n} lies in the river." for n in range(12)})


def test_a_stopped_ingestion_keeps_what_was_done_and_goes_on(
    index: CorpusIndex, many: Path, counting: CountingEncoder
) -> None:
    stop = threading.Event()
    counting.on_embed = lambda: stop.set() if len(counting.texts) >= 6 else None
    report = take_in(index, many, stop=stop)
    assert report.stopped
    assert 0 < report.added < 12
    assert len(places(index)) == report.added
    done = len(counting.texts)
    again = take_in(index, many)
    assert (again.unchanged, again.added) == (report.added, 12 - report.added)
    assert len(counting.texts) - done == again.added
    assert_in_step(index)


def test_an_ingestion_that_is_stopped_deletes_nothing(index: CorpusIndex, many: Path) -> None:
    take_in(index, many)
    (many / "00.md").unlink()
    stop = threading.Event()
    stop.set()
    report = take_in(index, many, stop=stop)
    assert report.stopped
    assert report.deleted == 0
    assert passages_of(index, "00.md")


def test_what_was_embedded_of_a_long_file_is_not_embedded_again(
    index: CorpusIndex, tmp_path: Path, counting: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingestion, "BATCH", 3)
    lines = [json.dumps({"id": n, "text": f"Stone number {n} lies in the river."}) for n in range(12)]
    path = write(tmp_path, {"a.jsonl": "\n".join(lines)}) / "a.jsonl"
    stop = threading.Event()
    counting.on_embed = lambda: stop.set() if len(counting.texts) >= 6 else None
    report = take_in(index, path, stop=stop)
    assert (report.stopped, report.added) == (True, 0)
    assert places(index) == {}
    take_in(index, path)
    assert sorted(counting.texts) == sorted(set(counting.texts))
    assert len(places(index)) == 12
    assert_in_step(index)


@pytest.mark.parametrize(
    "step", ["embed", "dense", "lexical", "ready", "recorded", "leaving", "forget", "forgotten"]
)
def test_an_ingestion_broken_off_between_two_stores_is_made_good_by_the_next(
    index: CorpusIndex, many: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BrokenOffError(Exception):
        pass

    def broken(*_: object, **__: object) -> None:
        raise BrokenOffError

    take_in(index, many)
    write(many, {"00.md": "Another stone.", "12.md": "One more stone.", "13.md": "The last stone."})
    (many / "05.md").unlink()
    target, name = {
        "embed": (index.encoder, "embed_passages"),
        "dense": (index.dense, "add"),
        "lexical": (LexicalIndex, "write"),
        "ready": (CorpusIndex, "_set_state"),
        "recorded": (ingestion._Ingestion, "_record_loaded"),
        "leaving": (CorpusIndex, "remove_orphans"),
        "forget": (CorpusIndex, "_forget"),
        "forgotten": (index.dense, "remove"),
    }[step]
    with monkeypatch.context() as patch:
        if step == "forget":
            # Only what takes out the orphans at the end, not what recovers at the start.
            patch.setattr(index, "recover", lambda *_: 0)
        patch.setattr(target, name, broken)
        with pytest.raises(BrokenOffError):
            take_in(index, many)
    # Until the next ingestion, whatever the files held before or after is found, and nothing else.
    assert {text for *_, text in places(index)} <= {
        *(f"Stone number {n} lies in the river." for n in range(12)),
        "Another stone.",
        "One more stone.",
        "The last stone.",
    }
    take_in(index, many)
    assert {text for *_, text in places(index)} == {
        *(f"Stone number {n} lies in the river." for n in range(12) if n not in (0, 5)),
        "Another stone.",
        "One more stone.",
        "The last stone.",
    }
    assert_in_step(index)


def test_a_full_disk_keeps_what_was_finished(
    index: CorpusIndex, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upsert, calls = index.dense._collection.upsert, 0

    def full_after_two(**given: object) -> None:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise RuntimeError("error returned from database: (code: 13) database or disk is full")
        upsert(**given)

    with monkeypatch.context() as patch:
        patch.setattr(index.dense._collection, "upsert", full_after_two)
        with pytest.raises(StorageFull) as raised:
            take_in(index, many)
    assert "run the same command again" in raised.value.fix
    done = len(places(index))
    assert done >= 5
    assert take_in(index, many).unchanged == done
    assert_in_step(index)
