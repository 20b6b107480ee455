"""Comparison of two variants of two runs, and reasons why they may not be comparable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from rag.errors import EvaluationError
from rag.evaluation.dataset_store import DatasetStore, DatasetVersion
from rag.evaluation.metric_definitions import Metric
from rag.evaluation.run_store import Run, RunStore
from rag.evaluation.statistics import CONFIDENCE, Estimate
from rag.evaluation.summary import (
    Columns,
    Figure,
    change,
    common_cases,
    figure_of,
    matched,
    metrics_of,
    read_columns,
)


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
class ComparedMetric:
    """A metric of both sides over the matched cases, and the difference ``other - one``."""

    metric: Metric
    one: Figure
    other: Figure
    change: Estimate | None


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

    def rows(self, confidence: float = CONFIDENCE) -> Iterator[ComparedMetric]:
        """Yield the metrics that either has, with their values over the matched cases."""
        cases = len(common_cases(self.one, self.other)[0].positions)
        for metric in metrics_of([self.one, self.other]):
            one, other = (
                figure_of(side, metric, cases, confidence) for side in matched(self.one, self.other, metric)
            )
            yield ComparedMetric(metric, one, other, change(self.one, self.other, metric, confidence))


def compare(store: RunStore, datasets: DatasetStore, one: Side, other: Side) -> Comparison:
    """Align the cases of two variants.

    With different dataset versions, cases are matched by their content without the id.

    Raises:
        EvaluationError: Both are the same variant of the same run, or there is no common case.
    """
    if (one.run.id, one.variant) == (other.run.id, other.variant):
        raise EvaluationError(
            f"The variant {one.name!r} of the run {one.run.id} cannot be compared with itself.",
            fix="Name another variant, or a variant of another run.",
        )
    columns = [read_columns(store, side.run, side.variant) for side in (one, other)]
    if one.version.sha256 != other.version.sha256:
        columns[1] = _moved(columns[1], _places(datasets, one, other))
    if not set(columns[0].positions) & set(columns[1].positions):
        raise EvaluationError(
            f"The runs {one.run.id} and {other.run.id} have no answered case in common.",
            fix="Compare runs over the same dataset.",
        )
    return Comparison(columns[0], columns[1], (*differing(one, other), *_same_release(one, other)))


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


def _same_release(one: Side, other: Side) -> tuple[str, ...]:
    states = [side.run.plan.states[side.variant] for side in (one, other)]
    if not states[0] or states[0] != states[1]:
        return ()
    return ("Both sides are the same release: any difference between them is chance.",)


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
