"""Two variants of two runs side by side, and why their figures may not compare."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rag.errors import EvaluationError
from rag.evaluation.dataset_store import DatasetStore, DatasetVersion
from rag.evaluation.run_store import Run, RunStore
from rag.evaluation.summary import Columns, read_columns


@dataclass(frozen=True, slots=True)
class Side:
    """A variant of a run.

    Attributes:
        variant: Its number.
        version: The dataset version that the run asks.
    """

    run: Run
    variant: int
    version: DatasetVersion

    @property
    def name(self) -> str:
        """The variant's name."""
        return self.run.plan.variants[self.variant].name


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two variants over the cases that both were asked.

    Attributes:
        one, other: Their numbers, by the positions of the first dataset version.
        notes: What differs between the runs beside the variants; empty where nothing does.
    """

    one: Columns
    other: Columns
    notes: tuple[str, ...]


def compare(store: RunStore, datasets: DatasetStore, one: Side, other: Side) -> Comparison:
    """Bring two variants together, case by case.

    Of two dataset versions those cases count that are in both, unchanged but for their id.

    Raises:
        EvaluationError: They have no case in common.
    """
    columns = [read_columns(store, side.run, side.variant) for side in (one, other)]
    if one.version.sha256 != other.version.sha256:
        columns[1] = _moved(columns[1], _places(datasets, one, other))
    if not set(columns[0].positions) & set(columns[1].positions):
        raise EvaluationError(
            f"The runs {one.run.id} and {other.run.id} have no answered case in common.",
            fix="Compare runs over the same dataset.",
        )
    return Comparison(columns[0], columns[1], differing(one, other))


def differing(one: Side, other: Side) -> tuple[str, ...]:
    """What differs between two runs beside their variants, a sentence each."""
    told = []
    if one.version.sha256 != other.version.sha256:
        told.append(
            f"The runs asked different datasets, {one.version.label} and {other.version.label}: only the cases "
            "that both hold are compared."
        )
    if one.run.plan.scoring != other.run.plan.scoring:
        told.append("The runs were scored by different versions of the measures: their figures do not compare.")
    if one.run.plan.judged_by != other.run.plan.judged_by:
        told.append("The runs had different judges: their points do not compare.")
    if one.run.plan.corpus != other.run.plan.corpus:
        told.append(f"The runs asked different corpora, {one.run.plan.corpus} and {other.run.plan.corpus}.")
    unfinished = [side.run.id for side in (one, other) if side.run.status != "finished"]
    if unfinished:
        told.append(f"Not finished: {' and '.join(dict.fromkeys(unfinished))}.")
    return tuple(told)


def _places(datasets: DatasetStore, one: Side, other: Side) -> dict[int, int]:
    """Where the cases of the other version stand in the first one."""
    first = {case.content_sha256: at for at, case in enumerate(datasets.cases(one.version))}
    second = ((at, case.content_sha256) for at, case in enumerate(datasets.cases(other.version)))
    return {at: first[digest] for at, digest in second if digest in first}


def _moved(columns: Columns, places: dict[int, int]) -> Columns:
    """The rows whose cases have a place there, in the order of those places."""
    import numpy as np

    kept = columns.of(np.isin(columns.positions, list(places)))
    moved = np.array([places[int(position)] for position in kept.positions], np.int64)
    order = np.argsort(moved)
    return replace(kept.of(order), positions=moved[order])
