"""Estimates with intervals, for one run and for the difference of two runs over the same cases.

Every metric is a ratio: a case has a numerator and a weight, and the value is Σ numerators / Σ weights. In a
plain mean, the weight is 1 for every case to which the metric applies, else 0; in the precision of refusals, it is
1 for a refusal, whose numerator is 1 if it was right.

Intervals come from the percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
chapter 13) of scipy. Two runs are compared on the same resamples, so that the difficulty of the cases does not
widen the interval. Equal seeds give equal intervals.
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
# Cases per batch of resamples; with up to four columns, they take 20 MB.
CELLS = 500_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its interval.

    Attributes:
        value: The value over all cases, or the second run's value minus the first's.
        low, high: Ends of the interval.
        n: Number of cases that contribute.
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
    """Estimate Σ numerators / Σ weights; None if the weights are 0 in sum, or in every resample.

    ``n`` counts the cases with a weight above 0.

    Args:
        numerators: One per case; ignored and possibly NaN where the weight is 0.
        weights: One per case, 0 or more.
        confidence: Share of the resamples in the interval, between 0 and 1.
        resamples: At least 2; those with weights of 0 in sum are left out.
        seed: Seed of the resamples.

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
    """Estimate the difference ``other - one`` of a metric; None if either has no value.

    ``n`` counts the cases with a weight above 0 in either run.

    Args:
        one: Numerators and weights of a run; see ``mean``.
        other: Those of another run, for the same cases in the same order.
        confidence, resamples, seed: See ``mean``.

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
    """Estimate a quantile, such as the 95th percentile of the latency; None if no case has a value.

    It is interpolated linearly (type 7 of Hyndman and Fan, The American Statistician 1996).

    Args:
        values: One per case, or NaN; ``n`` counts the others.
        q: 0 to 1; 0.5 is the median.
        confidence, resamples, seed: See ``mean``.

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
    """Estimate the difference ``other - one`` of a quantile; None if no case has a value in both runs.

    Args:
        one: Values of a run; see ``quantile``.
        other: Those of another run, for the same cases in the same order. Only cases with a value in both runs
            count; ``n`` is their number.
        q: 0 to 1.
        confidence, resamples, seed: See ``mean``.

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
        numerators, weights: One per case; the numerator is 0 where the weight is 0.
        value: The value over all cases, or NaN.
        constant: Whether all cases with a weight have this value.
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
            raise ValueError("numerators and weights must be finite, and weights 0 or more")
        some = weighed > 0
        ratios = counted[some] / weighed[some]
        if not ratios.size:
            return cls(counted, weighed, float("nan"), constant=False)
        if (ratios == ratios[0]).all():
            return cls(counted, weighed, float(ratios[0]), constant=True)
        return cls(counted, weighed, float(counted.sum() / weighed.sum()), constant=False)

    def figures(self, numerators: Column, weights: Column) -> Column:
        """Return the values of all resamples from their sums, or NaN where the weights are 0."""
        import numpy as np

        found = np.full(weights.shape, np.nan)
        if self.constant:
            # Avoids rounding errors: the ratio of the sums would differ slightly from the value.
            found[weights > 0] = self.value
        else:
            np.divide(numerators, weights, out=found, where=weights > 0)
        return found

    def weighing(self, other: _Ratio) -> int:
        """Return the number of cases with a weight above 0 in either metric."""
        return int(((self.weights > 0) | (other.weights > 0)).sum())


def _resampled_ratios(ratios: Sequence[_Ratio], resamples: int, seed: int) -> list[Column]:
    """Return the values of all ratios on the same resamples."""
    import numpy as np

    def sums(*drawn: Column, axis: int) -> Column:
        return np.stack([column.sum(axis=axis) for column in drawn])

    columns = [column for ratio in ratios for column in (ratio.numerators, ratio.weights)]
    found = _resampled(columns, sums, resamples, seed)
    return [ratio.figures(*found[2 * number : 2 * number + 2]) for number, ratio in enumerate(ratios)]


def _quantile_estimate(
    columns: Sequence[Column], q: float, confidence: float, resamples: int, seed: int
) -> Estimate | None:
    """Estimate the quantile of a column, or the difference between those of two columns."""
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
    """Return a statistic of all resamples along the last axis."""
    import numpy as np
    from scipy.stats import bootstrap

    cases = columns[0].size
    if cases < 2:
        # scipy requires two cases; one case has a single resample, and no case an empty one.
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
    """Return a value with its interval; None if it or every resample is NaN."""
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
        raise ValueError("values must be a flat list of finite numbers or NaN")
    return values


def _check_paired(one: Column, other: Column) -> None:
    if one.shape != other.shape:
        raise ValueError(f"both sides must have the same cases, not {one.shape} and {other.shape}")
