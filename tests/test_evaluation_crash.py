"""Killed at any moment and taken up again, a run ends with the table of one that was never disturbed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rag.database import open_database
from rag.evaluation.run_store import Cell, RunStore
from rag.evaluation.summary import Summary, VariantSummary, summarise
from rag.workspace import open_workspace

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
CASES = 400
KILLS = 3
# Of a sentence of 15 characters.
LONG = 3000
# What is measured with a clock.
TIMED = ("latency_p50", "latency_p95")

# A run over a dataset and two ways to answer, in which everything is real but the models. It says how many answers
# there are, so that whoever kills it can choose a moment, and at the end how many KiB of memory it took.
DRIVER = """
import asyncio, hashlib, sys, uuid
from pathlib import Path
import numpy as np
from rag.database import open_database
from rag.types import Hit, Passage
from rag.evaluation.cache import AnswerCache
from rag.evaluation.cases import Case
from rag.evaluation.dataset_store import DatasetStore
from streams import stream_of
from rag.evaluation.runner import Evaluation, ReadyVariant
from rag.evaluation.run_store import Plan, RunStore
from rag.evaluation.scoring import NullJudge, Scorer
from rag.types import Answer, Citation, Claim, Done, Usage
from rag.evaluation.variants import Variant
from rag.workspace import open_workspace

class Encoder:
    def embed(self, texts, on_progress=None):
        drawn = [np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8) for text in texts]
        vectors = np.array(drawn, np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

def ready_variant(number):
    async def answer(ask):
        chance = int(hashlib.sha256(f"{number} {ask.question}".encode()).hexdigest(), 16)
        await asyncio.sleep(chance % 3 / 2000)
        text = f"It is {chance % 7} m. [1]"
        passage = Passage(1, 1, "/d/a.md", f"{chance % 3}.md", "A", text * repeated, 0, len(text) * repeated)
        hit = Hit(passage, 0.5)
        given = Answer(
            text, "answered", hits=(hit,), citations=(Citation(1, hit, 0, 9, chance % 100 / 100),),
            claims=(Claim((1,), chance % 100 / 100),), trace_id=uuid.uuid4().hex, latency_s=chance % 3 / 2000,
            usage=Usage(chance % 900, chance % 50), cost_usd=chance % 10 / 1000,
        )
        if chance % 11 == 0:
            given = Answer("Not in these documents.", "abstained", hits=(hit,), trace_id=uuid.uuid4().hex)
        if chance % 13 == 0:
            given = Answer("", "failed", error="The model is tired.", trace_id=uuid.uuid4().hex)
        yield Done(given)
    return ReadyVariant(f"state {number}", lambda ask: stream_of(answer(ask)))

home, size, repeated = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
engine = open_database(open_workspace(home))
datasets, runs = DatasetStore(engine), RunStore(engine)
version = datasets.newest("large")
if version is None:
    cases = [
        Case(id=str(at), question=f"How high is tower {at}?", answers=(f"{at % 7} m",), sources=("1.md",))
        if at % 5 else Case(id=str(at), question=f"Who sleeps in tower {at}?", must_refuse=True)
        for at in range(size)
    ]
    version = datasets.save("large", cases, by="Ada", message="m")
    del cases
before = runs.list()
if before:
    run = runs.resume(before[0])
else:
    ways = tuple(Variant(name=name) for name in ("one", "other"))
    plan = Plan(variants=ways, states=("state 0", "state 1"), corpus="c", at_once=4)
    run = runs.begin(plan, name="n", dataset="large", version=1, sha256=version.sha256)
evaluation = Evaluation(
    run=run, size=version.size,
    cases=lambda start, end: tuple(datasets.cases(version, start, end - start)),
    variants=[ready_variant(0), ready_variant(1)], store=runs, scorer=Scorer(Encoder()), judge=NullJudge(),
    cache=AnswerCache(engine), on_progress=lambda now: print(now.done, flush=True),
)
print("status", asyncio.run(evaluation.work(asyncio.Event())), flush=True)
# What getrusage tells begins with the memory of the process that started this one.
told = Path("/proc/self/status").read_text() if sys.platform == "linux" else "VmHWM: 0 kB"
print("peak", told.split("VmHWM:")[1].split()[0], flush=True)
"""


def start(home: Path, size: int = CASES, repeated: int = 20) -> subprocess.Popen[str]:
    """Begin a run over so many cases, or take it up; its passages hold a sentence so many times."""
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(home), str(size), str(repeated)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
    )


def to_the_end(home: Path, size: int = CASES, repeated: int = 20) -> int:
    """Run undisturbed; the most memory that it took, in KiB."""
    with start(home, size, repeated) as process:
        out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    *_, status, ended, peak, most = out.split()
    assert (status, ended, peak) == ("status", "finished", "peak")
    return int(most)


def kill_at(home: Path, done: int, chance: random.Random) -> int:
    """Run, and kill the process a moment after so many answers; how many it had told of."""
    with start(home) as process:
        assert process.stdout is not None
        told = 0
        while told < done:
            line = process.stdout.readline()
            assert line.strip().isdecimal(), (line, process.communicate())
            told = int(line)
        # Anywhere between two lines, in the middle of whatever is written then.
        for _ in range(chance.randrange(20_000)):
            pass
        os.kill(process.pid, signal.SIGKILL)
        _, errors = process.communicate()
    assert "Traceback" not in errors, errors
    return told


def table(home: Path) -> tuple[list[list[Cell]], Summary]:
    """All that a run holds."""
    engine = open_database(open_workspace(home))
    store = RunStore(engine)
    (run,) = store.list()
    assert run.status == "finished"
    cells = [list(store.cells(run.id, number)) for number in range(2)]
    summary = summarise(store, run, CASES)
    engine.dispose()
    return cells, summary


def timeless(variant: VariantSummary) -> VariantSummary:
    return replace(variant, figures={name: each for name, each in variant.figures.items() if name not in TIMED})


def test_a_run_that_was_killed_again_and_again_ends_with_the_same_table(tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED", random.SystemRandom().randrange(10_000)))
    print(f"SEED={seed}")
    chance = random.Random(seed)
    to_the_end(tmp_path / "clean")

    reached = 0
    for done in sorted(chance.sample(range(1, 2 * CASES - 100), KILLS)):
        # Those that failed are asked again: a run that was taken up begins a little below where it was.
        reached = max(reached, kill_at(tmp_path / "killed", done, chance))
        print(f"killed at {reached}")
    assert 0 < reached < 2 * CASES
    to_the_end(tmp_path / "killed")

    cells, summary = table(tmp_path / "clean")
    again, summary_again = table(tmp_path / "killed")
    assert [len(each) for each in cells] == [CASES, CASES]
    assert {cell.status for cell in cells[0]} == {"answered", "abstained", "failed"}
    for one, other in zip([*cells[0], *cells[1]], [*again[0], *again[1]], strict=True):
        assert replace(other, trace_id="", latency_s=None) == replace(one, trace_id="", latency_s=None)
    assert summary_again.metrics == summary.metrics
    assert [timeless(each) for each in summary_again.variants] == [timeless(each) for each in summary.variants]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is told elsewhere")
def test_memory_does_not_grow_with_the_cases(tmp_path: Path) -> None:
    """A page of cases is held, and never all of them."""
    few = to_the_end(tmp_path / "few", 300, LONG)
    many = to_the_end(tmp_path / "many", 900, LONG)
    print(f"{few} KiB, {many} KiB")
    # Passages of 45 KB: were answers held, 1,200 further ones would take 54 MB, half as much again.
    assert many < 1.3 * few
