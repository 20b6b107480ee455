"""The table of a run: each measure of each variant with its interval, and how it differs from the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag.evaluation.measures import MEASURES, Measure
from rag.evaluation.run_store import Cell, Run, RunStore
from rag.evaluation.statistics import Estimate, difference, mean, quantile, quantile_difference
from rag.evaluation.variants import Variant

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Figure:
    """One measure of one variant.

    Attributes:
        estimate: None where no case says anything of it.
        change: How much larger it is than the baseline's, over the cases that both have; None for the baseline,
            and where one of the two has none.
    """

    estimate: Estimate | None
    change: Estimate | None = None


@dataclass(frozen=True, slots=True)
class VariantSummary:
    """One variant's row of the table.

    Attributes:
        done: Cases that have an answer, or a failure.
        cached: Answers that came from the cache.
        figures: By the name of the measure.
    """

    name: str
    changes: Mapping[str, object]
    done: int
    cached: int
    failed: int
    figures: Mapping[str, Figure]


@dataclass(frozen=True, slots=True)
class Summary:
    """The table of a run.

    Attributes:
        size: Cases of the dataset version.
        baseline: Number of the variant that the others are compared with.
        measures: Those of which some variant has a figure, in their usual order.
    """

    run: Run
    size: int
    baseline: int
    measures: tuple[Measure, ...]
    variants: tuple[VariantSummary, ...]


@dataclass(frozen=True)
class Columns:
    """The numbers of one variant, a row for each case that has an answer; about 400 bytes a case.

    Attributes:
        positions: Of the cases, ascending.
        numerators, weights: By the name of the measure; of a quantile the numerators are the values, and NaN where
            there is none.
    """

    positions: NDArray[np.int64]
    numerators: Mapping[str, NDArray[np.float64]]
    weights: Mapping[str, NDArray[np.float64]]
    cached: int
    failed: int

    def of(self, wanted: NDArray[np.bool_] | NDArray[np.int64]) -> Columns:
        """The rows that are wanted, by a mask or by their numbers."""
        return Columns(
            self.positions[wanted],
            {name: column[wanted] for name, column in self.numerators.items()},
            {name: column[wanted] for name, column in self.weights.items()},
            self.cached,
            self.failed,
        )

    def estimate(self, measure: Measure, confidence: float = CONFIDENCE) -> Estimate | None:
        """The figure of a measure."""
        if measure.name not in self.numerators:
            return None
        numerators = self.numerators[measure.name]
        if measure.quantile is not None:
            return quantile(numerators, measure.quantile, confidence=confidence)
        return mean(numerators, self.weights[measure.name], confidence=confidence)


def read_columns(store: RunStore, run: Run, variant: int) -> Columns:
    """The numbers of one variant of a run, as far as it is."""
    import numpy as np

    positions: list[int] = []
    values: dict[str, list[float]] = {measure.name: [] for measure in MEASURES}
    weights: dict[str, list[float]] = {measure.name: [] for measure in MEASURES}
    cached = failed = 0
    for cell in store.cells(run.id, variant, texts=False):
        positions.append(cell.position)
        cached += cell.cached
        failed += cell.status == "failed"
        for measure in MEASURES:
            value, weight = _part(cell, measure)
            values[measure.name].append(value)
            weights[measure.name].append(weight)
    held = [name for name, column in weights.items() if any(column)]
    return Columns(
        np.array(positions, np.int64),
        {name: np.array(values[name]) for name in held},
        {name: np.array(weights[name]) for name in held},
        cached,
        failed,
    )


def change(one: Columns, other: Columns, measure: Measure, confidence: float = CONFIDENCE) -> Estimate | None:
    """How much larger a measure is in ``other``, over the cases that both have; None where one has none."""
    import numpy as np

    if measure.name not in one.numerators or measure.name not in other.numerators:
        return None
    both = np.intersect1d(one.positions, other.positions, assume_unique=True)
    one, other = (each.of(np.isin(each.positions, both)) for each in (one, other))
    first, second = one.numerators[measure.name], other.numerators[measure.name]
    if measure.quantile is not None:
        return quantile_difference(first, second, measure.quantile, confidence=confidence)
    return difference(
        (first, one.weights[measure.name]), (second, other.weights[measure.name]), confidence=confidence
    )


def summarise(store: RunStore, run: Run, size: int, baseline: int = 0) -> Summary:
    """The table of a run, finished or not.

    Args:
        store: Of the runs.
        run: Which one.
        size: Cases of its dataset version.
        baseline: Number of the variant that the others are compared with.
    """
    columns = [read_columns(store, run, variant) for variant in range(len(run.plan.variants))]
    named = list(zip(run.plan.variants, columns, strict=True))
    return Summary(run, size, baseline, measures_of(columns), _rows(named, baseline))


def summarise_against(run: Run, size: int, base: tuple[Variant, Columns], columns: Sequence[Columns]) -> Summary:
    """The table of a run beside a variant of another one, which stands first and is the baseline.

    Args:
        run: Which one.
        size: Cases of its dataset version.
        base: The other run's variant, and its numbers by the positions of this run's cases.
        columns: Those of this run's variants, in their order.
    """
    named = [base, *zip(run.plan.variants, columns, strict=True)]
    return Summary(run, size, 0, measures_of([each for _, each in named]), _rows(named, 0))


def _rows(named: Sequence[tuple[Variant, Columns]], baseline: int) -> tuple[VariantSummary, ...]:
    return tuple(
        VariantSummary(
            variant.name,
            variant.changes,
            len(each.positions),
            each.cached,
            each.failed,
            _figures(each, None if number == baseline else named[baseline][1]),
        )
        for number, (variant, each) in enumerate(named)
    )


def measures_of(columns: Sequence[Columns]) -> tuple[Measure, ...]:
    """The measures of which some variant has a figure."""
    return tuple(measure for measure in MEASURES if any(measure.name in each.numerators for each in columns))


def _figures(columns: Columns, baseline: Columns | None) -> dict[str, Figure]:
    return {
        measure.name: Figure(columns.estimate(measure), change(baseline, columns, measure) if baseline else None)
        for measure in MEASURES
        if measure.name in columns.numerators
    }


def _part(cell: Cell, measure: Measure) -> tuple[float, float]:
    """A cell's part of a measure: value and weight; weight 0 where it says nothing."""
    known: dict[str, float | None] = {
        "latency_p50": cell.latency_s,
        "latency_p95": cell.latency_s,
        "input_tokens": cell.input_tokens,
        "output_tokens": cell.output_tokens,
        "cost": cell.cost_usd,
    }
    if measure.name in known:
        # A failure says nothing of how long an answer takes.
        value = None if cell.status == "failed" else known[measure.name]
        return (float("nan"), 0.0) if value is None else (float(value), 1.0)
    score = (cell.scores or {}).get(measure.name)
    return (score.value, score.weight) if score else (0.0, 0.0)
