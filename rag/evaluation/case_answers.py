"""Cases with the answers of all variants, and their classification for review."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from rag.evaluation.cases import Case
from rag.evaluation.run_store import Cell, by_case

Outcome = Literal["right", "wrong", "refused", "failed", "unknown"]

# Minimum points from the judge for a right answer.
GOOD = 4.0
WRONG: frozenset[Outcome] = frozenset({"wrong", "refused"})


@dataclass(frozen=True, slots=True)
class Answered:
    """A case with the answers of all variants.

    Attributes:
        position: Position of the case in the dataset version, from 0.
        cells: The answers by variant; None if there is no answer yet.
    """

    position: int
    case: Case
    cells: tuple[Cell | None, ...]

    @property
    def there(self) -> tuple[Cell, ...]:
        """The answers that exist so far."""
        return tuple(cell for cell in self.cells if cell is not None)


class Kind(Enum):
    """Reasons to review a case, most important first; the value is the title."""

    FAILED = "A variant failed"
    SPLIT = "Right in one variant, wrong in another"
    DIFFERENT = "Answers or scores differ"
    WRONG = "Wrong in every variant"
    REST = "All others"


def side_by_side(
    cases: Iterable[Case], cells: Callable[[int], Iterator[Cell]], variants: int
) -> Iterator[Answered]:
    """Yield all cases in order, including those without answers; memory holds one case at a time.

    Args:
        cases: Cases of the dataset version, in order.
        cells: Returns the answers of a variant by its index, in the order of the cases.
        variants: Number of variants.
    """
    found = by_case([cells(number) for number in range(variants)])
    row = next(found, None)
    for position, case in enumerate(cases):
        if row is not None and row[0] == position:
            yield Answered(position, case, row[1])
            row = next(found, None)
        else:
            yield Answered(position, case, (None,) * variants)


def outcome(cell: Cell) -> Outcome:
    """Classify an answer.

    ``refused`` is a refusal where an answer was expected. Without a reference answer and a judge, the outcome is
    ``unknown``.
    """
    if cell.status in ("failed", "cancelled"):
        return "failed"
    scores = cell.scores or {}
    due = scores.get("refusal_recall")
    if due and due.weight:
        return "right" if cell.status == "abstained" else "wrong"
    right = scores.get("contains")
    judged = scores.get("judge")
    if cell.status == "abstained" and (right or judged):
        return "refused"
    if judged and judged.weight:
        return "right" if judged.value >= GOOD else "wrong"
    if right and right.weight:
        return "right" if right.value else "wrong"
    return "unknown"


def kind_of(answered: Answered) -> Kind:
    """Return the most important reason to review a case."""
    cells = answered.there
    if any(cell.status in ("failed", "cancelled") for cell in cells):
        return Kind.FAILED
    outcomes = {outcome(cell) for cell in cells}
    if "right" in outcomes and outcomes & WRONG:
        return Kind.SPLIT
    if any(
        (cell.status, cell.answer, cell.scores) != (cells[0].status, cells[0].answer, cells[0].scores)
        for cell in cells
    ):
        return Kind.DIFFERENT
    return Kind.WRONG if outcomes and outcomes <= WRONG else Kind.REST
