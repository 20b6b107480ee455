"""Datasets: named lists of cases in immutable versions.

Versions with the same case share it. Only this module touches the tables ``datasets``,
``dataset_versions``, ``cases`` and ``dataset_cases``; ``rag.evaluation.candidates`` reads them as well.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Row, Select, exc, func, insert, select

from prompts.template import NAME
from rag import tables as db
from rag.database import insert_row, reading, writing
from rag.errors import DatabaseError, DatasetError
from rag.evaluation.cases import Case

LONGEST_NAME = 120
# In the name of an archived dataset, see ``rag.evaluation.dataset_archive``; a new name cannot have it.
ARCHIVED = "~"
# Rows per statement.
PART = 500
# Attempts before a process gives up; after every failed attempt, another process has made progress.
TRIES = 100

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """One immutable version of a dataset.

    Attributes:
        id: Id in the database.
        version: Number of the version, from 1.
        sha256: Hash of the cases in order, 64 hexadecimal digits.
        size: Number of cases.
        saved: Seconds since the epoch.
        by, message: Author and reason.
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
    """The newest version of a dataset; ``saved`` in seconds since the epoch."""

    name: str
    version: int
    size: int
    saved: float
    message: str


@dataclass(frozen=True, slots=True)
class Addition:
    """The newest version after an addition, with the ids of added, replaced and unchanged cases."""

    version: DatasetVersion
    added: tuple[str, ...]
    replaced: tuple[str, ...]
    unchanged: tuple[str, ...]


class DatasetStore:
    """The datasets in the database. Every method may raise DatabaseError; those that write, StorageFull."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def list(self) -> tuple[DatasetSummary, ...]:
        """List the datasets with at least one version, by name; archived ones are left out."""
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
        """List the versions of a dataset, newest first.

        Raises:
            DatasetError: There is no dataset of that name.
        """
        query = _versions().where(db.datasets.c.name == name).order_by(db.dataset_versions.c.version.desc())
        with reading(self._engine) as connection:
            rows = connection.execute(query).all()
        if not rows:
            raise self._missing(name)
        return tuple(_version(row) for row in rows)

    def resolve(self, reference: str) -> DatasetVersion:
        """Return the version of ``NAME`` (the newest) or ``NAME@VERSION``.

        Raises:
            DatasetError: There is no such version.
        """
        name, at, number = reference.strip().partition("@")
        if not at:
            found = self.newest(name)
            if found is None:
                raise self._missing(name)
            return found
        # The column cannot store more digits.
        wanted = int(number) if re.fullmatch(r"[0-9]{1,9}", number) else 0
        query = _versions().where(db.datasets.c.name == name, db.dataset_versions.c.version == wanted)
        with reading(self._engine) as connection:
            row = connection.execute(query).first()
        if row is None:
            newest = self.versions(name)[0]
            raise DatasetError(
                f"There is no version {reference}.", fix=f"Use a version of {name} from 1 to {newest.version}."
            )
        return _version(row)

    def of_run(self, name: str, version: int, sha256: str) -> DatasetVersion:
        """Return the version that a run has asked, also if its dataset was archived and its name is taken anew.

        Raises:
            DatasetError: It no longer exists.
        """
        datasets = db.datasets.c.name
        query = _all_versions().where(
            (datasets == name) | datasets.startswith(f"{name}{ARCHIVED}", autoescape=True),
            db.dataset_versions.c.version == version,
            db.dataset_versions.c.sha256 == sha256,
        )
        with reading(self._engine) as connection:
            row = connection.execute(query.order_by(datasets)).first()
        return replace(_version(row), name=name) if row else self.resolve(f"{name}@{version}")

    def _missing(self, name: str) -> DatasetError:
        names = select(db.datasets.c.name).where(
            db.datasets.c.name.startswith(f"{name}{ARCHIVED}", autoescape=True)
        )
        with reading(self._engine) as connection:
            archived = connection.scalars(names).all()
        if any(found.partition(ARCHIVED)[0] == name for found in archived):
            return DatasetError(f"The dataset {name} is archived.", fix=f"`ragsmith datasets restore {name}`.")
        return DatasetError(f"There is no dataset {name}.", fix="`ragsmith datasets list` shows them.")

    def newest(self, name: str) -> DatasetVersion | None:
        """Return the newest version of a dataset; None without one."""
        with reading(self._engine) as connection:
            return _newest(connection, name)

    def cases(self, version: DatasetVersion, start: int = 0, limit: int | None = None) -> Iterator[Case]:
        """Yield the cases of a version in order, read in batches.

        Args:
            version: The version.
            start: Number of cases to skip.
            limit: Maximum number of cases; None for all.
        """
        position = db.dataset_cases.c.position
        end = version.size if limit is None else min(start + limit, version.size)
        query = _contents(version).order_by(position)
        for at in range(start, end, PART):
            part = query.where(position >= at, position < min(at + PART, end))
            with reading(self._engine) as connection:
                contents = connection.scalars(part).all()
            yield from (Case.model_validate(content) for content in contents)

    def find(self, version: DatasetVersion, case_id: str) -> Case:
        """Return the case with an id.

        Raises:
            DatasetError: The version has no such case.
        """
        query = _contents(version).where(db.cases.c.content["id"].as_string() == case_id)
        with reading(self._engine) as connection:
            content = connection.scalar(query)
        if content is None:
            raise _without(version, [case_id])
        return Case.model_validate(content)

    def save(
        self, name: str, cases: Iterable[Case], *, by: str, message: str, after: int | None = None
    ) -> DatasetVersion:
        """Store exactly these cases as the next version.

        Args:
            name: Lower-case letters, digits and dashes, starting with a letter, at most 120 characters; a missing
                dataset is created.
            cases: Cases with distinct ids.
            by: The author.
            message: The reason.
            after: The version that was edited, 0 for none; None disables the check.

        Returns:
            The new version, or the newest one if it has the same cases.

        Raises:
            DatasetError: The name is invalid, an id occurs twice, or ``after`` is not the newest version.
        """
        check_name(name)
        saved = self._save(name, list(cases), by, message, after)
        if saved is None:
            newest = self.newest(name)
            raise DatasetError(
                f"Nothing was saved: {newest.label if newest else name} was saved in the meantime.",
                fix="Review that version, and repeat the changes that it lacks.",
            )
        return saved

    def add(self, name: str, cases: Iterable[Case], *, by: str, message: str) -> Addition:
        """Add cases to the newest version, replacing those with the same ids.

        Raises:
            DatasetError: The name is invalid, or an id occurs twice.
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
        """Remove cases from the newest version by their ids.

        Raises:
            DatasetError: The dataset or one of the cases does not exist; then nothing is removed.
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
        """Save the changed cases of the newest version, which may differ at every attempt."""
        for _ in range(TRIES):
            newest = self.newest(name)
            old = {case.id: case for case in self.cases(newest)} if newest else {}
            saved = self._save(name, list(change(old)), by, message, newest.version if newest else 0)
            if saved is not None:
                return saved, old
        raise _crowded(name)

    def _save(
        self, name: str, cases: Sequence[Case], by: str, message: str, after: int | None
    ) -> DatasetVersion | None:
        """Save a new version; None if ``after`` is not the newest one any more."""
        _check_ids(cases)
        contents = {case.sha256: case.as_json() for case in cases}

        def insert_version() -> DatasetVersion | None:
            with writing(self._engine) as connection:
                return _insert_version(connection, name, contents, by, message, after)

        return retry_conflicts(insert_version, name)


def retry_conflicts(write: Callable[[], T], dataset: str) -> T:
    """Repeat a write while other processes insert the same rows at the same time.

    Raises:
        DatasetError: Every attempt has failed.
    """
    for _ in range(TRIES):
        try:
            return write()
        except DatabaseError as error:
            if not isinstance(error.__cause__, exc.IntegrityError):
                raise
    raise _crowded(dataset)


def check_name(name: str) -> None:
    """Check the name of a dataset.

    Raises:
        DatasetError: The name is invalid.
    """
    if len(name) > LONGEST_NAME or not re.fullmatch(NAME, name):
        raise DatasetError(
            f"{name!r} is not a valid name of a dataset.",
            fix=f"Use lower-case letters, digits and dashes, a letter first, at most {LONGEST_NAME} characters.",
        )


def ensure_dataset(connection: Connection, name: str) -> int:
    """Return the id of a dataset, creating it if it is missing."""
    found = connection.scalar(select(db.datasets.c.id).where(db.datasets.c.name == name))
    return found or insert_row(connection, db.datasets, name=name, created=time.time())


def keep_cases(connection: Connection, contents: Mapping[str, Mapping[str, Any]]) -> None:
    """Store the cases that are missing.

    Args:
        connection: A connection with a transaction.
        contents: ``Case.as_json`` by hash.
    """
    # The same order in all transactions avoids deadlocks.
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
    values: dict[str, Any] = {
        "version": number + 1,
        "sha256": sha256,
        "size": len(contents),
        "saved": time.time(),
        "by": by,
        "message": message,
    }
    dataset_id = ensure_dataset(connection, name)
    version_id = insert_row(connection, db.dataset_versions, dataset_id=dataset_id, **values)
    keep_cases(connection, contents)
    rows = [
        {"version_id": version_id, "position": position, "case_sha256": digest}
        for position, digest in enumerate(contents)
    ]
    for at in range(0, len(rows), PART):
        connection.execute(insert(db.dataset_cases), rows[at : at + PART])
    return DatasetVersion(id=version_id, name=name, **values)


def _contents(version: DatasetVersion) -> Select[Any]:
    joined = db.dataset_cases.c.case_sha256 == db.cases.c.sha256
    query = select(db.cases.c.content).join(db.dataset_cases, joined)
    return query.where(db.dataset_cases.c.version_id == version.id)


def _versions() -> Select[Any]:
    """Select the versions of the datasets that are not archived."""
    return _all_versions().where(~db.datasets.c.name.contains(ARCHIVED))


def _all_versions() -> Select[Any]:
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
    known: set[str] = set()
    for case in cases:
        if case.id in known:
            raise DatasetError(f"Several cases have the id {case.id}.", fix="Give them distinct ids.")
        known.add(case.id)


def _without(version: DatasetVersion, ids: Sequence[str]) -> DatasetError:
    shown = ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
    return DatasetError(f"{version.label} has no case {shown}.", fix=f"`ragsmith datasets show {version.name}`.")


def _crowded(name: str) -> DatasetError:
    return DatasetError(f"Nothing was saved: other processes keep changing {name}.", fix="Try again later.")
