"""Figures of a run with their uncertainty, and of two runs over the same cases.

Every metric is a ratio: a case gives a numerator and a weight, and the figure is Σ numerators / Σ weights. In a
plain mean every case to which the metric applies weighs 1, and the others 0; in the precision of refusals a
refusal weighs 1, and its numerator is 1 where it was right to refuse.

Intervals are those of the percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
chapter 13): cases are drawn with replacement, as many as there are, and the interval holds the middle of what the
draws give; scipy draws them. Two runs are compared on the same draws, so that what is hard for both does not widen
the interval. The same seed gives the same interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Column = NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 2000
# Drawn at once: the numbers of so many cases, and up to four columns of their values, take 20 MB.
CELLS = 500_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its interval.

    Attributes:
        value: The figure of all cases, or how much larger it is in the second run.
        low, high: Ends of the interval, in the unit of the figure; low is at most high.
        n: Cases that the figure rests on.
    """

    value: float
    low: float
    high: float
    n: int


def mean(
    numerators: ArrayLike,
    weights: ArrayLike,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate | None:
    """Σ numerators / Σ weights; None where the weights are 0 in sum, or in every resample.

    ``n`` counts the cases that weigh something.

    Args:
        numerators: One for each case; where the weight is 0 it does not count and may be NaN.
        weights: One for each case, 0 or more.
        confidence: Share of the resamples in the interval, between 0 and 1.
        resamples: At least 2; those whose weights are 0 in sum are left out.
        seed: Of the draws.

    Raises:
        ValueError: The lengths differ, a weight is negative, or a number is not finite.
    """
    ratio = _Ratio.of(numerators, weights)
    (figures,) = _resampled_ratios([ratio], resamples, seed)
    return _estimate(ratio.value, figures, confidence, ratio.weighing(ratio))


def difference(
    one: tuple[ArrayLike, ArrayLike],
    other: tuple[ArrayLike, ArrayLike],
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate | None:
    """How much larger a metric is in another run; None where one of the two has none.

    ``n`` counts the cases that weigh something in at least one of the runs.

    Args:
        one: Numerators and weights of a run, as ``mean`` takes them.
        other: Those of the run that is compared with it: the same cases in the same order.
        confidence, resamples, seed: As in ``mean``.

    Raises:
        ValueError: The lengths differ, a weight is negative, or a number is not finite.
    """
    first, second = _Ratio.of(*one), _Ratio.of(*other)
    _check_paired(first.weights, second.weights)
    before, after = _resampled_ratios([first, second], resamples, seed)
    return _estimate(second.value - first.value, after - before, confidence, first.weighing(second))


def quantile(
    values: ArrayLike,
    q: float,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate | None:
    """A quantile, such as the 95th percentile of the latency; None where no case has a value.

    Between two values it is interpolated (type 7 of Hyndman and Fan, The American Statistician 1996).

    Args:
        values: One for each case, NaN where it has none; ``n`` counts the others.
        q: 0 to 1: 0.5 is the median.
        confidence, resamples, seed: As in ``mean``.

    Raises:
        ValueError: A value is infinite, or ``q`` out of range.
    """
    import numpy as np

    column = _values(values)
    return _quantile_estimate([column[~np.isnan(column)]], q, confidence, resamples, seed)


def quantile_difference(
    one: ArrayLike,
    other: ArrayLike,
    q: float,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate | None:
    """How much larger a quantile is in another run; None where no case has a value in both.

    Args:
        one: Values of a run, as ``quantile`` takes them.
        other: Those of the run that is compared with it: the same cases in the same order. Only the cases with a
            value in both count; ``n`` is their number.
        q: 0 to 1.
        confidence, resamples, seed: As in ``mean``.

    Raises:
        ValueError: The lengths differ, a value is infinite, or ``q`` out of range.
    """
    import numpy as np

    first, second = _values(one), _values(other)
    _check_paired(first, second)
    both = ~(np.isnan(first) | np.isnan(second))
    return _quantile_estimate([first[both], second[both]], q, confidence, resamples, seed)


@dataclass(frozen=True, slots=True)
class _Ratio:
    """A metric of one run.

    Attributes:
        numerators, weights: One for each case; where the weight is 0 so is the numerator.
        value: The figure of all cases, NaN where it has none.
        constant: Whether every case that weighs something has this same figure.
    """

    numerators: Column
    weights: Column
    value: float
    constant: bool

    @classmethod
    def of(cls, numerators: ArrayLike, weights: ArrayLike) -> _Ratio:
        import numpy as np

        given, weighed = np.asarray(numerators, dtype=np.float64), _values(weights)
        _check_paired(given, weighed)
        counted = np.where(weighed == 0, 0.0, given)
        if not np.isfinite(counted).all() or not (weighed >= 0).all():
            raise ValueError("numerators and weights want finite numbers, and no weight below 0")
        some = weighed > 0
        each = counted[some] / weighed[some]
        if not each.size:
            return cls(counted, weighed, float("nan"), constant=False)
        if (each == each[0]).all():
            return cls(counted, weighed, float(each[0]), constant=True)
        return cls(counted, weighed, float(counted.sum() / weighed.sum()), constant=False)

    def figures(self, numerators: Column, weights: Column) -> Column:
        """Return the figure of each resample from its sums, NaN where nothing in it weighs anything."""
        import numpy as np

        found = np.full(weights.shape, np.nan)
        if self.constant:
            # Sums of equal numbers are rounded, and their ratio would not be quite the number.
            found[weights > 0] = self.value
        else:
            np.divide(numerators, weights, out=found, where=weights > 0)
        return found

    def weighing(self, other: _Ratio) -> int:
        """The number of cases that weigh something here or there."""
        return int(((self.weights > 0) | (other.weights > 0)).sum())


def _resampled_ratios(ratios: Sequence[_Ratio], resamples: int, seed: int) -> list[Column]:
    """Return the figures of each ratio, all on the same draws."""
    import numpy as np

    def sums(*drawn: Column, axis: int) -> Column:
        return np.stack([column.sum(axis=axis) for column in drawn])

    columns = [column for ratio in ratios for column in (ratio.numerators, ratio.weights)]
    found = _resampled(columns, sums, resamples, seed)
    return [ratio.figures(*found[2 * number : 2 * number + 2]) for number, ratio in enumerate(ratios)]


def _quantile_estimate(
    columns: Sequence[Column], q: float, confidence: float, resamples: int, seed: int
) -> Estimate | None:
    """Estimate the quantile of the last column, less that of the first where there are two."""
    import numpy as np

    def gain(*drawn: Column, axis: int) -> Column:
        found: list[Column] = [np.quantile(column, q, axis=axis) for column in drawn]
        return found[-1] if len(found) == 1 else found[-1] - found[0]

    cases = columns[0].size
    if not cases:
        return None
    figures = _resampled(columns, gain, resamples, seed)
    return _estimate(float(gain(*columns, axis=-1)), figures, confidence, cases)


def _resampled(columns: Sequence[Column], statistic: Callable[..., Column], resamples: int, seed: int) -> Column:
    """Return what a statistic gives for each resample of the cases, along the last axis."""
    import numpy as np
    from scipy.stats import bootstrap

    cases = columns[0].size
    if cases < 2:
        # scipy wants two cases; of one there is a single resample, and of none an empty one.
        return statistic(*columns, axis=-1)[..., None]
    drawn: Column = bootstrap(
        columns,
        statistic,
        paired=True,
        vectorized=True,
        axis=-1,
        n_resamples=resamples,
        batch=max(1, CELLS // cases),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).bootstrap_distribution
    return drawn


def _estimate(value: float, figures: Column, confidence: float, n: int) -> Estimate | None:
    """Return the interval around a value; None where it is NaN, or every resample is."""
    import numpy as np

    figures = figures[~np.isnan(figures)]
    if np.isnan(value) or not figures.size:
        return None
    outside = (1 - confidence) / 2
    low, high = np.quantile(figures, (outside, 1 - outside))
    return Estimate(value, float(low), float(high), n)


def _values(given: ArrayLike) -> Column:
    import numpy as np

    values = np.asarray(given, dtype=np.float64)
    if values.ndim != 1 or np.isinf(values).any():
        raise ValueError("values want a plain list of numbers, and none without an end")
    return values


def _check_paired(one: Column, other: Column) -> None:
    if one.shape != other.shape:
        raise ValueError(f"the same cases are wanted on both sides: {one.shape} and {other.shape} are not")
