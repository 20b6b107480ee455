"""The table of a run: all metrics of all variants with intervals, and their changes from the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rag.evaluation.metric_definitions import BY_NAME, METRICS, Metric
from rag.evaluation.run_store import Cell, Run, RunStore
from rag.evaluation.statistics import CONFIDENCE, Estimate, difference, mean, quantile, quantile_difference
from rag.evaluation.variants import Variant
from rag.redaction import redact

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


# The first version of the scoring that stores the cost of answers from the cache.
SCORING_WITH_COST = 2
JUDGE = BY_NAME["judge"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric of one variant.

    Attributes:
        estimate: None if the metric applies to no case.
        change: Difference from the baseline over the common cases; None for the baseline, and if either side has
            no value.
        of: For a judge's points, the number of cases, if not all of them were judged; else None.
    """

    estimate: Estimate | None
    change: Estimate | None = None
    of: int | None = None


@dataclass(frozen=True, slots=True)
class VariantSummary:
    """One variant's row of the table.

    Attributes:
        done: Cases that were answered or failed.
        cached: Answers from the cache.
        figures: By name of the metric.
        error: Message of the first failed case; empty if none failed.
        saved_usd: What the answers from the cache cost when they were asked; None if that is unknown.
    """

    name: str
    changes: Mapping[str, object]
    done: int
    cached: int
    failed: int
    figures: Mapping[str, Figure]
    error: str = ""
    saved_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """The table of a run.

    Attributes:
        size: Cases of the dataset version.
        baseline: Index of the variant that the others are compared with.
        metrics: Metrics for which any variant has a value, in the order of ``METRICS``.
    """

    run: Run
    size: int
    baseline: int
    metrics: tuple[Metric, ...]
    variants: tuple[VariantSummary, ...]


@dataclass(frozen=True)
class Columns:
    """The scores of one variant, with a row for every answered case; about 400 bytes per case.

    Attributes:
        positions: Positions of the cases, ascending.
        numerators, weights: By name of the metric; for a quantile, the numerators are the values, or NaN.
        error: Message of the first failed case; empty if none failed.
        saved_usd: What the answers from the cache cost when they were asked; None if that is unknown.
    """

    positions: NDArray[np.int64]
    numerators: Mapping[str, NDArray[np.float64]]
    weights: Mapping[str, NDArray[np.float64]]
    cached: int
    failed: int
    error: str = ""
    saved_usd: float | None = None

    def of(self, wanted: NDArray[np.bool_] | NDArray[np.int64]) -> Columns:
        """Return the rows selected by a mask or by indices."""
        return replace(
            self,
            positions=self.positions[wanted],
            numerators={name: column[wanted] for name, column in self.numerators.items()},
            weights={name: column[wanted] for name, column in self.weights.items()},
        )

    def estimate(self, metric: Metric, confidence: float = CONFIDENCE) -> Estimate | None:
        """Return the value of a metric with its interval; None if no case has one."""
        if metric.name not in self.numerators:
            return None
        numerators = self.numerators[metric.name]
        if metric.quantile is not None:
            return quantile(numerators, metric.quantile, confidence=confidence)
        return mean(numerators, self.weights[metric.name], confidence=confidence)


def read_columns(store: RunStore, run: Run, variant: int) -> Columns:
    """Read the scores of one variant of a run, finished or not."""
    import numpy as np

    positions: list[int] = []
    values: dict[str, list[float]] = {metric.name: [] for metric in METRICS}
    weights: dict[str, list[float]] = {metric.name: [] for metric in METRICS}
    cached = failed = 0
    saved: float | None = 0.0
    error = ""
    for cell in store.cells(run.id, variant, texts=False):
        positions.append(cell.position)
        cached += cell.cached
        failed += cell.status == "failed"
        if cell.status == "failed":
            error = error or redact(cell.error)
        # Before, an answer from the cache was stored without its cost.
        cost = None if cell.cached and run.plan.scoring < SCORING_WITH_COST else cell.cost_usd
        if cell.cached:
            saved = None if saved is None or cost is None else saved + cost
        for metric in METRICS:
            value, weight = _part(cell, metric, cost)
            values[metric.name].append(value)
            weights[metric.name].append(weight)
    scored = [name for name, column in weights.items() if any(column)]
    return Columns(
        np.array(positions, np.int64),
        {name: np.array(values[name]) for name in scored},
        {name: np.array(weights[name]) for name in scored},
        cached,
        failed,
        error,
        saved,
    )


def in_cases_of(columns: Columns, others: Sequence[Columns]) -> Columns:
    """Return the rows of the cases that any of the others has."""
    import numpy as np

    return columns.of(np.isin(columns.positions, np.concatenate([other.positions for other in others])))


def common_cases(one: Columns, other: Columns) -> tuple[Columns, Columns]:
    """Return the rows of the cases that both sides answered."""
    import numpy as np

    both = np.intersect1d(one.positions, other.positions, assume_unique=True)
    return one.of(np.isin(one.positions, both)), other.of(np.isin(other.positions, both))


def matched(one: Columns, other: Columns, metric: Metric) -> tuple[Columns, Columns]:
    """Return the rows that a comparison of a metric rests on, those of the common cases.

    For a judge's points, time, tokens and cost, these are the cases with a value on both sides: a variant must not
    gain where its judge fails, or where it fails itself.
    """
    one, other = common_cases(one, other)
    in_both = metric.name in one.numerators and metric.name in other.numerators
    if not in_both or (metric.group != "cost" and metric is not JUDGE):
        return one, other
    both = (one.weights[metric.name] > 0) & (other.weights[metric.name] > 0)
    return one.of(both), other.of(both)


def change(one: Columns, other: Columns, metric: Metric, confidence: float = CONFIDENCE) -> Estimate | None:
    """Return the difference ``other - one`` of a metric over the matched cases; None if either has no value."""
    if metric.name not in one.numerators or metric.name not in other.numerators:
        return None
    one, other = matched(one, other, metric)
    first, second = one.numerators[metric.name], other.numerators[metric.name]
    if metric.quantile is not None:
        return quantile_difference(first, second, metric.quantile, confidence=confidence)
    return difference(
        (first, one.weights[metric.name]), (second, other.weights[metric.name]), confidence=confidence
    )


def summarise(store: RunStore, run: Run, size: int, baseline: int = 0) -> Summary:
    """Compute the table of a run, finished or not.

    Args:
        store: The store of the run.
        run: The run.
        size: Cases of its dataset version.
        baseline: Index of the variant that the others are compared with.
    """
    columns = [read_columns(store, run, variant) for variant in range(len(run.plan.variants))]
    named = list(zip(run.plan.variants, columns, strict=True))
    return Summary(run, size, baseline, metrics_of(columns), _rows(named, baseline))


def summarise_against(run: Run, size: int, base: tuple[Variant, Columns], columns: Sequence[Columns]) -> Summary:
    """Compute the table of a run with a variant of another run as the baseline, in the first row.

    Args:
        run: The run.
        size: Cases of its dataset version.
        base: The other run's variant and its columns, by the positions of this run's cases.
        columns: Columns of this run's variants, in order.
    """
    named = [base, *zip(run.plan.variants, columns, strict=True)]
    return Summary(run, size, 0, metrics_of([base[1], *columns]), _rows(named, 0))


def _rows(named: Sequence[tuple[Variant, Columns]], baseline: int) -> tuple[VariantSummary, ...]:
    return tuple(
        VariantSummary(
            variant.name,
            variant.changes,
            len(columns.positions),
            columns.cached,
            columns.failed,
            _figures(columns, None if number == baseline else named[baseline][1]),
            columns.error,
            columns.saved_usd if columns.cached else None,
        )
        for number, (variant, columns) in enumerate(named)
    )


def metrics_of(columns: Sequence[Columns]) -> tuple[Metric, ...]:
    """Return the metrics for which any variant has a value."""
    return tuple(metric for metric in METRICS if any(metric.name in variant.numerators for variant in columns))


def _figures(columns: Columns, baseline: Columns | None) -> dict[str, Figure]:
    return {
        metric.name: replace(
            figure_of(columns, metric, len(columns.positions)),
            change=change(baseline, columns, metric) if baseline else None,
        )
        for metric in METRICS
        if metric.name in columns.numerators
    }


def figure_of(columns: Columns, metric: Metric, cases: int, confidence: float = CONFIDENCE) -> Figure:
    """Return a metric of a variant, without its change.

    Args:
        columns: The rows that count.
        metric: The metric.
        cases: Number of cases, for the points of a judge that judged only some of them.
        confidence: That of the interval.
    """
    estimate = columns.estimate(metric, confidence)
    partly = metric is JUDGE and estimate is not None and estimate.n < cases
    return Figure(estimate, of=cases if partly else None)


def _part(cell: Cell, metric: Metric, cost: float | None) -> tuple[float, float]:
    """Return a cell's value and weight for a metric; the weight is 0 where the metric does not apply."""
    known: dict[str, float | None] = {
        "latency_p50": cell.latency_s,
        "latency_p95": cell.latency_s,
        "input_tokens": cell.input_tokens,
        "output_tokens": cell.output_tokens,
        "cost": cost,
    }
    if metric.name in known:
        # Failures do not count towards latency and cost.
        value = None if cell.status == "failed" else known[metric.name]
        return (float("nan"), 0.0) if value is None else (float(value), 1.0)
    score = (cell.scores or {}).get(metric.name)
    return (score.value, score.weight) if score else (0.0, 0.0)
