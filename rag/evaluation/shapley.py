"""What each of some factors adds to a value: Shapley values, and the interaction of each pair.

All combinations of k factors have a value for each case. The change from none turned to all is divided among the
factors: the part of each is what turning it adds, on average over the orders in which all can be turned (Shapley,
A Value for n-Person Games, 1953), so that the parts add up to the whole. A part does not tell a factor that works
by itself from two that work only together. That is told by the interaction index of pairs (Owen, Multilinear
Extensions of Games, 1972; in general Grabisch and Roubens, International Journal of Game Theory, 1999).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import combinations
from math import factorial
from typing import TYPE_CHECKING

from rag.errors import EvaluationError, SettingsError
from rag.evaluation.measures import BY_NAME, MEASURES, Measure
from rag.evaluation.summary import Columns

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    # Combinations × cases; in combination n factor i is turned where bit i of n is set.
    Values = NDArray[np.float64]

# Sums of scores are rounded: what is nearer than this is the same.
SAME = 1e-9


def mean_measure(name: str) -> Measure:
    """The measure of this name, whose figure is a mean over the cases.

    Raises:
        SettingsError: There is none, or its figure is a quantile.
    """
    measure = BY_NAME.get(name)
    if measure is None or measure.quantile is not None:
        wrong = f"There is no measure {name!r}" if measure is None else f"{name} is no mean over the cases"
        known = ", ".join(each.name for each in MEASURES if each.quantile is None)
        raise SettingsError(f"{wrong}: it cannot be divided among factors.", fix=f"These can: {known}.")
    return measure


def values_of(columns: Sequence[Columns], measure: Measure, k: int) -> tuple[NDArray[np.int64], Values, int]:
    """The cases that have a value in every combination: their positions, and their values.

    The third is the number of the cases that have a value in some combinations only.

    Raises:
        EvaluationError: There is no such case.
        ValueError: There are not 2^``k`` combinations, or ``k`` is 0.
    """
    import numpy as np

    if k < 1 or len(columns) != 1 << k:
        raise ValueError(f"one factor or more want 2^k combinations: {k} factors, {len(columns)} combinations")
    held = [each.of(each.weights[measure.name] > 0) for each in columns if measure.name in each.weights]
    every: list[NDArray[np.int64]] = [each.positions for each in held]
    shared = reduce(lambda one, other: np.intersect1d(one, other, assume_unique=True), every) if every else None
    if shared is None or len(held) < len(columns) or not shared.size:
        raise EvaluationError(
            f"No case has a value of {measure.name} in all {len(columns)} combinations.",
            fix="Let the run finish, or choose a measure that its dataset can tell.",
        )
    rows = [each.of(np.isin(each.positions, shared)) for each in held]
    values = np.stack([each.numerators[measure.name] / each.weights[measure.name] for each in rows])
    return shared, values, len(np.unique(np.concatenate(every))) - len(shared)


def shapley_values(values: Values) -> list[NDArray[np.float64]]:
    """Shapley value of each factor for each case; over the factors they add up to last - first combination."""
    import numpy as np

    k = _factors(values)
    found = []
    for factor in range(k):
        column = np.zeros(values.shape[1])
        for number in settings_without(k, factor):
            turned = number.bit_count()
            weight = factorial(turned) * factorial(k - turned - 1) / factorial(k)
            column += weight * (values[number | 1 << factor] - values[number])
        found.append(column)
    return found


def interactions_of(values: Values) -> dict[tuple[int, int], NDArray[np.float64]]:
    """Interaction index of each pair of factors for each case; 0 where the two add up."""
    import numpy as np

    k = _factors(values)
    found = {}
    for one, other in combinations(range(k), 2):
        column = np.zeros(values.shape[1])
        for number in settings_without(k, one, other):
            turned = number.bit_count()
            weight = factorial(turned) * factorial(k - turned - 2) / factorial(k - 1)
            first, second = number | 1 << one, number | 1 << other
            column += weight * (values[first | second] - values[first] - values[second] + values[number])
        found[one, other] = column
    return found


def settings_without(k: int, *left: int) -> list[int]:
    """The combinations in which none of these factors is turned."""
    return [number for number in range(1 << k) if not any(number >> factor & 1 for factor in left)]


def _factors(values: Values) -> int:
    """How many there are."""
    return len(values).bit_length() - 1
