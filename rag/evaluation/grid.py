"""The answers of a run as a grid: a row for each case, a column for each variant, a page at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rag.evaluation.case_answers import Answered, outcome
from rag.evaluation.cases import Case
from rag.evaluation.dataset_store import DatasetStore, DatasetVersion
from rag.evaluation.run_store import Cell, Run, RunStore, by_case

Shown = Literal["all", "failures", "different", "errors"]


@dataclass(frozen=True, slots=True)
class GridPage:
    """A part of a grid.

    Attributes:
        rows: In the order of the cases.
        start: Number of the first row among those that fit, from 0.
        total: How many fit, on every page.
    """

    rows: tuple[Answered, ...]
    start: int
    total: int


class Grid:
    """Reads the grid of one run.

    Args:
        version: The dataset version that was asked.
    """

    def __init__(self, runs: RunStore, datasets: DatasetStore, run: Run, version: DatasetVersion) -> None:
        self._runs = runs
        self._datasets = datasets
        self._run = run
        self._version = version

    def page(self, start: int, limit: int, *, show: Shown = "all", search: str = "") -> GridPage:
        """A part of the rows that fit.

        Args:
            start: How many of them to leave out.
            limit: At most so many.
            show: ``failures`` has an answer that is wrong, refused or failed, ``different`` has outcomes or scores
                that differ, ``errors`` has an answer that failed.
            search: Text in question, right answers, tags, id, or in an answer or error, in either case.
        """
        wanted = search.strip().casefold()
        positions: Sequence[int] = range(self._version.size)
        if show != "all":
            positions = [position for position, cells in self._cells(texts=False) if _fits(cells, show)]
        if wanted:
            told = self._matching(wanted)
            positions = [position for position in positions if position in told]
        chosen = positions[start : start + limit]
        return GridPage(tuple(self.row(position) for position in chosen), start, len(positions))

    def row(self, position: int) -> Answered:
        """One case with its answers."""
        case = next(iter(self._datasets.cases(self._version, position, 1)))
        variants = range(len(self._run.plan.variants))
        return Answered(
            position, case, tuple(self._runs.cell(self._run.id, variant, position) for variant in variants)
        )

    def _cells(self, *, texts: bool) -> Iterator[tuple[int, tuple[Cell | None, ...]]]:
        variants = range(len(self._run.plan.variants))
        return by_case([self._runs.cells(self._run.id, variant, texts=texts) for variant in variants])

    def _matching(self, wanted: str) -> set[int]:
        """The positions of the cases that have a text."""
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
    tests: dict[Shown, Callable[[], bool]] = {
        "all": lambda: True,
        "failures": lambda: bool(outcomes & {"wrong", "refused", "failed"}),
        "different": lambda: len(outcomes) > 1 or any(cell.scores != there[0].scores for cell in there),
        "errors": lambda: "failed" in outcomes,
    }
    return tests[show]()


def _texts(case: Case) -> tuple[str, ...]:
    return (case.id, case.question, *case.answers, *case.sources, *case.tags, case.notes)
