"""Comparison of two variants of two runs, and reasons why they may not be comparable."""

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
        variant: Index of the variant.
        version: The dataset version of the run.
    """

    run: Run
    variant: int
    version: DatasetVersion

    @property
    def name(self) -> str:
        """Name of the variant."""
        return self.run.plan.variants[self.variant].name


@dataclass(frozen=True, slots=True)
class Comparison:
    """The columns of two variants.

    Attributes:
        one, other: Columns by the positions of the first dataset version.
        notes: Other differences between the runs.
    """

    one: Columns
    other: Columns
    notes: tuple[str, ...]


def compare(store: RunStore, datasets: DatasetStore, one: Side, other: Side) -> Comparison:
    """Align the cases of two variants.

    With different dataset versions, cases are matched by their content without the id.

    Raises:
        EvaluationError: There is no common case.
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
    """Return sentences about the differences of two runs besides their variants."""
    notes = []
    if one.version.sha256 != other.version.sha256:
        notes.append(
            f"The runs use different datasets, {one.version.label} and {other.version.label}: only their common "
            "cases are compared."
        )
    if one.run.plan.scoring != other.run.plan.scoring:
        notes.append("The runs were scored by different versions of the metrics, so values are not comparable.")
    if one.run.plan.judged_by != other.run.plan.judged_by:
        notes.append("The runs had different judges, so their points are not comparable.")
    if one.run.plan.corpus != other.run.plan.corpus:
        notes.append(f"The runs use different corpora, {one.run.plan.corpus} and {other.run.plan.corpus}.")
    unfinished = [side.run.id for side in (one, other) if side.run.status != "finished"]
    if unfinished:
        notes.append(f"Not finished: {' and '.join(dict.fromkeys(unfinished))}.")
    return tuple(notes)


def _places(datasets: DatasetStore, one: Side, other: Side) -> dict[int, int]:
    """Map positions in the other dataset version to positions in the first."""
    first = {case.content_sha256: at for at, case in enumerate(datasets.cases(one.version))}
    second = ((at, case.content_sha256) for at, case in enumerate(datasets.cases(other.version)))
    return {at: first[digest] for at, digest in second if digest in first}


def _moved(columns: Columns, places: dict[int, int]) -> Columns:
    """Return the rows of mapped positions, in the order of their new positions."""
    import numpy as np

    kept = columns.of(np.isin(columns.positions, list(places)))
    moved = np.array([places[int(position)] for position in kept.positions], np.int64)
    order = np.argsort(moved)
    return replace(kept.of(order), positions=moved[order])
