"""The answers of a run as a paged grid of cases and variants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rag.evaluation.case_answers import WRONG, Answered, outcome
from rag.evaluation.cases import Case
from rag.evaluation.dataset_store import DatasetStore, DatasetVersion
from rag.evaluation.run_store import Cell, Run, RunStore, by_case

Shown = Literal["all", "failures", "different", "errors"]


@dataclass(frozen=True, slots=True)
class GridPage:
    """One page of a grid.

    Attributes:
        rows: Rows in the order of the cases.
        start: Index of the first row among the matching rows, from 0.
        total: Number of matching rows on all pages.
    """

    rows: tuple[Answered, ...]
    start: int
    total: int


class Grid:
    """Reads the grid of one run.

    Args:
        version: The dataset version of the run.
    """

    def __init__(self, runs: RunStore, datasets: DatasetStore, run: Run, version: DatasetVersion) -> None:
        self._runs = runs
        self._datasets = datasets
        self._run = run
        self._version = version

    def page(self, start: int, limit: int, *, show: Shown = "all", search: str = "") -> GridPage:
        """Return a page of the matching rows.

        Args:
            start: Number of matching rows to skip.
            limit: Maximum number of rows.
            show: ``failures`` shows rows with a wrong, refused or failed answer, ``different`` those with
                different outcomes or scores, ``errors`` those with a failed answer.
            search: Text in the case, in an answer or in an error, regardless of case.
        """
        wanted = search.strip().casefold()
        positions: Sequence[int] = range(self._version.size)
        if show != "all":
            positions = [position for position, cells in self._cells(texts=False) if _fits(cells, show)]
        if wanted:
            matching = self._matching(wanted)
            positions = [position for position in positions if position in matching]
        chosen = positions[start : start + limit]
        return GridPage(tuple(self.row(position) for position in chosen), start, len(positions))

    def row(self, position: int) -> Answered:
        """Return a case with its answers."""
        case = next(iter(self._datasets.cases(self._version, position, 1)))
        variants = range(len(self._run.plan.variants))
        return Answered(
            position, case, tuple(self._runs.cell(self._run.id, variant, position) for variant in variants)
        )

    def _cells(self, *, texts: bool) -> Iterator[tuple[int, tuple[Cell | None, ...]]]:
        variants = range(len(self._run.plan.variants))
        return by_case([self._runs.cells(self._run.id, variant, texts=texts) for variant in variants])

    def _matching(self, wanted: str) -> set[int]:
        """Return the positions of the cases with a text in the case or its answers."""
        asked = {
            position
            for position, case in enumerate(self._datasets.cases(self._version))
            if any(wanted in text.casefold() for text in _texts(case))
        }
        answered = {
            position
            for position, cells in self._cells(texts=True)
            if any(cell and wanted in f"{cell.answer}\n{cell.error}".casefold() for cell in cells)
        }
        return asked | answered


def _fits(cells: Sequence[Cell | None], show: Shown) -> bool:
    there = [cell for cell in cells if cell is not None]
    outcomes = {outcome(cell) for cell in there}
    if show == "different":
        return len(outcomes) > 1 or any(cell.scores != there[0].scores for cell in there)
    return "failed" in outcomes or (show == "failures" and bool(outcomes & WRONG))


def _texts(case: Case) -> tuple[str, ...]:
    return (case.id, case.question, *case.answers, *case.sources, *case.tags, case.notes)
