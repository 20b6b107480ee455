"""Which of two variants answered better, case by case, as a model judges."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rag.errors import EvaluationError
from rag.evaluation.compare import Side
from rag.evaluation.run_store import by_case

if TYPE_CHECKING:
    from rag.evaluation.cases import Case
    from rag.evaluation.pairwise import PairTally, PairVerdict
    from ui.app.evaluations import Evaluations


async def compare_pairs(
    evaluations: Evaluations,
    one: Side,
    other: Side,
    model: str,
    on_verdict: Callable[[int, int], None] = lambda _done, _all: None,
) -> PairTally:
    """Let a model say of each case which of two variants answered better, asked twice, in either order.

    Args:
        evaluations: The runs, their datasets, and the judges.
        one, other: Variants of runs over the same dataset version; the cases that both answered count.
        model: Judges.
        on_verdict: Called with how many verdicts there are, and of how many.

    Raises:
        EvaluationError: They are the same, were asked different cases, or have no answered case in common.
        SettingsError: The model cannot judge.
    """
    from rag.evaluation.pairwise import compare_pair, tally

    if (one.run.id, one.variant) == (other.run.id, other.variant):
        raise EvaluationError(
            f"The variant {one.name!r} cannot be compared with itself.", fix="Name another variant or baseline."
        )
    if one.version.sha256 != other.version.sha256:
        raise EvaluationError(
            "The two runs asked different cases.", fix="Compare runs over one version of a dataset."
        )
    judges = evaluations.judges
    prompt, repair = judges.stores.prompt("judge-pair"), judges.stores.prompt("repair-json")
    opened = judges.model(model, prompt)
    pairs = list(_pairs(evaluations, one, other))
    if not pairs:
        raise EvaluationError("No case was answered by both.", fix="Wait until the runs have finished.")
    places = asyncio.Semaphore(one.run.plan.at_once)
    verdicts: list[PairVerdict] = []

    async def judged(case: Case, first: str, second: str) -> None:
        async with places:
            verdict = await compare_pair(opened, prompt, case, first, second, repair=repair)
        verdicts.append(verdict)
        await asyncio.to_thread(judges.record, verdict.spent, model, prompt.label, one.run.id)
        on_verdict(len(verdicts), len(pairs))

    async with asyncio.TaskGroup() as group:
        for pair in pairs:
            group.create_task(judged(*pair))
    return tally(verdicts, judges.price_of(model))


def _pairs(evaluations: Evaluations, one: Side, other: Side) -> Iterator[tuple[Case, str, str]]:
    """The cases that both variants answered, with their answers."""
    runs, datasets = evaluations.runs, evaluations.datasets
    rows = dict(by_case([runs.cells(side.run.id, side.variant) for side in (one, other)]))
    for position, case in enumerate(datasets.cases(one.version)):
        first, second = rows.get(position, (None, None))
        if first and second and "failed" not in (first.status, second.status):
            yield case, first.answer, second.answer
