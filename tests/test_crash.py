"""Killed at any moment and run again, an ingestion ends with the index of one that was never disturbed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from corpus_stores import assert_in_step, places, vectors_by_place, write

from rag.database import open_database
from rag.encoders import Encoder
from rag.indexing.corpora import Corpora
from rag.indexing.corpus_index import CorpusIndex
from rag.indexing.dense_index import ChromaStore
from rag.workspace import Workspace, open_workspace

ROOT = Path(__file__).resolve().parent.parent
KILLS = 4
NOUNS = "river mill stone valley bridge quarry harbour orchard tower market".split()
VERBS = "carries grinds holds hides crosses feeds warms measures paints forgets".split()

# The command line's way of ingesting, with batches so small that a moment falls between any two steps.
DRIVER = """
import sys, time
from pathlib import Path
from rag.indexing import ingestion as ingestion
from rag.indexing.corpora import Corpora
from rag.database import open_database
from rag.indexing.dense_index import ChromaStore
from rag.encoders import open_encoder
from rag.documents.loaders.isolated import IsolatedLoader, ParseLimits
from rag.settings import EncoderSettings, IngestSettings
from rag.workspace import open_workspace
ingestion.BATCH = 6
workspace = open_workspace(Path(sys.argv[1]))
encoder = open_encoder(EncoderSettings(), workspace)
corpora = Corpora(workspace, open_database(workspace), encoder, 60, ChromaStore(workspace, None))
with workspace.writing("ingest"):
    index = corpora.ensure("notes")
    print("ready", flush=True)
    started = time.monotonic()
    with IsolatedLoader(ParseLimits.of(IngestSettings())) as loader:
        report = ingestion.ingest(index, [Path(sys.argv[2])], loader)
    print(time.monotonic() - started, len(report.problems), flush=True)
"""


def sentence(chance: random.Random) -> str:
    one, other = chance.choice(NOUNS), chance.choice(NOUNS)
    return f"The {one} {chance.choice(VERBS)} the {other} number {chance.randrange(999)}."


def page(chance: random.Random, sections: int) -> str:
    parts = [f"# {sentence(chance)}"]
    for number in range(sections):
        parts += [f"## Part {number}", " ".join(sentence(chance) for _ in range(chance.randrange(2, 9)))]
    return "\n\n".join(parts)


def records(chance: random.Random, first: int) -> str:
    lines = (f'{{"id": {number}, "text": "{sentence(chance)}"}}\n' for number in range(first, first + 25))
    return "".join(lines)


def make_pages(folder: Path, chance: random.Random) -> None:
    """Forty files, some with the same text, two of them long."""
    files = {f"{number:02}.md": page(chance, chance.randrange(1, 5)) for number in range(34)}
    files |= {f"copies/{number:02}.md": files[f"{number:02}.md"] for number in (3, 8, 21)}
    files |= {"a.jsonl": records(chance, 0), "long.md": page(chance, 30), "last.txt": page(chance, 2)}
    write(folder, files)


def change_pages(folder: Path, chance: random.Random) -> None:
    """What a person may do between a crash and the next start."""
    write(folder, {"00.md": page(chance, 2), "20.md": page(chance, 3), "new.md": page(chance, 2)})
    (folder / "a.jsonl").write_text((folder / "a.jsonl").read_text() + records(chance, 25))
    (folder / "08.md").unlink()
    (folder / "33.md").unlink()


def start(home: Path, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(home), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def run_to_the_end(home: Path, folder: Path) -> float:
    """Ingest undisturbed; the seconds that it took once everything was loaded."""
    with start(home, folder) as process:
        out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    ready, told = out.splitlines()
    assert ready == "ready"
    seconds, problems = told.split()
    assert problems == "0"
    return float(seconds)


def kill_after(home: Path, folder: Path, seconds: float, *, loaded: bool) -> bool:
    """Ingest, and kill the process so long after its start or after it was loaded; whether it had finished."""
    with start(home, folder) as process:
        assert process.stdout is not None
        if loaded:
            line = process.stdout.readline()
            assert line == "ready\n", process.communicate()
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
        out, errors = process.communicate()
    assert "Traceback" not in errors, errors
    return len(out.split()) == (2 if loaded else 3)


@pytest.fixture
def opened(encoder: Encoder, converted_models: Path, tmp_path: Path) -> Callable[[str], CorpusIndex]:
    """Opens the corpus of one of the workspaces, to look at it."""

    def corpus(name: str) -> CorpusIndex:
        workspace = Workspace(tmp_path / name)
        chroma = ChromaStore(workspace, None)
        return Corpora(workspace, open_database(workspace), encoder, 60, chroma).find("notes")

    return corpus


@pytest.mark.slow
def test_after_many_kills_the_index_equals_a_clean_one(
    tmp_path: Path, converted_models: Path, opened: Callable[[str], CorpusIndex]
) -> None:
    seed = int(os.environ.get("SEED", random.SystemRandom().randrange(10_000)))
    print(f"SEED={seed}")
    chance = random.Random(seed)
    folder = tmp_path / "pages"
    homes = {name: open_workspace(tmp_path / name).root for name in ("crashed", "clean")}
    for home in homes.values():
        (home / "models").symlink_to(converted_models)
    make_pages(folder, chance)
    duration = run_to_the_end(homes["clean"], folder)

    for number in range(KILLS):
        # On average all kills together leave one whole ingestion's time, so that the last ones still meet work.
        moment = chance.uniform(0, 2 * duration / KILLS)
        loaded = number > 0
        if not loaded:
            moment = chance.uniform(0.5, 3.0)
        finished = kill_after(homes["crashed"], folder, moment, loaded=loaded)
        print(f"kill {number}: {moment:.3f} s after the {'loading' if loaded else 'start'}, {finished=}")
        if number == KILLS // 2:
            change_pages(folder, chance)
    run_to_the_end(homes["crashed"], folder)
    run_to_the_end(homes["clean"], folder)

    crashed, clean = opened("crashed"), opened("clean")
    assert_in_step(clean)
    assert_in_step(crashed)
    assert set(places(crashed)) == set(places(clean))
    vectors = vectors_by_place(crashed)
    assert min(float(vectors[place] @ vector) for place, vector in vectors_by_place(clean).items()) > 0.999999
    for place, number in list(places(crashed).items())[::5]:
        assert number in [found for found, _ in crashed.lexical.search(place[4], 20)]
        assert crashed.dense.search(vectors[place], 1)[0][1] > 0.9999
