"""A side of an index that was lost or damaged is noticed, told, and repaired by the next ingestion."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_stores import CountingEncoder, assert_in_step, take_in, vectors_by_place, write
from sqlalchemy import delete, select
from terminal import call, one_object

from rag import tables as db
from rag.database import writing
from rag.encoders import Encoder
from rag.errors import StorageFull
from rag.indexing import corpus_index as index_module
from rag.indexing.corpora import Corpora
from rag.indexing.corpus_index import CorpusIndex, IndexState
from rag.indexing.dense_index import forget_chroma
from rag.indexing.ingest_report import IngestProgress
from rag.workspace import Workspace

ROOT = Path(__file__).resolve().parent.parent
NOUNS = "river mill stone valley bridge quarry harbour orchard tower market".split()

DRIVER = """
import sys
from pathlib import Path
from rag.indexing import corpus_index as index_module
from rag.indexing.corpora import Corpora
from rag.database import open_database
from rag.indexing.dense_index import ChromaStore
from rag.encoders import open_encoder
from rag.settings import EncoderSettings
from rag.workspace import open_workspace
index_module.SLICE = 4
workspace = open_workspace(Path(sys.argv[1]))
corpora = Corpora(
    workspace,
    open_database(workspace),
    open_encoder(EncoderSettings(), workspace),
    60,
    ChromaStore(workspace, None),
)
with workspace.writing("repair"):
    index = corpora.ensure("notes")
    index.recover(lambda count: print(count, flush=True))
"""


def page(number: int) -> str:
    lines = [f"The {NOUNS[number % 10]} feeds the {NOUNS[(number + part) % 10]} {part}. " * 6 for part in range(3)]
    return "\n\n".join([f"# Page {number}", *(f"## Part {at}\n\n{line}" for at, line in enumerate(lines))])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files with and without a title of their own, and two with the same text."""
    pages = {f"{number}.md": page(number) for number in range(6)}
    plain = {"plain.txt": "Nothing here is a heading. " * 5, "copy.txt": "Nothing here is a heading. " * 5}
    records = '{"id": "a", "title": "A stone", "text": "It is grey."}\n{"id": "b", "text": "Two stones."}'
    return write(tmp_path / "docs", {**pages, **plain, "records.jsonl": records})


@pytest.fixture
def opened(open_corpora: Callable[..., Corpora], encoder: Encoder) -> Callable[[], Corpora]:
    """Opens the corpora as a process that has just started does."""

    def started() -> Corpora:
        forget_chroma()
        return open_corpora(CountingEncoder(encoder), tokens=60)

    return started


@pytest.fixture
def filled(opened: Callable[[], Corpora], folder: Path) -> CorpusIndex:
    index = opened().ensure("notes")
    take_in(index, folder)
    assert index.look().ok
    return index


def synced(index: CorpusIndex) -> None:
    """Add and remove so many vectors that Chroma writes the graph of the collection to its files."""
    from rag.indexing.dense_index import DenseEntry

    more = np.random.default_rng(0).standard_normal((2_000, 384)).astype(np.float32)
    index.dense.add([DenseEntry(10_000 + number, 0, 0) for number in range(2_000)], more)
    index.dense.remove([10_000 + number for number in range(2_000)])


def lose_chroma(home: Path) -> None:
    shutil.rmtree(home / "chroma")


def lose_chroma_tables(home: Path) -> None:
    (home / "chroma" / "chroma.sqlite3").unlink()


def garble_chroma_tables(home: Path) -> None:
    (home / "chroma" / "chroma.sqlite3").write_bytes(bytes(range(256)) * 64)


def truncate_chroma_tables(home: Path) -> None:
    os.truncate(home / "chroma" / "chroma.sqlite3", 50_000)


def lose_graph(home: Path) -> None:
    for below in (home / "chroma").iterdir():
        if below.is_dir():
            shutil.rmtree(below)


def emptied(path: Path) -> None:
    """Put an empty file in its place: threads of this process may still read the old one, which is mapped."""
    path.unlink()
    path.touch()


def empty_graph(home: Path) -> None:
    for path in (home / "chroma").glob("*/*"):
        emptied(path)


def lose_lexical(home: Path) -> None:
    shutil.rmtree(home / "lexical")


def empty_lexical(home: Path) -> None:
    for path in (home / "lexical").glob("*/*.*"):
        emptied(path)


def lose_lexical_segments(home: Path) -> None:
    for path in (home / "lexical").glob("*/*"):
        if path.suffix in (".fast", ".store", ".term"):
            path.unlink()


DAMAGES = [
    lose_chroma,
    lose_chroma_tables,
    garble_chroma_tables,
    truncate_chroma_tables,
    lose_graph,
    empty_graph,
    lose_lexical,
    empty_lexical,
    lose_lexical_segments,
]
ABOUT_WORDS = {"lose_lexical", "empty_lexical", "lose_lexical_segments"}


@pytest.mark.parametrize(
    ("damage", "gone"),
    [*((damage, False) for damage in DAMAGES), *((damage, True) for damage in (lose_chroma, lose_lexical))],
)
def test_the_next_ingestion_repairs_any_damage(
    filled: CorpusIndex,
    opened: Callable[[], Corpora],
    folder: Path,
    workspace: Workspace,
    damage: Callable[[Path], None],
    gone: bool,
) -> None:
    if damage.__name__ not in ABOUT_WORDS:
        synced(filled)
    before = vectors_by_place(filled)
    words = filled.lexical.search("stone grey heading", 50)
    damage(workspace.root)
    # With the folder unmounted an ingestion of something else must do.
    source = write(folder.parent / "other", {"new.txt": "A lamp."}) if gone else folder
    if gone:
        shutil.rmtree(folder)
    index = opened().ensure("notes")
    shown: list[IngestProgress] = []
    report = take_in(index, source, on_progress=shown.append)
    assert report.problems == ()
    if not gone:
        assert (report.unchanged, report.added, report.changed) == (9, 0, 0)
        expected = 0 if damage.__name__ in ABOUT_WORDS else index.passage_count()
        assert report.passages == shown[-1].passages == expected
    assert index.look().ok
    assert index.notice == ""
    assert_in_step(index)
    after = vectors_by_place(index)
    assert set(before) <= set(after)
    assert min(float(after[place] @ vector) for place, vector in before.items()) > 0.9999
    found = dict(index.lexical.search("stone grey heading", 50))
    assert set(dict(words)) <= set(found)
    # And a process that starts after it finds nothing wrong.
    again = opened()
    assert again.find("notes").state.ok
    assert again.notices() == ()


@pytest.mark.parametrize("damage", [lose_chroma, lose_graph, lose_lexical])
def test_opening_an_index_notices_what_is_lost(
    filled: CorpusIndex, opened: Callable[[], Corpora], workspace: Workspace, damage: Callable[[Path], None]
) -> None:
    synced(filled)
    damage(workspace.root)
    corpora = opened()
    index = corpora.find("notes")
    assert not index.state.ok
    (notice,) = corpora.notices()
    assert "The index of the corpus notes is damaged" in notice
    assert "`ragsmith ingest PATH --corpus notes`, or Add documents, repairs it" in notice
    count = index.passage_count()
    expected = {
        "lose_chroma": f"{count} of {count} vectors are missing from Chroma",
        "lose_graph": f"the {count} vectors in Chroma cannot be read",
        "lose_lexical": f"{count} of {count} passages are missing from the lexical index",
    }
    assert expected[damage.__name__] in notice


def test_only_what_is_missing_is_embedded_and_what_nobody_knows_is_removed(
    filled: CorpusIndex, opened: Callable[[], Corpora], folder: Path
) -> None:
    before = vectors_by_place(filled)
    lost = sorted(filled.dense.passage_ids())[3:7]
    filled.dense.remove(lost)
    filled.lexical.write(remove=lost[:2])
    (other,) = filled.dense.vectors([filled.dense.passage_ids()[0]]).values()
    from rag.indexing.dense_index import DenseEntry
    from rag.indexing.lexical_index import LexicalEntry

    filled.dense.add([DenseEntry(77_777, 1, 0)], np.asarray([other]))
    filled.lexical.write([LexicalEntry(number, 1, 0, "stray") for number in (77_777, 77_778, 77_779)])
    index = opened().find("notes")
    assert "3 of " in index.notice
    assert "1 passages that belong to no document" in index.notice
    index = opened().ensure("notes")
    report = take_in(index, folder)
    assert report.passages == len(lost)
    assert_in_step(index)
    after = vectors_by_place(index)
    assert min(float(after[place] @ vector) for place, vector in before.items()) > 0.9999
    assert index.lexical.search("stray", 5) == []


def test_words_by_older_rules_are_renewed_without_embedding(
    filled: CorpusIndex, opened: Callable[[], Corpora], folder: Path
) -> None:
    from rag.indexing.lexical_index import LexicalEntry

    first, *_ = filled.lexical.passage_ids()
    filled.lexical.write([LexicalEntry(first, 1, 0, "obsolete")])
    (filled.lexical.folder / "words-version").write_text("0")
    report = take_in(opened().ensure("notes"), folder)
    assert report.passages == 0
    index = opened().find("notes")
    assert index.lexical.is_current
    assert index.lexical.search("obsolete", 5) == []
    assert_in_step(index)


def test_a_database_that_was_put_back_removes_what_it_does_not_know(
    filled: CorpusIndex, opened: Callable[[], Corpora], folder: Path, workspace: Workspace
) -> None:
    filled.engine.dispose()
    copy = workspace.root.parent / "copy.db"
    shutil.copyfile(workspace.database, copy)
    write(folder, {"later.md": page(8)})
    take_in(opened().ensure("notes"), folder)
    filled.engine.dispose()
    for path in workspace.root.glob("ragsmith.db-*"):
        path.unlink()
    shutil.copyfile(copy, workspace.database)
    index = opened().find("notes")
    assert "vectors that belong to no document" in index.notice
    (folder / "later.md").unlink()
    index = opened().ensure("notes")
    assert take_in(index, folder).passages == 0
    assert_in_step(index)


def test_the_sample_repairs_itself_when_a_process_starts(handbook_home: Path, encoder: Encoder) -> None:
    from rag.settings import Settings
    from ui.app.app import open_app

    garble_chroma_tables(handbook_home)
    app = open_app(Settings(home=handbook_home, tracking={"wandb": "off"}))
    app.stores.encoder = encoder
    health = app.health.check()
    assert not health.index_ok
    assert any("Chroma's files are damaged" in notice for notice in health.notices)
    app.health.warm()
    health = app.health.check()
    assert health.index_ok
    (notice,) = health.notices
    (aside,) = handbook_home.glob("chroma.damaged-*")
    assert aside.name in notice
    assert_in_step(app.stores.index())
    app.close()


def test_health_names_the_corpus_until_it_is_repaired(
    encoder: Encoder, converted_models: Path, tmp_path: Path
) -> None:
    from tiny import CORPUS, open_tiny

    from ui.app.app import open_app

    made = open_tiny(tmp_path, converted_models, encoder=encoder)
    settings = made.settings
    made.close()
    shutil.rmtree(tmp_path / "chroma")
    app = open_app(settings)
    app.stores.encoder = encoder
    health = app.health.check()
    assert not health.index_ok
    assert health.model_ok
    assert f"The index of the corpus {CORPUS} is damaged" in health.notices[0]
    report = app.stores.ingest(CORPUS, [tmp_path / "pages"])
    assert report.passages == app.stores.index().passage_count()
    assert app.health.check().notices == ()
    assert app.health.check().index_ok
    other = app.health.check("nope")
    assert not other.index_ok
    assert "nope" in other.notices[0]
    app.close()


@pytest.mark.usefixtures("one_encoder")
def test_commands_tell_on_stderr_and_doctor_counts(harbour: Path, tmp_path: Path) -> None:
    home = Path(shutil.copytree(harbour, tmp_path / "home", symlinks=True))
    whole = call(home, "doctor", "--json")
    (check,) = (each for each in one_object(whole) if each["name"] == "index")
    assert check["ok"]
    assert check["detail"].startswith("harbour: ")
    shutil.rmtree(home / "chroma")
    forget_chroma()
    for arguments in (("search", "tide", "--json"), ("ask", "When was the tide gauge installed?", "--json")):
        told = call(home, *arguments, "--corpus", "harbour")
        assert told.exit_code == 0
        assert told.stderr.count("The index of the corpus harbour is damaged") == 1
        assert "damaged" not in told.stdout
    shown = call(home, "doctor")
    assert "vectors are missing from Chroma" in " ".join(shown.stdout.split())
    assert "harbour" in shown.stdout
    garble_chroma_tables(home)
    forget_chroma()
    (check,) = (each for each in one_object(call(home, "doctor", "--json")) if each["name"] == "chroma")
    assert not check["ok"]
    assert "is set aside" in check["fix"]


def test_a_repair_that_fails_or_is_stopped_keeps_what_it_did(
    filled: CorpusIndex,
    opened: Callable[[], Corpora],
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(index_module, "SLICE", 4)
    lose_chroma(workspace.root)
    index = opened().ensure("notes")
    encoder: Any = index.encoder
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise StorageFull("The disk is full.")

    encoder.on_embed = fail
    with pytest.raises(StorageFull):
        index.recover()
    encoder.on_embed = lambda: None
    assert len(index.dense) == 8
    stop = threading.Event()
    index = opened().ensure("notes")
    index.recover(lambda _: stop.set(), stop)
    assert len(index.dense) == 12
    assert not index.state.ok
    index.recover()
    assert index.state.ok
    assert_in_step(index)


def test_a_killed_repair_goes_on_where_it_was(
    filled: CorpusIndex, opened: Callable[[], Corpora], workspace: Workspace
) -> None:
    lose_chroma(workspace.root)
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(workspace.root)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline() == "4\n"
        os.kill(process.pid, signal.SIGKILL)
    index = opened().ensure("notes")
    held = len(index.dense)
    assert 8 <= held < index.passage_count()
    encoder: Any = index.encoder
    index.recover()
    assert len(encoder.texts) == index.passage_count() - held
    assert_in_step(index)


def test_a_text_that_no_file_holds_is_dropped_and_taken_in_again(
    filled: CorpusIndex, opened: Callable[[], Corpora], folder: Path, workspace: Workspace
) -> None:
    with writing(filled.engine) as connection:
        number = connection.scalar(select(db.sources.c.id).where(db.sources.c.name.like("%plain.txt")))
        other = connection.scalar(select(db.sources.c.id).where(db.sources.c.name.like("%copy.txt")))
        connection.execute(delete(db.documents).where(db.documents.c.source_id.in_([number, other])))
        connection.execute(delete(db.sources).where(db.sources.c.id.in_([number, other])))
    lose_chroma(workspace.root)
    index = opened().ensure("notes")
    assert take_in(index, folder).added == 2
    assert_in_step(index)


def test_a_large_document_goes_in_by_slices(
    opened: Callable[[], Corpora], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "SLICE", 5)
    index = opened().ensure("notes")
    encoder: Any = index.encoder
    sizes: list[int] = []
    embed = encoder.embed_passages

    def sized(texts: Any, on_progress: Any = None) -> Any:
        sizes.append(len(texts))
        # Nothing of the document is found before all of it is in.
        assert index.passage_count() == 0
        return embed(texts, on_progress)

    monkeypatch.setattr(encoder, "embed_passages", sized)
    take_in(index, write(tmp_path / "big", {"big.md": "\n\n".join(page(number) for number in range(9))}))
    assert max(sizes) == 5
    assert len(sizes) > 3
    assert sum(sizes) == index.passage_count()
    assert_in_step(index)


def test_a_large_document_that_breaks_off_between_slices_is_taken_back(
    opened: Callable[[], Corpora], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "SLICE", 5)
    index = opened().ensure("notes")
    folder = write(tmp_path / "big", {"big.md": "\n\n".join(page(number) for number in range(9))})
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise StorageFull("The disk is full.")

    encoder: Any = index.encoder
    encoder.on_embed = fail
    with pytest.raises(StorageFull):
        take_in(index, folder)
    encoder.on_embed = lambda: None
    assert len(index.dense) == 10
    # On its way in, it is no damage.
    assert opened().find("notes").state.ok
    index = opened().ensure("notes")
    take_in(index, folder)
    assert_in_step(index)


def test_an_index_at_work_is_not_damaged() -> None:
    assert IndexState(10, 0, 10, 10).ok
    assert IndexState(10, 5, 15, 12).ok
    assert not IndexState(10, 5, 16, 10).ok
    assert not IndexState(10, 5, 9, 10).ok
    assert not IndexState(10, 0, None, 10).ok
    assert IndexState(10, 0, 10, 10).notice("notes") == ""
