"""The two indexes over the same proposals that latency and start-up are measured on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.child import call
from tests.benchmarks.ours import Ingested
from tests.benchmarks.peps import a_slice, all_files
from tests.benchmarks.plan import Plan

CORPUS = "peps"


@dataclass(frozen=True, slots=True)
class Indexes:
    """Both indexes, on the disk.

    Attributes:
        files: What is in them.
        home: ragsmith's workspace; the corpus is named ``CORPUS``.
        chroma: The folder of the plain pipeline.
    """

    files: tuple[Path, ...]
    home: Path
    chroma: Path
    ours: Ingested
    theirs: Ingested


@dataclass(frozen=True, slots=True)
class ChunkSize:
    """How the plain pipeline's chunk size was chosen.

    Attributes:
        characters: The chunk size.
        files: Of the slice on which it was chosen.
        ours: Mean tokens of a passage of ragsmith's on the slice.
        theirs: Mean tokens of a chunk of that size there.
    """

    characters: int
    files: int
    ours: float
    theirs: float


def choose_chunk_size(plan: Plan) -> ChunkSize:
    """The size that gives both pipelines the same mean of tokens on the slice of files."""
    files = a_slice(plan)
    cut = call("tests.benchmarks.ours:cut", home=plan.workspace("encoder"), paths=[str(path) for path in files])
    wanted = float(cut.value["tokens_per_chunk"])
    found = call(
        "tests.benchmarks.langchain_pipeline:chunk_size",
        paths=[str(path) for path in files],
        tokens_per_chunk=wanted,
    )
    return ChunkSize(int(found.value["chunk_size"]), len(files), wanted, float(found.value["tokens_per_chunk"]))


def build_ours(plan: Plan, name: str, files: Sequence[Path]) -> Ingested:
    """Ingest into a fresh workspace of that name."""
    home = plan.fresh_workspace(name)
    done = call("tests.benchmarks.ours:ingest", home=home, corpus=CORPUS, paths=[str(path) for path in files])
    return Ingested(**done.value)


def build_theirs(plan: Plan, name: str, files: Sequence[Path], size: int) -> Ingested:
    """Ingest with the plain pipeline into a fresh folder of that name."""
    folder = plan.cache / name
    shutil.rmtree(folder, ignore_errors=True)
    done = call(
        "tests.benchmarks.langchain_pipeline:ingest",
        folder=folder,
        paths=[str(path) for path in files],
        size=size,
    )
    return Ingested(**done.value)


def indexes(plan: Plan, *, anew: bool = False, size: int | None = None) -> Indexes:
    """Both indexes: all files, of a quick run the slice. Those in the cache are used again.

    Args:
        anew: Make them in any case.
        size: The plain pipeline's chunk size, where it is known already.
    """
    files = a_slice(plan) if plan.quick else all_files(plan)
    name = f"peps-{len(files)}"
    record = plan.cache / name / "built.json"
    if anew or not record.is_file():
        shutil.rmtree(record.parent, ignore_errors=True)
        ours = build_ours(plan, f"{name}/ragsmith", files)
        theirs = build_theirs(
            plan, f"{name}/langchain", files, size if size is not None else choose_chunk_size(plan).characters
        )
        both = {"ours": _plain(ours), "theirs": _plain(theirs)}
        record.write_text(json.dumps(both), encoding="utf-8")
    built = json.loads(record.read_text(encoding="utf-8"))
    return Indexes(
        tuple(files),
        record.parent / "ragsmith",
        record.parent / "langchain",
        Ingested(**built["ours"]),
        Ingested(**built["theirs"]),
    )


def _plain(done: Ingested) -> dict[str, float]:
    return {name: getattr(done, name) for name in Ingested.__dataclass_fields__}
