"""Figures with their uncertainty: against scipy, by hand, and as often right as they say."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import bootstrap

from rag.evaluation import statistics
from rag.evaluation.statistics import Estimate, difference, mean, quantile, quantile_difference

Column = NDArray[np.float64]
RESAMPLES = 9_999


def plain(values: Column) -> tuple[Column, Column]:
    return values, np.ones(len(values))


def near(ours: Estimate | None, theirs: tuple[float, float], share: float = 0.06) -> None:
    """Both ends lie within a share of the interval's width: two runs of chance differ by that."""
    assert ours is not None
    width = theirs[1] - theirs[0]
    assert (ours.low, ours.high) == pytest.approx(theirs, abs=share * width)


def of_scipy(columns: tuple[Column, ...], figure: Callable[..., object], confidence: float) -> tuple[float, float]:
    found = bootstrap(
        columns,
        figure,
        paired=len(columns) > 1,
        confidence_level=confidence,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(7),
    ).confidence_interval
    return float(found.low), float(found.high)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_intervals_are_those_of_scipy(confidence: float) -> None:
    chance = np.random.default_rng(3)
    one = chance.exponential(size=80)
    other = one * 0.5 + chance.normal(0.8, 0.4, size=80)
    weights, seconds = chance.integers(0, 4, 80).astype(float), chance.integers(0, 3, 80).astype(float)
    numerators, others = weights * chance.random(80), seconds * chance.random(80)

    near(
        mean(*plain(one), confidence=confidence, resamples=RESAMPLES),
        of_scipy((one,), lambda x, axis: x.mean(axis), confidence),
    )
    near(
        difference(plain(one), plain(other), confidence=confidence, resamples=RESAMPLES),
        of_scipy((one, other), lambda x, y, axis: y.mean(axis) - x.mean(axis), confidence),
    )
    near(
        mean(numerators, weights, confidence=confidence, resamples=RESAMPLES),
        of_scipy((numerators, weights), lambda x, w, axis: x.sum(axis) / w.sum(axis), confidence),
    )
    near(
        difference((numerators, weights), (others, seconds), confidence=confidence, resamples=RESAMPLES),
        of_scipy(
            (numerators, weights, others, seconds),
            lambda x, w, y, v, axis: y.sum(axis) / v.sum(axis) - x.sum(axis) / w.sum(axis),
            confidence,
        ),
    )
    near(
        quantile(one, 0.5, confidence=confidence, resamples=RESAMPLES),
        of_scipy((one,), lambda x, axis: np.quantile(x, 0.5, axis=axis), confidence),
    )
    near(
        quantile_difference(one, other, 0.9, confidence=confidence, resamples=RESAMPLES),
        of_scipy(
            (one, other),
            lambda x, y, axis: np.quantile(y, 0.9, axis=axis) - np.quantile(x, 0.9, axis=axis),
            confidence,
        ),
    )


def test_figures_by_hand() -> None:
    # Three of four claims, and one of one: each claim counts alike.
    ratio = mean([3, 1, 0], [4, 1, 0])
    assert ratio is not None
    assert (ratio.value, ratio.n) == (0.8, 2)
    # Of two cases a quarter of the resamples has the first twice, and a quarter the second.
    assert mean([0, 1], [1, 1]) == Estimate(0.5, 0.0, 1.0, 2)
    assert difference(([0, 1], [1, 1]), ([1, 1], [1, 1])) == Estimate(0.5, 0.0, 1.0, 2)
    assert quantile([1.0, 3.0], 0.25) == Estimate(1.5, 1.0, 3.0, 2)
    assert quantile_difference([1.0, 3.0], [2.0, 6.0], 0.5) == Estimate(2.0, 1.0, 3.0, 2)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 0.7, -2.5])
@pytest.mark.parametrize("cases", [1, 3, 77])
def test_where_all_values_are_equal_so_is_the_interval(value: float, cases: int) -> None:
    constant = Estimate(value, value, value, cases)
    assert mean(*plain(np.full(cases, value))) == constant
    assert quantile(np.full(cases, value), 0.95) == constant
    assert difference(plain(np.zeros(cases)), plain(np.full(cases, value))) == constant
    assert quantile_difference(np.zeros(cases), np.full(cases, value), 0.5) == constant


def test_cases_without_weight_do_not_count() -> None:
    whole = mean([0.5, 0.5, math.nan, math.inf], [1, 1, 0, 0])
    assert whole == Estimate(0.5, 0.5, 0.5, 2)
    # A resample of the third case alone has no figure, and is left out.
    some = mean([0, 1, 0], [1, 1, 0])
    assert some == Estimate(0.5, 0.0, 1.0, 2)


def test_a_metric_that_applies_to_no_case_has_no_figure() -> None:
    assert mean([], []) is None
    assert mean([0, math.nan], [0, 0]) is None
    for pair in (([0.0, 1.0], [1, 1]), ([0, 0], [0, 0])):
        assert difference(pair, ([0, 0], [0, 0])) is None
        assert difference(([0, 0], [0, 0]), pair) is None
    assert quantile([], 0.5) is None
    assert quantile([math.nan], 0.5) is None
    assert quantile_difference([], [], 0.5) is None
    assert quantile_difference([1.0, math.nan], [math.nan, 1.0], 0.5) is None


def test_where_no_resample_has_a_figure_there_is_none() -> None:
    # Two resamples miss the one case of twenty that weighs with a probability of 0.95 ** 40, about an eighth.
    found = [mean([1.0] * 20, [1.0] + [0.0] * 19, resamples=2, seed=seed) for seed in range(40)]
    assert set(found) == {None, Estimate(1.0, 1.0, 1.0, 1)}


def test_cases_that_a_difference_rests_on() -> None:
    found = difference(([1, 0, 0, 0], [1, 1, 0, 0]), ([0, 1, 1, 0], [0, 1, 1, 0]))
    assert found is not None
    assert (found.value, found.n) == (0.5, 3)
    latency = quantile_difference([1.0, math.nan, 5.0, 2.0], [2.0, 9.0, math.nan, 3.0], 0.5)
    assert latency == Estimate(1.0, 1.0, 1.0, 2)
    assert quantile([math.nan, 4.0, math.nan], 0.5) == Estimate(4.0, 4.0, 4.0, 1)


def test_what_is_hard_in_both_runs_does_not_widen_the_interval() -> None:
    chance = np.random.default_rng(1)
    hard = chance.random(200)
    one, other = hard + chance.normal(0, 0.01, 200), hard + chance.normal(0.02, 0.01, 200)
    paired = difference(plain(one), plain(other))
    shuffled = difference(plain(one), plain(chance.permutation(other)))
    assert paired is not None
    assert shuffled is not None
    assert 0 < paired.low < paired.value < paired.high
    assert paired.high - paired.low < (shuffled.high - shuffled.low) / 5
    assert shuffled.low < 0 < shuffled.high


def test_the_seed_alone_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).random(50)
    other = values[::-1].copy()
    before = values.copy()

    def figures(seed: int) -> list[Estimate | None]:
        return [
            mean(*plain(values), seed=seed),
            difference(plain(values), (other, values), seed=seed),
            quantile(values, 0.95, seed=seed),
            quantile_difference(values, other, 0.95, seed=seed),
        ]

    first = figures(0)
    assert figures(0) == first
    assert all(one != other for one, other in zip(first, figures(1), strict=True))
    assert [each and each.value for each in figures(1)] == [each and each.value for each in first]
    # Nor does it matter how many are drawn at once, and what was given stays as it was.
    monkeypatch.setattr(statistics, "CELLS", 7 * 50)
    assert figures(0) == first
    monkeypatch.setattr(statistics, "CELLS", 1)
    assert figures(0) == first
    assert (values == before).all()


def test_one_run_is_drawn_like_two() -> None:
    values = np.random.default_rng(4).random(40)
    zeros = np.zeros(40)
    assert difference(plain(zeros), plain(values)) == mean(*plain(values))
    assert quantile_difference(zeros, values, 0.95) == quantile(values, 0.95)


def test_more_resamples_change_little() -> None:
    values = np.random.default_rng(2).random(30)
    few, many = (mean(*plain(values), resamples=count) for count in (200, 20_000))
    near(few, (many.low, many.high) if many else (0, 0), share=0.2)


def test_many_cases_need_little_memory() -> None:
    values = np.random.default_rng(0).random(100_000)
    tracemalloc.start()
    try:
        for found in (
            mean(*plain(values), resamples=30),
            difference(plain(values), plain(values[::-1].copy()), resamples=30),
            quantile(values, 0.95, resamples=30),
            quantile_difference(values, values[::-1].copy(), 0.95, resamples=30),
        ):
            assert found is not None
            assert found.n == 100_000
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()


def coverage(make: Callable[[np.random.Generator], Estimate | None], truth: float) -> float:
    chance = np.random.default_rng(11)
    found = [make(chance) for _ in range(150)]
    return sum(each is not None and each.low <= truth <= each.high for each in found) / len(found)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    def shares(chance: np.random.Generator) -> Estimate | None:
        return mean(*plain((chance.random(100) < 0.7).astype(float)), resamples=200)

    def refusals(chance: np.random.Generator) -> Estimate | None:
        refused = (chance.random(200) < 0.4).astype(float)
        return mean(refused * (chance.random(200) < 0.8), refused, resamples=200)

    def gains(chance: np.random.Generator) -> Estimate | None:
        hard = chance.exponential(size=100)
        one, other = (plain(hard + chance.normal(shift, 0.5, 100)) for shift in (0, 0.3))
        return difference(one, other, resamples=200)

    def medians(chance: np.random.Generator) -> Estimate | None:
        return quantile(chance.exponential(size=150), 0.5, resamples=200)

    for make, truth in ((shares, 0.7), (refusals, 0.8), (gains, 0.3), (medians, math.log(2))):
        assert 0.90 <= coverage(make, truth) <= 0.99, make.__name__

    def narrow(chance: np.random.Generator) -> Estimate | None:
        return mean(*plain(chance.normal(size=100)), confidence=0.5, resamples=200)

    assert 0.42 <= coverage(narrow, 0) <= 0.58


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean([1.0], [1.0, 1.0]), "same cases"),
        (lambda: mean([1.0, math.nan], [1.0, 1.0]), "finite"),
        (lambda: mean([1.0, 1.0], [1.0, -1.0]), "0 or more"),
        (lambda: mean([1.0], [math.nan]), "0 or more"),
        (lambda: mean([1.0], [math.inf]), "flat list of finite"),
        (lambda: mean([[1.0]], [[1.0]]), "flat list"),
        (lambda: difference(([1.0], [1.0]), ([1.0, 0.0], [1.0, 1.0])), "same cases"),
        (lambda: quantile([math.inf], 0.5), "flat list of finite"),
        (lambda: quantile([1.0], 1.5), "[Qq]uantiles"),
        (lambda: quantile_difference([1.0], [1.0, 2.0], 0.5), "same cases"),
    ],
)
def test_what_makes_no_sense_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


FIGURES = st.floats(-1000, 1000, allow_subnormal=False)
WEIGHTS = st.one_of(st.just(0.0), st.integers(1, 9).map(float))
CASES = st.lists(st.tuples(FIGURES, WEIGHTS, FIGURES, WEIGHTS), min_size=1, max_size=12)


def columns(cases: list[tuple[float, float, float, float]]) -> tuple[tuple[Column, Column], tuple[Column, Column]]:
    first, weights, second, seconds = np.array(cases).T
    return (first * weights, weights), (second * seconds, seconds)


@given(CASES)
def test_figures_and_intervals_stay_among_the_values(cases: list[tuple[float, float, float, float]]) -> None:
    (numerators, weights), _ = columns(cases)
    found = mean(numerators, weights, resamples=200)
    values = [value for value, weight, _, _ in cases if weight]
    if not values:
        assert found is None
        return
    assert found is not None
    assert found.n == len(values)
    assert found.value == pytest.approx(numerators.sum() / weights.sum(), rel=1e-9, abs=1e-9)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
    assert min(values) - 1e-9 <= found.value <= max(values) + 1e-9
    middle = quantile(values, 0.3, resamples=200)
    assert middle is not None
    assert middle.value == pytest.approx(float(np.quantile(values, 0.3)))
    assert min(values) <= middle.low <= middle.high <= max(values)


@given(CASES)
def test_a_run_does_not_differ_from_itself(cases: list[tuple[float, float, float, float]]) -> None:
    (numerators, weights), _ = columns(cases)
    found = difference((numerators, weights), (numerators.copy(), weights.copy()), resamples=200)
    n = int((weights > 0).sum())
    assert found == (Estimate(0.0, 0.0, 0.0, n) if n else None)
    assert quantile_difference(numerators, numerators.copy(), 0.95, resamples=200) == Estimate(
        0.0, 0.0, 0.0, len(cases)
    )


@given(CASES)
def test_two_runs_differ_as_much_either_way(cases: list[tuple[float, float, float, float]]) -> None:
    one, other = columns(cases)
    there, back = difference(one, other, resamples=200), difference(other, one, resamples=200)
    assert (there is None) == (back is None) == (not one[1].any() or not other[1].any())
    if there and back:
        assert there.low <= there.high
        assert there.n == back.n
        assert (back.value, back.low, back.high) == pytest.approx(
            (-there.value, -there.high, -there.low), abs=1e-9
        )
    slow, fast = (
        quantile_difference(*pair, 0.5, resamples=200) for pair in ((one[0], other[0]), (other[0], one[0]))
    )
    assert slow is not None
    assert fast is not None
    assert (fast.value, fast.low, fast.high) == pytest.approx((-slow.value, -slow.high, -slow.low), abs=1e-9)
