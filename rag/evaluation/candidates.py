"""Candidates: cases that a model proposes, and that a person accepts or turns down.

Only this module touches the table ``candidates``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Select, exc, insert, select, update

from rag import tables as db
from rag.database import reading, writing
from rag.documents.sentences import split_sentences
from rag.errors import DatabaseError, DatasetError
from rag.evaluation.cases import Case, bare_question, make_id, source_name
from rag.evaluation.dataset_store import (
    PART,
    TRIES,
    Addition,
    DatasetStore,
    check_name,
    ensure_dataset,
    keep_cases,
)

TAG = "candidate"
# Words of a sentence that a question may be asked about: a shorter one says little, a longer one too much.
WORDS = range(6, 41)


def propose(passages: Iterable[tuple[str, str]], write_question: Callable[[str], str]) -> Iterator[Case]:
    """A case for each passage, about its sentence that says most.

    Passages without such a sentence, and questions that are empty, are none, or were written before, are left out.

    Args:
        passages: Text, and the source's name as a case has it (``rag.evaluation.cases.source_name``).
        write_question: Writes a question that a sentence answers; called once for a passage.
    """
    seen: set[str] = set()
    for text, source in passages:
        sentence = _telling(text)
        question = " ".join(write_question(sentence).split()) if sentence else ""
        bare = bare_question(question)
        if not question.endswith("?") or not any(map(str.isalnum, bare)) or bare in seen:
            continue
        seen.add(bare)
        yield Case(id=make_id(question), question=question, answers=(sentence,), sources=(source,), tags=(TAG,))


def _telling(text: str) -> str:
    """The sentence with the most distinct words; empty where none is fit."""
    fit = [" ".join(each.text.split()) for each in split_sentences(text) if not each.heading]
    fit = [sentence for sentence in fit if len(sentence.split()) in WORDS]
    return max(fit, key=lambda sentence: len(set(sentence.casefold().split())), default="")


def draw_passages(engine: Engine, index_id: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """The passages of an index in an order drawn by chance, for ``propose``.

    Args:
        engine: The database.
        index_id: ``rag.indexing.corpus_index.CorpusIndex.id``.
        seed: Equal seeds give equal orders.
    """
    held = (db.texts.c.index_id == index_id) & (db.texts.c.state == "ready")
    with reading(engine) as connection:
        query = select(db.passages.c.id).join(db.texts).where(held).order_by(db.passages.c.id)
        numbers = list(connection.scalars(query))
    random.Random(seed).shuffle(numbers)  # noqa: S311 - it draws, and keeps no secret
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
        # Of several files with the same text the first by path speaks for it: it comes last.
        .order_by(db.sources.c.path.desc(), db.documents.c.id.desc())
    )


class CandidateStore:
    """The candidates in the database. Every method may raise DatabaseError; those that write, StorageFull."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._datasets = DatasetStore(engine)

    def put(self, dataset: str, cases: Iterable[Case]) -> int:
        """Keep what is proposed for a dataset, until a person decides. The dataset need not exist.

        Returns:
            How many are new: a question that waits, was decided or is in the newest version is not taken again.

        Raises:
            DatasetError: The name cannot be that of a dataset.
        """
        check_name(dataset)
        proposed = {case.id: case for case in cases}
        for _ in range(TRIES):
            newest = self._datasets.newest(dataset)
            held = {case.id for case in self._datasets.cases(newest)} if newest else set()
            try:
                with writing(self._engine) as connection:
                    return _put(connection, dataset, [case for case in proposed.values() if case.id not in held])
            except DatabaseError as error:
                # Another process proposed the same in the same moment.
                if not isinstance(error.__cause__, exc.IntegrityError):
                    raise
        raise DatasetError(
            f"Nothing was proposed: others propose for {dataset} all the time.", fix="Try again later."
        )

    def waiting(self, dataset: str) -> tuple[Case, ...]:
        """The candidates that nobody has decided on, in the order in which they came."""
        with reading(self._engine) as connection:
            contents = connection.scalars(
                _candidates(db.cases.c.content, dataset)
                .where(db.candidates.c.state == "waiting")
                .order_by(db.candidates.c.id)
            ).all()
        return tuple(Case.model_validate(content) for content in contents)

    def accept(self, dataset: str, ids: Sequence[str], *, by: str, message: str = "") -> Addition:
        """Save a version of the dataset with these candidates; their tag stays, and tells who asked.

        Raises:
            DatasetError: One of them is not waiting; then all go on waiting.
        """
        chosen = self._chosen(dataset, ids)
        told = message or f"accepted {len(chosen)} candidate{'' if len(chosen) == 1 else 's'}"
        added = self._datasets.add(dataset, chosen, by=by, message=told)
        # After a crash in between they still wait, and accepting them again changes nothing.
        self._set(dataset, chosen, "accepted")
        return added

    def reject(self, dataset: str, ids: Sequence[str]) -> int:
        """Turn candidates down, so that they are not proposed again.

        Returns:
            How many.

        Raises:
            DatasetError: One of them is not waiting; then all go on waiting.
        """
        chosen = self._chosen(dataset, ids)
        self._set(dataset, chosen, "rejected")
        return len(chosen)

    def _chosen(self, dataset: str, ids: Sequence[str]) -> list[Case]:
        waiting = {case.id: case for case in self.waiting(dataset)}
        strange = [each for each in dict.fromkeys(ids) if each not in waiting]
        if strange:
            raise DatasetError(
                f"No candidate of {dataset} that waits is called {', '.join(strange[:5])}.",
                fix=f"`ragsmith datasets candidates {dataset}` shows them.",
            )
        return [waiting[each] for each in dict.fromkeys(ids)]

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
