"""The gate: what is worse fails it, what is as good passes it, and as often as it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from rag.errors import SettingsError
from rag.evaluation.gate import Margin, gate, least_cases, parse_margin
from rag.evaluation.summary import Columns

DRAWS = 50
CASES = 200


def columns(positions: ArrayLike | None = None, **values: ArrayLike) -> Columns:
    """One value per case and metric; NaN is none."""
    held = {name: np.asarray(column, np.float64) for name, column in values.items()}
    size = max((len(column) for column in held.values()), default=0)
    return Columns(
        np.arange(size) if positions is None else np.asarray(positions, np.int64),
        held,
        {name: (~np.isnan(column)).astype(np.float64) for name, column in held.items()},
        0,
        0,
    )


def answers(seed: int, right: float, cases: int = CASES) -> np.ndarray:
    """1 where an answer is right: some cases are harder than others, for every variant alike."""
    hard = np.random.default_rng(1).uniform(-0.2, 0.2, cases)
    return (np.random.default_rng(seed).random(cases) < right + hard).astype(np.float64)


def test_a_worse_prompt_fails_in_every_draw_of_cases() -> None:
    for seed in range(DRAWS):
        verdict = gate(
            columns(exact=answers(seed, 0.75)), columns(exact=answers(seed + 1000, 0.45)), [Margin("exact", 0.02)]
        )
        assert not verdict.passed, verdict.checks[0].reason
        assert verdict.checks[0].state == "worse"


@pytest.mark.parametrize("strict", [False, True])
def test_the_same_answers_pass_in_every_draw_of_cases(strict: bool) -> None:
    for seed in range(DRAWS):
        held = columns(exact=answers(seed, 0.6), latency_p95=answers(seed, 0.5) + 0.1)
        margins = [Margin("exact", 0.0), Margin("latency_p95", 0.0)]
        assert gate(held, held, margins, strict=strict).passed


@pytest.mark.slow
def test_what_is_as_good_in_truth_passes_as_often_as_the_confidence_promises() -> None:
    draws, confidence = 150, 0.9
    passed = sum(
        gate(
            columns(f1=answers(seed, 0.6)),
            columns(f1=answers(seed + 10_000, 0.6)),
            [Margin("f1", 0.0)],
            confidence=confidence,
        ).passed
        for seed in range(draws)
    )
    # An interval of 90 % leaves 5 % below it. Of 150 draws the share strays by 1.8 % (one standard deviation):
    # three of them either way, and half a percent because bootstrap intervals of 200 cases are a little narrow.
    assert abs(passed / draws - 0.95) <= 3 * 0.018 + 0.005


def test_two_margins_share_the_confidence() -> None:
    one, other = (
        columns(f1=answers(1, 0.6), exact=answers(2, 0.6)),
        columns(f1=answers(3, 0.6), exact=answers(4, 0.6)),
    )
    alone = gate(one, other, [Margin("f1", 0.0)])
    both = gate(one, other, [Margin("f1", 0.0), Margin("exact", 0.0)])
    assert (alone.confidence, both.confidence) == pytest.approx((0.95, 0.975))
    first, second = alone.checks[0].change, both.checks[0].change
    assert first is not None
    assert second is not None
    assert second.low < first.low < first.high < second.high
    assert "97.5 % interval" in both.checks[0].reason


def test_one_failing_margin_fails_the_gate_and_the_others_say_that_they_passed() -> None:
    verdict = gate(
        columns(f1=answers(1, 0.8), exact=answers(1, 0.6)),
        columns(f1=answers(2, 0.3), exact=answers(1, 0.6)),
        [Margin("exact", 0.02), Margin("f1", 0.02)],
    )
    assert not verdict.passed
    assert [check.passed for check in verdict.checks] == [True, False]


def test_the_reason_tells_the_figures() -> None:
    before, after = np.repeat([1.0, 0.0], [300, 100]), np.repeat([1.0, 0.0], [260, 140])
    check = gate(columns(f1=before), columns(f1=after), [Margin("f1", 0.02)]).checks[0]
    assert check.change is not None
    low, high = -100 * check.change.high, -100 * check.change.low
    assert check.reason == (
        f"F1 fell from 75.0 % to 65.0 %, by 10.0 points (95 % interval {low:.1f} to {high:.1f} points): "
        "worse by more than the allowed 2.0 points; 400 cases."
    )


def test_what_neither_rose_nor_fell_has_an_interval_all_the_same() -> None:
    swapped = gate(columns(exact=[1, 0] * 10), columns(exact=[0, 1] * 10), [Margin("exact", 0)]).checks[0]
    assert swapped.state == "unsure"
    assert swapped.reason.startswith("Exact stayed at 50.0 % (95 % interval −")


def test_less_latency_is_better() -> None:
    slow, fast = np.random.default_rng(3).gamma(4, 0.5, 300), np.random.default_rng(3).gamma(4, 0.1, 300)
    margin = [Margin("latency_p95", 0.5)]
    assert gate(columns(latency_p95=slow), columns(latency_p95=fast), margin, strict=True).passed
    assert gate(columns(latency_p95=fast), columns(latency_p95=slow), margin).checks[0].state == "worse"


@pytest.mark.parametrize(
    ("factor", "state"), [(1.1, "not worse"), (1.2, "not worse"), (1.25, "worse"), (0.5, "not worse")]
)
def test_a_relative_margin_goes_with_the_baseline_on_every_draw(factor: float, state: str) -> None:
    latencies = np.random.default_rng(3).gamma(2, 0.5, 60)
    check = gate(
        columns(latency_p95=latencies), columns(latency_p95=factor * latencies), [parse_margin("latency_p95=20%")]
    ).checks[0]
    assert check.state == state
    assert "20 % of the baseline" in check.reason


def test_a_relative_margin_of_what_is_better_higher_lies_below() -> None:
    before = np.random.default_rng(3).random(100)
    margin = [parse_margin("f1=10%")]
    assert gate(columns(f1=before), columns(f1=0.91 * before), margin, strict=True).passed
    assert not gate(columns(f1=before), columns(f1=0.89 * before), margin).passed


def test_strict_fails_what_may_be_worse_and_plain_does_not() -> None:
    one, other = columns(f1=answers(1, 0.6)), columns(f1=answers(2, 0.6))
    plain, strict = (gate(one, other, [Margin("f1", 0.01)], strict=strict) for strict in (False, True))
    assert plain.checks[0].state == strict.checks[0].state == "unsure"
    assert plain.passed
    assert not strict.passed
    assert "perhaps worse by more than the allowed 1.0 points" in strict.checks[0].reason
    assert gate(one, other, [Margin("f1", 0.3)], strict=True).passed


def test_a_fall_of_just_the_margin_is_allowed() -> None:
    assert gate(
        columns(f1=np.full(20, 0.8)), columns(f1=np.full(20, 0.78)), [Margin("f1", 0.02)], strict=True
    ).passed


@pytest.mark.parametrize("missing", ["baseline", "candidate"])
def test_a_metric_without_a_value_fails_the_gate(missing: str) -> None:
    held, empty = columns(f1=answers(1, 0.6)), columns(exact=answers(1, 0.6))
    one, other = (empty, held) if missing == "baseline" else (held, empty)
    verdict = gate(one, other, [Margin("f1", 1.0)])
    assert not verdict.passed
    assert verdict.checks[0].state == "no figure"
    assert verdict.checks[0].reason == f"F1 cannot be checked: the {missing} has no value."


def test_runs_that_share_no_case_with_a_figure_fail_the_gate() -> None:
    apart = gate(columns([0, 1], f1=[1, 1]), columns([2, 3], f1=[1, 1]), [Margin("f1", 1.0)])
    never = gate(
        columns(latency_p50=[0.1, np.nan]), columns(latency_p50=[np.nan, 0.1]), [Margin("latency_p50", 9.0)]
    )
    for verdict in (apart, never):
        assert not verdict.passed
        assert verdict.checks[0].reason.endswith("cannot be checked: no case has a value in both.")


def test_cases_without_a_latency_do_not_count() -> None:
    before, after = np.full(40, 0.2), np.full(40, 0.3)
    # The slowest of the baseline have none in the candidate: they must not count in the baseline alone.
    before[:5], before[5:9], after[5:9] = np.nan, 50.0, np.nan
    check = gate(columns(latency_p95=before), columns(latency_p95=after), [Margin("latency_p95", 0.01)]).checks[0]
    assert check.change is not None
    assert check.baseline is not None
    assert (check.baseline.value, check.change.value, check.change.n) == pytest.approx((0.2, 0.1, 31))
    assert check.reason.endswith("31 of the baseline's 35 cases.")


@pytest.mark.parametrize("metric", ["judge", "cost"])
def test_what_is_known_of_too_few_cases_is_not_checked(metric: str) -> None:
    """A judge fails where answers are bad, and a price may be unknown where they are long."""
    before, after = np.full(40, 3.0), np.full(40, 3.0)
    after[:5] = np.nan
    verdict = gate(columns(**{metric: before}), columns(**{metric: after}), [Margin(metric, 5.0)])
    assert not verdict.passed
    assert "only 35 of 40 answered cases" in verdict.checks[0].reason
    after[:1] = 3.0
    assert gate(columns(**{metric: before}), columns(**{metric: after}), [Margin(metric, 5.0)]).passed


def test_only_the_cases_of_both_are_compared() -> None:
    before = columns(f1=np.repeat([0.0, 1.0], 10))
    after = columns(np.arange(10, 30), f1=np.ones(20))
    check = gate(before, after, [Margin("f1", 0.0)]).checks[0]
    assert check.baseline is not None
    assert check.baseline.value == 1
    assert check.state == "not worse"
    assert "10 of the baseline's 20 cases" in check.reason


def test_few_cases_are_said_to_be_few() -> None:
    assert [least_cases(level) for level in (0.5, 0.95, 0.975)] == [2, 6, 7]
    five, six = (gate(columns(f1=[1] * n), columns(f1=[0] * n), [Margin("f1", 0.02)]).checks[0] for n in (5, 6))
    assert five.reason.endswith("5 cases, too few for a reliable interval.")
    assert six.reason.endswith("6 cases.")


@pytest.mark.parametrize(
    ("text", "margin"),
    [
        ("f1=0.02", Margin("f1", 0.02)),
        (" latency_p95 = 20 % ", Margin("latency_p95", 0.2, relative=True)),
        ("input_tokens=100", Margin("input_tokens", 100)),
        ("cost=0", Margin("cost", 0)),
        ("f1=150%", Margin("f1", 1.5, relative=True)),
    ],
)
def test_margins_are_read(text: str, margin: Margin) -> None:
    read = parse_margin(text)
    assert (read.metric, read.relative) == (margin.metric, margin.relative)
    assert read.margin == pytest.approx(margin.margin)


@pytest.mark.parametrize(
    "text", ["", "f1", "f1=", "=0.1", "f1=much", "f1=nan", "f1=inf", "f1=0.1=2", "f1=%", "f1=2%%"]
)
def test_a_malformed_margin_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        parse_margin(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f2=0.1", "metric 'f2' is unknown"),
        ("words=1", "metric 'words' has no preferred direction"),
        ("f1=-0.1", "0 or more"),
        ("f1=2", "f1=0.02"),
    ],
)
def test_an_invalid_margin_says_what_would_be_valid(text: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_margin(text)
    assert message in str(caught.value)


def test_an_unknown_metric_is_answered_with_those_that_have_a_direction() -> None:
    with pytest.raises(SettingsError) as caught:
        Margin("f2", 0.1)
    assert "f1" in caught.value.fix
    assert "latency_p95" in caught.value.fix
    assert "words" not in caught.value.fix


def test_a_gate_that_checks_nothing_or_the_same_twice_is_refused() -> None:
    held = columns(f1=[1, 0])
    with pytest.raises(SettingsError, match="at least one margin"):
        gate(held, held, [])
    with pytest.raises(SettingsError, match="several margins for f1"):
        gate(held, held, [Margin("f1", 0.1), Margin("f1", 0.2)])
    with pytest.raises(SettingsError, match="between 0 and 1"):
        gate(held, held, [Margin("f1", 0.1)], confidence=95)


VALUES = st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), min_size=2, max_size=30)
METRIC = st.sampled_from(["f1", "judge_errors"])


def pair(values: list[tuple[int, int]], metric: str) -> tuple[Columns, Columns]:
    one, other = np.array(values).T / 10
    return columns(**{metric: one}), columns(**{metric: other})


@given(values=VALUES, metric=METRIC, margin=st.sampled_from([0.0, 0.05, 0.2]))
def test_of_two_each_is_not_surely_worse_than_the_other(
    values: list[tuple[int, int]], metric: str, margin: float
) -> None:
    one, other = pair(values, metric)
    there, back = (
        gate(first, second, [Margin(metric, margin)]).checks[0] for first, second in ((one, other), (other, one))
    )
    assert (there.state, back.state) != ("worse", "worse")
    if there.state == "worse":
        assert back.state == "not worse"
    assert there.change is not None
    assert back.change is not None
    assert (there.change.low, there.change.high) == pytest.approx((-back.change.high, -back.change.low))


@given(
    values=VALUES,
    metric=METRIC,
    margins=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
    relative=st.booleans(),
    strict=st.booleans(),
)
def test_a_wider_margin_never_turns_a_pass_into_a_failure(
    values: list[tuple[int, int]], metric: str, margins: list[float], relative: bool, strict: bool
) -> None:
    one, other = pair(values, metric)
    narrow, wide = (
        gate(one, other, [Margin(metric, margin, relative)], strict=strict).passed for margin in margins
    )
    assert wide or not narrow


@given(values=VALUES, metric=METRIC, margin=st.floats(0, 1), relative=st.booleans())
def test_what_passes_the_strict_gate_passes_the_plain_one(
    values: list[tuple[int, int]], metric: str, margin: float, relative: bool
) -> None:
    one, other = pair(values, metric)
    strict, plain = (
        gate(one, other, [Margin(metric, margin, relative)], strict=strict).passed for strict in (True, False)
    )
    assert plain or not strict
