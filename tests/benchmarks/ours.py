"""ragsmith in a measured process. Each function runs in a process of its own, see ``child``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.child import peak_mb

if TYPE_CHECKING:
    from rag.settings import Settings
    from rag.types import Answer, Ask
    from ui.app.app import App


@dataclass(frozen=True, slots=True)
class Ingested:
    """What an ingestion did and took; the same for both pipelines.

    Attributes:
        chunks: Passages that were embedded.
        tokens: In them, by the encoder's tokenizer, without special ones and without headings in front.
        kilobytes: Of the files, 1,000 bytes each.
        seconds: Of the ingestion alone, with libraries and model loaded before.
        peak_mb: Of the whole process, at the end of the ingestion.
    """

    files: int
    chunks: int
    tokens: int
    kilobytes: float
    seconds: float
    peak_mb: float


def settings_for(home: str) -> Settings:
    """The defaults, in a workspace, with nothing sent to a tracker."""
    from rag.settings import Settings, TrackingSettings

    return Settings(home=Path(home), tracking=TrackingSettings(wandb="off"))


async def answer_to(app: App, ask: Ask) -> Answer:
    """Ask, and wait for the whole answer."""
    from rag.types import Done

    done = [event async for event in app.releases.assistant().start(ask) if isinstance(event, Done)]
    return done[0].answer


def convert(home: str) -> dict[str, float]:
    """Convert the encoder: what a machine does once."""
    from ui.app.app import open_app

    started = time.perf_counter()
    app = open_app(settings_for(home))
    app.stores.encoder.embed(["Compiled kernels are kept beside the model."])
    _ = app.models.reader(app.settings.reader.adapter)
    return {"seconds": time.perf_counter() - started}


def ingest(home: str, corpus: str, paths: Sequence[str]) -> dict[str, Any]:
    """Ingest files into a corpus."""
    from sqlalchemy import func, select

    from rag import tables as db
    from rag.database import reading
    from ui.app.app import open_app

    app = open_app(settings_for(home))
    # The form for passages is compiled at the first use; the plain pipeline's model is loaded before, too.
    app.stores.encoder.embed_passages(["warm up"])
    app.stores.corpus_names()
    files = [Path(path) for path in paths]
    started = time.perf_counter()
    done = app.stores.ingest(corpus, files)
    seconds, peak = time.perf_counter() - started, peak_mb()
    if done.problems:
        raise ValueError(f"{done.problems[0].path}: {done.problems[0].reason}")
    index = app.stores.index(corpus)
    with reading(index.engine) as connection:
        tokens = connection.scalar(
            select(func.sum(db.passages.c.tokens))
            .select_from(db.passages.join(db.texts))
            .where(db.texts.c.index_id == index.id)
        )
    size = sum(path.stat().st_size for path in files)
    return asdict(Ingested(len(files), done.passages, int(tokens or 0), size / 1e3, seconds, peak))


def cut(home: str, paths: Sequence[str]) -> dict[str, float]:
    """Cut files into passages and embed nothing: how many tokens a passage has on average."""
    from rag.documents.chunking import chunk_document, rule_for
    from rag.documents.loaders import load
    from ui.app.app import open_app

    app = open_app(settings_for(home))
    rule = rule_for(app.stores.encoder, app.settings.chunking.tokens)
    chunks = [
        chunk
        for path in paths
        for document in load(Path(path), Path(path).read_bytes())
        for chunk in chunk_document(document, app.stores.encoder.tokens, rule)
    ]
    return {"chunks": len(chunks), "tokens_per_chunk": sum(chunk.tokens for chunk in chunks) / len(chunks)}


def ready(home: str, corpus: str, query: str) -> dict[str, float]:
    """Answer the first query on an index that is there."""
    from ui.app.app import open_app

    found = open_app(settings_for(home)).retriever(corpus).search(query)
    return {"hits": len(found), "peak_mb": peak_mb()}


@dataclass(frozen=True, slots=True)
class _Watched:
    """Stands in for a part of the index and notes when its one method runs."""

    part: Any
    method: str
    spans: dict[str, tuple[float, float]]
    name: str

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.part, name)
        if name != self.method:
            return found

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return found(*args, **kwargs)
            finally:
                self.spans[self.name] = (started, time.perf_counter())

        return timed


def queries(home: str, corpus: str) -> Callable[..., dict[str, list[float]]]:
    """Search block by block.

    Returns:
        Takes ``queries``, ``mode`` and ``k``, gives milliseconds for each query: the whole search, and its
        parts as they were inside of it. Both sides run at once, so that the parts add up to more than the
        whole; ``fuse and fetch`` is what follows when both are there.
    """
    from rag.retrieval.retriever import SearchOptions
    from ui.app.app import open_app

    app = open_app(settings_for(home))
    retriever = app.releases.retriever(corpus)
    index = app.stores.index(corpus)
    spans: dict[str, tuple[float, float]] = {}
    watched: Any = index
    watched.encoder = _Watched(index.encoder, "embed", spans, "encode")
    watched.dense = _Watched(index.dense, "search", spans, "dense")
    watched.lexical = _Watched(index.lexical, "search", spans, "lexical")

    def respond(queries: Sequence[str], mode: Any, k: int) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        options = SearchOptions(k, mode)
        for query in queries:
            spans.clear()
            started = time.perf_counter()
            retriever.search(query, options)
            ended = time.perf_counter()
            parts = {name: end - begin for name, (begin, end) in spans.items()}
            parts["fuse and fetch"] = ended - max(end for _, end in spans.values())
            parts["whole"] = ended - started
            for name, seconds in parts.items():
                found.setdefault(name, []).append(seconds * 1e3)
        return found

    return respond
