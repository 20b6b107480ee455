"""Candidates: cases that a model proposes, and that a person accepts or rejects.

Only this module touches the table ``candidates``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Engine, Select, insert, select, update

from rag import tables as db
from rag.database import reading, writing
from rag.documents.sentences import split_sentences
from rag.errors import DatasetError
from rag.evaluation.cases import Case, bare_question, make_id, source_name
from rag.evaluation.dataset_store import (
    PART,
    Addition,
    DatasetStore,
    check_name,
    ensure_dataset,
    keep_cases,
    retry_conflicts,
)
from rag.tracing.figures import counted

TAG = "candidate"
# Words of a sentence for a question; shorter ones say too little, longer ones too much.
WORDS = range(6, 41)


def propose(
    passages: Iterable[tuple[str, str]], write_questions: Callable[[list[str]], Sequence[str]], batch: int = 1
) -> Iterator[Case]:
    """Yield a case for the most informative sentence of every passage.

    Passages without a suitable sentence are left out, as are texts that are not exactly one question, and repeated
    questions.

    Args:
        passages: Pairs of text and source name (``rag.evaluation.cases.source_name``).
        write_questions: Writes for every sentence a question that it answers.
        batch: Maximum sentences of a call.
    """
    asked: set[str] = set()
    found = ((informative_sentence(text), source) for text, source in passages)
    suitable = (pair for pair in found if pair[0])
    while part := list(islice(suitable, batch)):
        written = write_questions([sentence for sentence, _ in part])
        for (sentence, source), text in zip(part, written, strict=True):
            question = single_question(text)
            bare = bare_question(question)
            if not question or bare in asked:
                continue
            asked.add(bare)
            yield Case(
                id=make_id(question), question=question, answers=(sentence,), sources=(source,), tags=(TAG,)
            )


def single_question(text: str) -> str:
    """Return a written text on one line; empty if it is not exactly one question."""
    question = " ".join(text.split())
    is_one = question.endswith("?") and question.count("?") == 1
    return question if is_one and any(map(str.isalnum, bare_question(question))) else ""


def informative_sentence(text: str) -> str:
    """Return the sentence with the most distinct words; empty if none is suitable."""
    sentences = [" ".join(sentence.text.split()) for sentence in split_sentences(text) if not sentence.heading]
    suitable = [sentence for sentence in sentences if len(sentence.split()) in WORDS]
    return max(suitable, key=lambda sentence: len(set(sentence.casefold().split())), default="")


def draw_passages(engine: Engine, index_id: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Yield the passages of an index in random order, for ``propose``.

    Args:
        engine: The database.
        index_id: ``rag.indexing.corpus_index.CorpusIndex.id``.
        seed: Seed of the order.
    """
    ready = (db.texts.c.index_id == index_id) & (db.texts.c.state == "ready")
    with reading(engine) as connection:
        query = select(db.passages.c.id).join(db.texts).where(ready).order_by(db.passages.c.id)
        numbers = list(connection.scalars(query))
    random.Random(seed).shuffle(numbers)  # noqa: S311 - not for security
    for at in range(0, len(numbers), PART):
        part = numbers[at : at + PART]
        with reading(engine) as connection:
            found = {row.id: row for row in connection.execute(_with_names(part))}
        for number in part:
            row = found.get(number)
            if row is not None:
                name = f"{row.name}#{row.record}" if row.record else row.name
                yield row.text, source_name(name, row.page)


def _with_names(numbers: Sequence[int]) -> Select[Any]:
    columns = (db.passages.c.id, db.passages.c.text, db.passages.c.page, db.documents.c.record, db.sources.c.name)
    return (
        select(*columns)
        .join(db.documents, db.documents.c.text_id == db.passages.c.text_id)
        .join(db.sources, db.sources.c.id == db.documents.c.source_id)
        .where(db.passages.c.id.in_(numbers))
        # If several files share a text, the last row wins: the first file by path.
        .order_by(db.sources.c.path.desc(), db.documents.c.id.desc())
    )


class CandidateStore:
    """The candidates in the database. Every method may raise DatabaseError; those that write, StorageFull."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._datasets = DatasetStore(engine)

    def put(self, dataset: str, cases: Iterable[Case]) -> int:
        """Store proposed cases for a dataset, which need not exist yet.

        Returns:
            The number of new candidates; known ones, and cases of the newest version, are skipped.

        Raises:
            DatasetError: The name is invalid.
        """
        check_name(dataset)
        proposed = {case.id: case for case in cases}

        def put() -> int:
            newest = self._datasets.newest(dataset)
            known = {case.id for case in self._datasets.cases(newest)} if newest else set()
            with writing(self._engine) as connection:
                return _put(connection, dataset, [case for case in proposed.values() if case.id not in known])

        return retry_conflicts(put, dataset)

    def waiting(self, dataset: str) -> tuple[Case, ...]:
        """Return the undecided candidates in the order of their proposal."""
        with reading(self._engine) as connection:
            contents = connection.scalars(
                _candidates(db.cases.c.content, dataset)
                .where(db.candidates.c.state == "waiting")
                .order_by(db.candidates.c.id)
            ).all()
        return tuple(Case.model_validate(content) for content in contents)

    def accept(self, dataset: str, ids: Sequence[str], *, by: str, message: str = "") -> Addition:
        """Add candidates to the dataset; they keep their tag.

        Raises:
            DatasetError: One of them is not undecided; then nothing changes.
        """
        chosen = self._chosen(dataset, ids)
        default = f"accepted {counted(len(chosen), 'candidate')}"
        added = self._datasets.add(dataset, chosen, by=by, message=message or default)
        # After a crash in between, they can be accepted again without effect.
        self._set(dataset, chosen, "accepted")
        return added

    def reject(self, dataset: str, ids: Sequence[str]) -> int:
        """Reject candidates, so that they are not proposed again.

        Returns:
            Their number.

        Raises:
            DatasetError: One of them is not undecided; then nothing changes.
        """
        chosen = self._chosen(dataset, ids)
        self._set(dataset, chosen, "rejected")
        return len(chosen)

    def _chosen(self, dataset: str, ids: Sequence[str]) -> list[Case]:
        waiting = {case.id: case for case in self.waiting(dataset)}
        wanted = dict.fromkeys(ids)
        missing = [case_id for case_id in wanted if case_id not in waiting]
        if missing:
            raise DatasetError(
                f"There is no undecided candidate {', '.join(missing[:5])} of {dataset}.",
                fix=f"`ragsmith datasets candidates {dataset}` shows them.",
            )
        return [waiting[case_id] for case_id in wanted]

    def _set(self, dataset: str, cases: Sequence[Case], state: str) -> None:
        digests = [case.sha256 for case in cases]
        own = select(db.datasets.c.id).where(db.datasets.c.name == dataset).scalar_subquery()
        with writing(self._engine) as connection:
            for at in range(0, len(digests), PART):
                mine = (db.candidates.c.dataset_id == own) & db.candidates.c.case_sha256.in_(
                    digests[at : at + PART]
                )
                connection.execute(update(db.candidates).where(mine).values(state=state))


def _put(connection: Connection, dataset: str, cases: Sequence[Case]) -> int:
    known = set(connection.scalars(_candidates(db.cases.c.content["id"].as_string(), dataset)))
    contents = {case.sha256: case.as_json() for case in cases if case.id not in known}
    if contents:
        number = ensure_dataset(connection, dataset)
        keep_cases(connection, contents)
        rows = [{"dataset_id": number, "case_sha256": digest, "state": "waiting"} for digest in contents]
        connection.execute(insert(db.candidates), rows)
    return len(contents)


def _candidates(column: Any, dataset: str) -> Select[Any]:
    return (
        select(column)
        .select_from(db.candidates)
        .join(db.cases, db.cases.c.sha256 == db.candidates.c.case_sha256)
        .join(db.datasets, db.datasets.c.id == db.candidates.c.dataset_id)
        .where(db.datasets.c.name == dataset)
    )
