"""A table of a W&B run that is written in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class RunTable:
    """A table of a run whose rows are logged in batches.

    Args:
        name: Its key in the run's history; further tables are ``NAME_1``, ``NAME_2`` …
        columns: Names of the columns.
        increments: Number of writes per table. W&B shows at most 100, and keeps the rows of a table in memory.
    """

    def __init__(self, name: str, columns: Sequence[str], increments: int = 1) -> None:
        self._name = name
        self._columns = list(columns)
        self._limit = increments
        self._table: Any = None
        self._tables = 0
        self.increments = 0
        self.rows: list[Sequence[Any]] = []

    def write(self, run: Any) -> None:
        """Log the collected rows, if there are any."""
        import wandb

        if not self.rows:
            return
        if self._table is None or self.increments == self._limit:
            self._table = wandb.Table(
                columns=self._columns, log_mode="IMMUTABLE" if self._limit == 1 else "INCREMENTAL"
            )
            self._tables += 1
            self.increments = 0
        for row in self.rows:
            self._table.add_data(*row)
        run.log({self._name if self._tables == 1 else f"{self._name}_{self._tables - 1}": self._table})
        self.increments += 1
        self.rows.clear()
