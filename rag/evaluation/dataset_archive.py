"""The archive of datasets: out of the way with all versions and candidates, and not lost."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, select, update

from rag import tables as db
from rag.database import reading, writing
from rag.errors import DatasetError
from rag.evaluation.dataset_store import ARCHIVED, DatasetStore


class DatasetArchive:
    """Archives and restores datasets by their names; every method may raise DatabaseError."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def archived(self) -> list[str]:
        """Return the names of the archived datasets, sorted."""
        with reading(self._engine) as connection:
            names = connection.scalars(select(db.datasets.c.name).where(db.datasets.c.name.contains(ARCHIVED)))
            return sorted({name.partition(ARCHIVED)[0] for name in names})

    def archive(self, name: str) -> None:
        """Archive a dataset; its name is free again.

        Raises:
            DatasetError: There is no such dataset.
        """
        DatasetStore(self._engine).versions(name)
        with writing(self._engine) as connection:
            taken = _numbers(connection, name)
            _rename(connection, name, f"{name}{ARCHIVED}{max(taken, default=0) + 1}")

    def restore(self, name: str) -> None:
        """Bring back the dataset of a name that was archived last.

        Raises:
            DatasetError: None is archived, or there is a dataset of that name.
        """
        with writing(self._engine) as connection:
            archived = _numbers(connection, name)
            if not archived:
                raise DatasetError(
                    f"No dataset {name} is archived.", fix="`ragsmith datasets list --archived` lists them."
                )
            if connection.scalar(select(db.datasets.c.id).where(db.datasets.c.name == name)):
                raise DatasetError(f"There is a dataset {name} already.", fix="Archive it first.")
            _rename(connection, f"{name}{ARCHIVED}{max(archived)}", name)


def _numbers(connection: Connection, name: str) -> list[int]:
    """Return the numbers of the archived datasets of a name."""
    start = f"{name}{ARCHIVED}"
    query = select(db.datasets.c.name).where(db.datasets.c.name.startswith(start, autoescape=True))
    # SQLite also finds names in other letters, which are none.
    return [int(found.removeprefix(start)) for found in connection.scalars(query) if found.startswith(start)]


def _rename(connection: Connection, old: str, new: str) -> None:
    connection.execute(update(db.datasets).where(db.datasets.c.name == old).values(name=new))
