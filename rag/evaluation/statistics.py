"""Figures of a run with their uncertainty, and of two runs over the same cases.

Every metric is a ratio: a case gives a numerator and a weight, and the figure is Σ numerators / Σ weights. In a
plain mean every case to which the metric applies weighs 1, and the others 0; in the precision of refusals a
refusal weighs 1, and its numerator is 1 where it was right to refuse.

Intervals are those of the percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
chapter 13): cases are drawn with replacement, as many as there are, and the interval holds the middle of what the
draws give. Two runs are compared on the same draws, so that what is hard for both does not widen the interval.
The same seed gives the same interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    # Cases drawn, resamples × cases → the figure of each resample, NaN where it has none.
    Statistic = Callable[[NDArray[np.intp]], NDArray[np.float64]]

CONFIDENCE = 0.95
RESAMPLES = 2000
# Drawn at once: numbers and values of so many cases take 16 to 24 MB.
CELLS = 1_000_000


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
        resamples: At least 1; those whose weights are 0 in sum are left out.
        seed: Of the draws.

    Raises:
        ValueError: The lengths differ, a weight is negative, or a number is not finite.
    """
    ratio = _Ratio.of(numerators, weights)
    return _Bootstrap(confidence, resamples, seed).estimate(
        ratio.value, ratio.resampled, ratio.weights.size, ratio.weighing(ratio)
    )


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
    cases = _paired(first.weights, second.weights)
    return _Bootstrap(confidence, resamples, seed).estimate(
        second.value - first.value,
        lambda drawn: second.resampled(drawn) - first.resampled(drawn),
        cases,
        first.weighing(second),
    )


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
    known = column[~np.isnan(column)]
    return _Bootstrap(confidence, resamples, seed).estimate(
        float(_quantiles(known[None].copy(), q)[0]),
        lambda drawn: _quantiles(known[drawn], q),
        known.size,
        known.size,
    )


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
    _paired(first, second)
    both = ~(np.isnan(first) | np.isnan(second))
    first, second = first[both], second[both]

    def gained(drawn: NDArray[np.intp]) -> NDArray[np.float64]:
        return _quantiles(second[drawn], q) - _quantiles(first[drawn], q)

    every = np.arange(first.size)[None]
    return _Bootstrap(confidence, resamples, seed).estimate(
        float(gained(every)[0]), gained, first.size, first.size
    )


@dataclass(frozen=True, slots=True)
class _Ratio:
    """A metric of one run.

    Attributes:
        numerators, weights: One for each case; where the weight is 0 so is the numerator.
        value: The figure of all cases, NaN where it has none.
        constant: Whether every case that weighs something has this same figure.
    """

    numerators: NDArray[np.float64]
    weights: NDArray[np.float64]
    value: float
    constant: bool

    @classmethod
    def of(cls, numerators: ArrayLike, weights: ArrayLike) -> _Ratio:
        import numpy as np

        given, weighed = np.asarray(numerators, dtype=np.float64), _values(weights)
        _paired(given, weighed)
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

    def resampled(self, drawn: NDArray[np.intp]) -> NDArray[np.float64]:
        import numpy as np

        weights = self._weights(drawn)
        some = weights > 0
        found = np.full(len(drawn), np.nan)
        if self.constant:
            # Sums of equal numbers are rounded, and their ratio would not be quite the number.
            found[some] = self.value
        else:
            np.divide(self.numerators[drawn].sum(axis=1), weights, out=found, where=some)
        return found

    def _weights(self, drawn: NDArray[np.intp]) -> NDArray[np.float64]:
        import numpy as np

        first = self.weights[0]
        # Mostly every case weighs the same, and its sum need not be gathered.
        if (self.weights == first).all():
            return np.full(len(drawn), first * drawn.shape[1])
        summed: NDArray[np.float64] = self.weights[drawn].sum(axis=1)
        return summed

    def weighing(self, other: _Ratio) -> int:
        """The number of cases that weigh something here or there."""
        return int(((self.weights > 0) | (other.weights > 0)).sum())


@dataclass(frozen=True, slots=True)
class _Bootstrap:
    """How intervals are made."""

    confidence: float
    resamples: int
    seed: int

    def estimate(self, value: float, statistic: Statistic, cases: int, n: int) -> Estimate | None:
        """The interval around a value; None where it is NaN, or every resample is."""
        import numpy as np

        if np.isnan(value):
            return None
        figures = np.concatenate([statistic(drawn) for drawn in self._draws(cases)])
        figures = figures[~np.isnan(figures)]
        if not figures.size:
            return None
        outside = (1 - self.confidence) / 2
        low, high = np.quantile(figures, (outside, 1 - outside))
        return Estimate(value, float(low), float(high), n)

    def _draws(self, cases: int) -> Iterator[NDArray[np.intp]]:
        """Cases by their number, resamples × cases, in parts that fit in memory."""
        import numpy as np

        chance = np.random.default_rng(self.seed)
        at_once = max(1, CELLS // cases)
        for begun in range(0, self.resamples, at_once):
            yield chance.integers(cases, size=(min(at_once, self.resamples - begun), cases))


def _quantiles(rows: NDArray[np.float64], q: float) -> NDArray[np.float64]:
    """The quantile of each row, NaN where rows are empty; the rows are not left as they were."""
    import numpy as np

    if not rows.shape[1]:
        return np.full(len(rows), np.nan)
    found: NDArray[np.float64] = np.quantile(rows, q, axis=1, overwrite_input=True)
    return found


def _values(given: ArrayLike) -> NDArray[np.float64]:
    import numpy as np

    values = np.asarray(given, dtype=np.float64)
    if values.ndim != 1 or np.isinf(values).any():
        raise ValueError("values want a plain list of numbers, and none without an end")
    return values


def _paired(one: NDArray[np.float64], other: NDArray[np.float64]) -> int:
    """The number of cases."""
    if one.shape != other.shape:
        raise ValueError(f"the same cases are wanted on both sides: {one.shape} and {other.shape} are not")
    return one.size
