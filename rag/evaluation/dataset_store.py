"""Datasets: named lists of cases in immutable versions.

A case is kept once, whatever versions hold it. Only this module touches the tables ``datasets``,
``dataset_versions``, ``cases`` and ``dataset_cases``; ``rag.evaluation.candidates`` reads them as well.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, exc, func, insert, select

from prompts.template import NAME
from rag import tables as db
from rag.database import insert_row, reading, writing
from rag.errors import DatabaseError, DatasetError
from rag.evaluation.cases import Case

LONGEST_NAME = 120
# Rows that go to the database, or come from it, at a time.
PART = 500
# As often one process may lose its place to another before it gives up; each time one of them has saved.
TRIES = 100


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """One immutable version of a dataset.

    Attributes:
        id: Its number in the database.
        version: From 1.
        sha256: The identity of its cases in their order, 64 hexadecimal digits.
        size: How many cases it holds.
        saved: Seconds since the epoch.
        by, message: Who saved it, and why.
    """

    id: int
    name: str
    version: int
    sha256: str
    size: int
    saved: float
    by: str
    message: str

    @property
    def label(self) -> str:
        """``NAME@VERSION``."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """A line in the list of datasets, about the newest version; ``saved`` in seconds since the epoch."""

    name: str
    version: int
    size: int
    saved: float
    message: str


@dataclass(frozen=True, slots=True)
class Addition:
    """What adding cases came to: their ids, by what became of them; ``version`` is the newest now."""

    version: DatasetVersion
    added: tuple[str, ...]
    replaced: tuple[str, ...]
    unchanged: tuple[str, ...]


class DatasetStore:
    """The datasets in the database. Every method may raise DatabaseError; those that write, StorageFull."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def list(self) -> tuple[DatasetSummary, ...]:
        """All datasets that have a version, by name."""
        newest = (
            select(db.dataset_versions.c.dataset_id, func.max(db.dataset_versions.c.version).label("version"))
            .group_by(db.dataset_versions.c.dataset_id)
            .subquery()
        )
        query = _versions().join(
            newest,
            (newest.c.dataset_id == db.dataset_versions.c.dataset_id)
            & (newest.c.version == db.dataset_versions.c.version),
        )
        with reading(self._engine) as connection:
            rows = connection.execute(query.order_by(db.datasets.c.name)).all()
        return tuple(DatasetSummary(row.name, row.version, row.size, row.saved, row.message) for row in rows)

    def versions(self, name: str) -> tuple[DatasetVersion, ...]:
        """The versions of a dataset, the newest first.

        Raises:
            DatasetError: There is no dataset of that name.
        """
        query = _versions().where(db.datasets.c.name == name).order_by(db.dataset_versions.c.version.desc())
        with reading(self._engine) as connection:
            rows = connection.execute(query).all()
        if not rows:
            raise _missing(name)
        return tuple(_version(row) for row in rows)

    def resolve(self, reference: str) -> DatasetVersion:
        """The version that ``NAME`` (the newest) or ``NAME@VERSION`` means.

        Raises:
            DatasetError: There is none.
        """
        name, at, number = reference.strip().partition("@")
        if not at:
            found = self.newest(name)
            if found is None:
                raise _missing(name)
            return found
        # A number with more digits than the column takes is that of no version.
        wanted = int(number) if re.fullmatch(r"[0-9]{1,9}", number) else 0
        query = _versions().where(db.datasets.c.name == name, db.dataset_versions.c.version == wanted)
        with reading(self._engine) as connection:
            row = connection.execute(query).first()
        if row is None:
            newest = self.versions(name)[0]
            raise DatasetError(
                f"There is no version {reference}.", fix=f"There are 1 to {newest.version} of {name}."
            )
        return _version(row)

    def newest(self, name: str) -> DatasetVersion | None:
        """The newest version of a dataset; None where there is none."""
        with reading(self._engine) as connection:
            return _newest(connection, name)

    def cases(self, version: DatasetVersion, start: int = 0, limit: int | None = None) -> Iterator[Case]:
        """The cases of a version in their order, fetched a part at a time.

        Args:
            version: As ``resolve`` gives it.
            start: How many to leave out at the beginning.
            limit: At most so many; all by default.
        """
        position = db.dataset_cases.c.position
        end = version.size if limit is None else min(start + limit, version.size)
        query = (
            select(db.cases.c.content)
            .join(db.dataset_cases, db.dataset_cases.c.case_sha256 == db.cases.c.sha256)
            .where(db.dataset_cases.c.version_id == version.id)
            .order_by(position)
        )
        for at in range(start, end, PART):
            part = query.where(position >= at, position < min(at + PART, end))
            with reading(self._engine) as connection:
                contents = connection.scalars(part).all()
            yield from (Case.model_validate(content) for content in contents)

    def find(self, version: DatasetVersion, case_id: str) -> Case:
        """The case of that id.

        Raises:
            DatasetError: The version holds none.
        """
        query = (
            select(db.cases.c.content)
            .join(db.dataset_cases, db.dataset_cases.c.case_sha256 == db.cases.c.sha256)
            .where(db.dataset_cases.c.version_id == version.id, db.cases.c.content["id"].as_string() == case_id)
        )
        with reading(self._engine) as connection:
            content = connection.scalar(query)
        if content is None:
            raise _without(version, [case_id])
        return Case.model_validate(content)

    def save(
        self, name: str, cases: Iterable[Case], *, by: str, message: str, after: int | None = None
    ) -> DatasetVersion:
        """Keep exactly these cases as the next version.

        Args:
            name: Small letters, digits and dashes, a letter first, at most 120; the dataset is made where it is
                missing.
            cases: With distinct ids.
            by: Who saves it.
            message: Why.
            after: The version that the cases were made from, 0 for none; by default it does not matter.

        Returns:
            The new version, or the newest one where that holds the same already.

        Raises:
            DatasetError: The name cannot be one, an id is there twice, or somebody saved after ``after``.
        """
        check_name(name)
        held = list(cases)
        saved = self._save(name, held, by, message, after)
        if saved is None:
            newest = self.newest(name)
            raise DatasetError(
                f"Nothing was saved: somebody saved {newest.label if newest else name} in between.",
                fix="Look at that version, and save again what is still to be changed.",
            )
        return saved

    def add(self, name: str, cases: Iterable[Case], *, by: str, message: str) -> Addition:
        """Save the newest version and these cases: one with an id that is there takes that one's place.

        Raises:
            DatasetError: The name cannot be one, or an id is there twice.
        """
        check_name(name)
        new = list(cases)
        _check_ids(new)

        def added(old: Mapping[str, Case]) -> Iterable[Case]:
            return (dict(old) | {case.id: case for case in new}).values()

        version, old = self._change(name, added, by, message)
        return Addition(
            version,
            added=tuple(case.id for case in new if case.id not in old),
            replaced=tuple(case.id for case in new if case.id in old and old[case.id] != case),
            unchanged=tuple(case.id for case in new if old.get(case.id) == case),
        )

    def remove(self, name: str, ids: Sequence[str], *, by: str, message: str) -> DatasetVersion:
        """Save the newest version without the cases of these ids.

        Raises:
            DatasetError: There is no such dataset, or one of the cases is not in it; then all stay.
        """
        gone = set(ids)
        newest = self.resolve(name)

        def left(old: Mapping[str, Case]) -> Iterable[Case]:
            if gone - old.keys():
                raise _without(self.newest(name) or newest, sorted(gone - old.keys()))
            return [case for case in old.values() if case.id not in gone]

        return self._change(name, left, by, message)[0]

    def _change(
        self, name: str, change: Callable[[Mapping[str, Case]], Iterable[Case]], by: str, message: str
    ) -> tuple[DatasetVersion, Mapping[str, Case]]:
        """Save what ``change`` makes of the newest version, which may be another one at each try."""
        for _ in range(TRIES):
            newest = self.newest(name)
            old = {case.id: case for case in self.cases(newest)} if newest else {}
            saved = self._save(name, list(change(old)), by, message, newest.version if newest else 0)
            if saved is not None:
                return saved, old
        raise _crowded(name)

    def _save(
        self, name: str, held: Sequence[Case], by: str, message: str, after: int | None
    ) -> DatasetVersion | None:
        """A new version; None where ``after`` is not the newest one any more."""
        _check_ids(held)
        contents = {case.sha256: case.as_json() for case in held}
        for _ in range(TRIES):
            try:
                with writing(self._engine) as connection:
                    return _insert_version(connection, name, contents, by, message, after)
            except DatabaseError as error:
                # Another process took the number, or kept the same case, in the same moment.
                if not isinstance(error.__cause__, exc.IntegrityError):
                    raise
        raise _crowded(name)


def check_name(name: str) -> None:
    """See that a dataset may have that name.

    Raises:
        DatasetError: It cannot be one.
    """
    if len(name) > LONGEST_NAME or not re.fullmatch(NAME, name):
        raise DatasetError(
            f"{name!r} cannot be the name of a dataset.",
            fix=f"Use small letters, digits and dashes, a letter first, at most {LONGEST_NAME}.",
        )


def ensure_dataset(connection: Connection, name: str) -> int:
    """The number of a dataset, which is made where it is missing."""
    found = connection.scalar(select(db.datasets.c.id).where(db.datasets.c.name == name))
    return found or insert_row(connection, db.datasets, name=name, created=time.time())


def keep_cases(connection: Connection, contents: Mapping[str, Mapping[str, Any]]) -> None:
    """Keep the cases that are not there yet.

    Args:
        connection: Inside a transaction.
        contents: ``Case.as_json`` by digest.
    """
    # In one order for all: transactions that keep the same cases then wait for each other, and not in a ring.
    digests = sorted(contents)
    for at in range(0, len(digests), PART):
        part = digests[at : at + PART]
        known = set(connection.scalars(select(db.cases.c.sha256).where(db.cases.c.sha256.in_(part))))
        rows = [{"sha256": digest, "content": contents[digest]} for digest in part if digest not in known]
        if rows:
            connection.execute(insert(db.cases), rows)


def _insert_version(
    connection: Connection,
    name: str,
    contents: Mapping[str, Mapping[str, Any]],
    by: str,
    message: str,
    after: int | None,
) -> DatasetVersion | None:
    newest = _newest(connection, name)
    number = newest.version if newest else 0
    if after is not None and after != number:
        return None
    sha256 = hashlib.sha256("\n".join(contents).encode()).hexdigest()
    if newest and newest.sha256 == sha256:
        return newest
    told: dict[str, Any] = {
        "version": number + 1,
        "sha256": sha256,
        "size": len(contents),
        "saved": time.time(),
        "by": by,
        "message": message,
    }
    made = insert_row(connection, db.dataset_versions, dataset_id=ensure_dataset(connection, name), **told)
    keep_cases(connection, contents)
    rows = [
        {"version_id": made, "position": position, "case_sha256": digest}
        for position, digest in enumerate(contents)
    ]
    for at in range(0, len(rows), PART):
        connection.execute(insert(db.dataset_cases), rows[at : at + PART])
    return DatasetVersion(id=made, name=name, **told)


def _versions() -> Select[Any]:
    return select(db.dataset_versions, db.datasets.c.name).join(
        db.datasets, db.datasets.c.id == db.dataset_versions.c.dataset_id
    )


def _newest(connection: Connection, name: str) -> DatasetVersion | None:
    query = _versions().where(db.datasets.c.name == name).order_by(db.dataset_versions.c.version.desc())
    row = connection.execute(query.limit(1)).first()
    return _version(row) if row else None


def _version(row: Row[Any]) -> DatasetVersion:
    return DatasetVersion(row.id, row.name, row.version, row.sha256, row.size, row.saved, row.by, row.message)


def _check_ids(cases: Sequence[Case]) -> None:
    seen: set[str] = set()
    for case in cases:
        if case.id in seen:
            raise DatasetError(f"Two cases have the id {case.id}.", fix="Give one of them another id.")
        seen.add(case.id)


def _missing(name: str) -> DatasetError:
    return DatasetError(f"There is no dataset {name}.", fix="`ragsmith datasets list` shows them.")


def _without(version: DatasetVersion, ids: Sequence[str]) -> DatasetError:
    told = ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
    return DatasetError(f"{version.label} has no case {told}.", fix=f"`ragsmith datasets show {version.name}`.")


def _crowded(name: str) -> DatasetError:
    return DatasetError(f"Nothing was saved: others save {name} all the time.", fix="Try again later.")
