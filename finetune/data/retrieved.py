"""Passages that our own retrieval finds for questions with known answers, relevant and irrelevant."""

from __future__ import annotations

import csv
import json
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.data.splits import plain
from finetune.rows import ReadingRow
from rag.errors import TuningError
from rag.settings import EncoderSettings, IngestSettings, RetrievalSettings
from rag.workspace import Workspace

if TYPE_CHECKING:
    from rag.retrieval.retriever import Retriever
    from rag.types import Hit, Passage

# Training data files are larger than what users ingest.
LIMITS = IngestSettings(max_file_mb=1_000, parse_memory_mb=4_000, parse_timeout_s=600)
TOKENS = 200


@dataclass(frozen=True, slots=True)
class RankedRow:
    """A question and a passage that was found for it.

    Attributes:
        question: Index of the question; rows of one question belong together.
        rank: Rank of the passage, from 1.
        relevant: Whether the passage answers the question or was judged relevant to it.
    """

    question: int
    text: str
    passage: str
    place: tuple[str, ...]
    rank: int
    relevant: bool


@dataclass(frozen=True, slots=True)
class Judged:
    """A question and the documents that were judged relevant to it."""

    text: str
    relevant: frozenset[str]


def judged_rows(folder: Path, split: str, depth: int) -> Iterator[RankedRow]:
    """Yield the first ``depth`` passages for every judged question of a collection in BEIR layout.

    Raises:
        TuningError: A file is missing or malformed.
    """
    judged = read_judged(folder, split)
    with searching(folder / "corpus.jsonl") as retriever:
        for number, question in enumerate(judged):

            def kind(hit: Hit, relevant: frozenset[str] = question.relevant) -> bool:
                return _id_of(hit.passage) in relevant

            yield from _rows(retriever, number, question.text, depth, kind)


def read_judged(folder: Path, split: str) -> list[Judged]:
    """Read the judged questions of one split, ordered by query id.

    Raises:
        TuningError: A file is missing or malformed.
    """
    judgements, queries = folder / "qrels" / f"{split}.tsv", folder / "queries.jsonl"
    relevant: dict[str, set[str]] = {}
    with _reading(judgements), judgements.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if int(row["score"]) > 0:
                relevant.setdefault(row["query-id"], set()).add(row["corpus-id"])
    with _reading(queries), queries.open(encoding="utf-8") as file:
        texts = {str(record["_id"]): str(record["text"]) for record in map(json.loads, file)}
    missing = sorted(relevant.keys() - texts.keys())
    if missing:
        raise TuningError(f"{judgements} judges the query {missing[0]}, which {queries} does not contain.")
    return [Judged(texts[query], frozenset(relevant[query])) for query in sorted(relevant)]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except KeyError as error:
        raise TuningError(f"{path} cannot be read: {error} is missing.") from error
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise TuningError(f"{path} cannot be read: {error}.") from error


def answered_rows(answered: Sequence[ReadingRow], asked: int, depth: int, seed: int) -> Iterator[RankedRow]:
    """Yield the first ``depth`` passages for a sample of questions, searched in the passages of all of them.

    A passage that contains the answer but is not the one the question was asked about may or may not answer it:
    it is left out.
    """
    rng = random.Random(f"{seed} retrieved")
    known = {row.passage: row.place[0] if row.place else "" for row in answered}
    numbers = {passage: str(number) for number, passage in enumerate(known)}
    with searching_passages(known) as retriever:
        chosen = rng.sample(answered, min(asked, len(answered)))
        for number, row in enumerate(chosen):
            answers = [plain(row.passage[start:end]) for start, end in row.answers]

            def kind(hit: Hit, row: ReadingRow = row, answers: list[str] = answers) -> bool | None:
                text = plain(hit.passage.text)
                has_answer = any(answer in text for answer in answers if answer)
                own = _id_of(hit.passage) == numbers[row.passage]
                return own if own == has_answer else None

            yield from _rows(retriever, number, row.question, depth, kind)


@contextmanager
def searching_passages(titles: Mapping[str, str]) -> Iterator[Retriever]:
    """Index texts temporarily and yield a retriever over them, see ``searching``.

    Args:
        titles: The texts in the order of their ids, which count from 0, each with its title.
    """
    with tempfile.TemporaryDirectory(prefix="ragsmith-") as folder:
        path = Path(folder) / "passages.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for number, (text, title) in enumerate(titles.items()):
                file.write(json.dumps({"id": str(number), "title": title, "text": text}) + "\n")
        with searching(path) as retriever:
            yield retriever


@contextmanager
def searching(*corpus: Path) -> Iterator[Retriever]:
    """Index files and folders temporarily and yield a retriever that searches as ``ragsmith search`` does.

    Raises:
        TuningError: One of them is missing, or cannot be read.
    """
    from rag.database import open_database
    from rag.documents.loaders.isolated import IsolatedLoader, ParseLimits
    from rag.encoders import open_encoder
    from rag.indexing.corpora import Corpora
    from rag.indexing.dense_index import ChromaStore
    from rag.indexing.ingestion import ingest
    from rag.retrieval.retriever import Retriever

    if missing := next((path for path in corpus if not path.exists()), None):
        raise TuningError(f"There is no {missing}.", fix="Name the data folder.")
    with tempfile.TemporaryDirectory(prefix="ragsmith-") as folder, ExitStack() as closing:
        workspace = Workspace(Path(folder))
        encoder = open_encoder(EncoderSettings(), workspace)
        engine = open_database(workspace)
        closing.callback(engine.dispose)
        chroma = ChromaStore(workspace, None)
        closing.callback(chroma.close)
        index = Corpora(workspace, engine, encoder, TOKENS, chroma).ensure("data")
        loader = closing.enter_context(IsolatedLoader(ParseLimits.of(LIMITS)))
        report = ingest(index, list(corpus), loader)
        if report.problems:
            problem = report.problems[0]
            raise TuningError(f"{problem.path} cannot be searched: {problem.reason}")
        retriever = Retriever(index, RetrievalSettings())
        closing.callback(retriever.close)
        yield retriever


def _rows(
    retriever: Retriever, number: int, text: str, depth: int, kind: Callable[[Hit], bool | None]
) -> Iterator[RankedRow]:
    from rag.retrieval.retriever import SearchOptions

    for rank, hit in enumerate(retriever.search(text, SearchOptions(depth)), 1):
        relevant = kind(hit)
        if relevant is not None:
            place = (hit.passage.title, *hit.passage.headings)
            yield RankedRow(number, text, hit.passage.text, place, rank, relevant)


def _id_of(passage: Passage) -> str:
    return str(passage.metadata["id"])
