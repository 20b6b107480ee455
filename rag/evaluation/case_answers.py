"""A case with the answers of all variants, and what makes it worth a look."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from rag.evaluation.cases import Case
from rag.evaluation.run_store import Cell, by_case

Outcome = Literal["right", "wrong", "refused", "failed", "unknown"]

# Points of a judge from which an answer counts as right.
GOOD = 4.0
WRONG: frozenset[Outcome] = frozenset({"wrong", "refused"})


@dataclass(frozen=True, slots=True)
class Answered:
    """A case and what the variants answered.

    Attributes:
        position: The case's number in the dataset version, from 0.
        cells: One for each variant, None where there is no answer yet.
    """

    position: int
    case: Case
    cells: tuple[Cell | None, ...]

    @property
    def there(self) -> tuple[Cell, ...]:
        """The answers that are there."""
        return tuple(cell for cell in self.cells if cell is not None)


class Kind(Enum):
    """Why to look at a case, what matters most first; the value tells it."""

    FAILED = "A variant failed"
    SPLIT = "Right in one variant, wrong in another"
    DIFFERENT = "Answers or scores differ"
    WRONG = "Wrong in every variant"
    REST = "All others"


def side_by_side(
    cases: Iterable[Case], cells: Callable[[int], Iterator[Cell]], variants: int
) -> Iterator[Answered]:
    """Every case in order, also one without any answer; one answer of each variant is held at a time.

    Args:
        cases: Of the dataset version.
        cells: The answers of a variant, by its number, in the order of the cases.
        variants: How many there are.
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
    """What became of an answer, in one word.

    ``refused`` is a refusal where an answer was due. Where nothing is known of the right answer, neither from the
    case nor from a judge, it is ``unknown``.
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
    """Why to look at it."""
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
