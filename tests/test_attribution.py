"""Attribution: who is named changed it, two that work only together are said to, and of noise nobody is blamed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rag.errors import EvaluationError, SettingsError
from rag.evaluation.attribution import Attribution, attribute
from rag.evaluation.case_attribution import CaseAttribution, attribute_cases
from rag.evaluation.factors import Factor, combinations, factors
from rag.evaluation.shapley import interactions_of, shapley_values
from rag.evaluation.summary import Columns
from rag.evaluation.variants import Variant

A = Variant(
    name="old", changes={"prompt": "answer@1", "retrieval.k": 5, "model": "embedded", "answer.style": "full"}
)
B = Variant(
    name="new", changes={"prompt": "answer@2", "retrieval.k": 8, "model": "generator", "answer.style": "full"}
)
ALL = factors(A, B)
PROMPT, RETRIEVAL, MODEL = ALL
TWO = (PROMPT, MODEL)


def columns(values: np.ndarray, weights: np.ndarray | None = None) -> list[Columns]:
    """F1 of each combination × case."""
    weighed = np.ones(values.shape) if weights is None else weights
    where = np.arange(values.shape[1])
    return [Columns(where, {"f1": row}, {"f1": each}, 0, 0) for row, each in zip(values, weighed, strict=True)]


def drawn(seed: int, right: Callable[[int], float], k: int, cases: int = 200) -> np.ndarray:
    """1 where an answer is right, drawn anew in every combination: ``right`` of its number, and harder cases."""
    chance = np.random.default_rng(seed)
    hard = chance.uniform(-0.2, 0.2, cases)
    return np.array([chance.random(cases) < right(number) + hard for number in range(1 << k)], np.float64)


def of(values: np.ndarray, some: Sequence[Factor] = TWO) -> Attribution:
    return attribute(columns(values), some, "f1")


def test_only_what_differs_is_a_factor() -> None:
    assert [factor.name for factor in ALL] == ["prompt", "retrieval", "model"]
    assert (PROMPT.a, PROMPT.b) == (
        {"prompt": "answer@1", "answer.style": "full"},
        {"prompt": "answer@2", "answer.style": "full"},
    )
    assert factors(A, A) == ()
    assert factors(A, A.model_copy(update={"name": "else"})) == ()


@pytest.mark.parametrize(
    ("setting", "factor"),
    [
        ("prompt", "prompt"),
        ("answer.citations", "prompt"),
        ("decoding.temperature", "prompt"),
        ("grounding.min_support", "prompt"),
        ("retrieval.reranker", "retrieval"),
        ("model", "model"),
        ("local.adapter", "model"),
        ("reader.adapter", "model"),
    ],
)
def test_each_setting_belongs_to_a_factor(setting: str, factor: str) -> None:
    found = factors(A, A.model_copy(update={"changes": {**A.changes, setting: "other"}}))
    assert [each.name for each in found] == [factor]


def test_combinations_are_counted_from_a_to_b() -> None:
    made = combinations(A, B)
    assert [each.name for each in made] == [
        "A",
        "prompt of B",
        "retrieval of B",
        "prompt and retrieval of B",
        "model of B",
        "prompt and model of B",
        "retrieval and model of B",
        "B",
    ]
    assert (made[0].changes, made[-1].changes) == (A.changes, B.changes)
    for number, each in enumerate(made):
        turned = [("prompt", 1), ("retrieval.k", 2), ("model", 4)]
        assert each.changes == A.changes | {name: B.changes[name] for name, bit in turned if number & bit}


def test_combinations_leave_out_what_is_the_same() -> None:
    other = A.model_copy(update={"changes": {**A.changes, "model": "generator"}})
    assert [each.name for each in combinations(A, other)] == ["A", "B"]
    assert len(combinations(A, other.model_copy(update={"changes": {"model": "generator"}}))) == 8
    with pytest.raises(SettingsError, match="same configuration"):
        combinations(A, A)


@pytest.mark.parametrize("culprit", range(3))
def test_the_one_factor_that_did_it_is_named_in_every_draw(culprit: int) -> None:
    for seed in range(30):
        found = of(drawn(seed, lambda number: 0.75 - 0.35 * (number >> culprit & 1), 3), ALL)
        assert ALL[culprit].name in found.responsible, found.verdict
        assert f"Responsible: {ALL[culprit].name} −" in found.verdict
        assert found.effects[culprit].effect.value == pytest.approx(-0.35, abs=0.1)


def test_innocent_factors_are_not_named_more_often_than_the_confidence_allows() -> None:
    named = sum(
        of(drawn(seed, lambda number: 0.75 - 0.35 * (number & 1), 3), ALL).responsible != ("prompt",)
        for seed in range(100)
    )
    # At most 5 of 100, and two standard deviations of that.
    assert named <= 9


def test_a_factor_that_works_against_the_change_is_told() -> None:
    found = of(drawn(5, lambda number: (0.5, 0.25, 0.7, 0.4)[number], 2, 1000))
    assert (found.responsible, found.opposing) == (("prompt",), ("model",))
    assert "Responsible: prompt −" in found.verdict
    assert "Against it: model +" in found.verdict


def test_parts_that_cancel_out_are_told_all_the_same() -> None:
    found = of(drawn(2, lambda number: (0.5, 0.2, 0.8, 0.5)[number], 2, 400))
    assert found.total.low < 0 < found.total.high
    assert all(effect.sure and effect.share is None for effect in found.effects)
    assert "The whole change may be chance, but not these parts: prompt −" in found.verdict


def test_two_that_work_only_together_are_said_to() -> None:
    for seed in range(30):
        found = of(drawn(seed, lambda number: 0.3 if number == 3 else 0.75, 2))
        assert found.responsible == ("prompt", "model"), found.verdict
        assert [each.kind for each in found.interactions] == ["together"]
        assert "Most of what prompt and model do comes only where they change together" in found.verdict


def test_of_three_factors_the_two_that_work_only_together_are_told() -> None:
    found = of(drawn(1, lambda number: 0.3 if number & 5 == 5 else 0.75, 3, 400), ALL)
    assert found.responsible == ("prompt", "model")
    assert {each.factors: each.kind for each in found.interactions}[("prompt", "model")] == "together"


def test_two_of_which_either_is_enough_are_said_to_be() -> None:
    found = of(drawn(1, lambda number: 0.3 if number else 0.75, 2, 400))
    assert [each.kind for each in found.interactions] == ["either"]
    assert "Either of prompt and model does most of it alone" in found.verdict


def test_factors_that_add_up_are_not_said_to_work_together() -> None:
    found = of(drawn(1, lambda number: 0.8 - 0.25 * number.bit_count(), 2, 400))
    assert found.responsible == ("prompt", "model")
    assert [each.kind for each in found.interactions] == ["none"]
    assert "together" not in found.verdict


def test_a_part_that_depends_on_another_is_told_and_is_not_said_to_need_it() -> None:
    found = of(drawn(1, lambda number: (0.8, 0.6, 0.6, 0.2)[number], 2, 2000))
    assert [each.kind for each in found.interactions] == ["depends"]
    assert "What prompt does depends on model: interaction −" in found.verdict


def test_the_interaction_of_three_that_need_each_other_is_shared_by_their_pairs() -> None:
    values = np.zeros((8, 1))
    values[7] = 1
    assert [float(column[0]) for column in interactions_of(values).values()] == [0.5, 0.5, 0.5]


@pytest.mark.slow
@pytest.mark.parametrize("some", [TWO, ALL])
def test_of_noise_it_says_that_it_cannot_tell(some: tuple[Factor, ...]) -> None:
    draws = 200
    told = sum(
        "Cannot tell which of" in of(drawn(seed, lambda _: 0.6, len(some), 150), some).verdict
        for seed in range(draws)
    )
    assert told >= 0.95 * draws


def test_without_any_difference_nobody_is_named() -> None:
    same = np.tile(np.random.default_rng(1).random(50), (4, 1))
    found = of(same)
    assert (found.responsible, found.opposing, found.total.value) == ((), (), 0)
    assert found.verdict.endswith("over 50 cases. All combinations give the same values.")
    assert list(attribute_cases(columns(same), TWO, "f1")) == []


def test_a_single_factor_takes_the_whole_change() -> None:
    values = drawn(4, lambda number: 0.8 - 0.5 * number, 1)
    found = attribute(columns(values), [MODEL], "f1")
    assert found.effects[0].effect == found.total
    assert (found.effects[0].share, found.responsible, found.interactions) == (1, ("model",), ())
    noise = attribute(columns(drawn(4, lambda _: 0.6, 1)), [MODEL], "f1")
    assert "Cannot tell whether the model changed it" in noise.verdict


def test_a_few_cases_prove_nothing() -> None:
    values = np.ones((2, 40))
    values[1, :5] = 0
    assert attribute(columns(values), [PROMPT], "f1").responsible == ()
    values[1, :8] = 0
    assert attribute(columns(values), [PROMPT], "f1").responsible == ("prompt",)


def test_only_cases_with_a_value_everywhere_count() -> None:
    values, weights = drawn(4, lambda number: 0.8 - 0.5 * (number & 1), 2, 40), np.ones((4, 40))
    values[0, 3], weights[0, 3] = np.nan, 0
    weights[2, 7] = 0
    weights[:, 11] = 0
    found = attribute(columns(values, weights), TWO, "f1")
    assert (found.n, found.left_out) == (37, 2)
    assert "some combinations only do not count: 2." in found.verdict
    assert not {3, 7, 11} & {each.position for each in attribute_cases(columns(values, weights), TWO, "f1")}


def test_cases_are_matched_by_their_position_and_values_by_their_weight() -> None:
    rows = [
        Columns(np.array([1, 2, 5]), {"f1": np.array([2.0, 1, 0])}, {"f1": np.array([2.0, 1, 1])}, 0, 0),
        Columns(np.array([0, 1, 5]), {"f1": np.array([0.0, 0, 3])}, {"f1": np.array([1.0, 1, 4])}, 0, 0),
    ]
    told = [(each.position, each.before, each.after) for each in attribute_cases(rows, [PROMPT], "f1")]
    assert told == [(1, 1, 0), (5, 0, 0.75)]


def test_what_cannot_be_attributed_is_refused() -> None:
    held = columns(np.ones((4, 3)))
    with pytest.raises(SettingsError, match="no mean over the cases"):
        attribute(held, TWO, "latency_p95")
    with pytest.raises(SettingsError, match="no measure 'f2'"):
        attribute(held, TWO, "f2")
    with pytest.raises(EvaluationError, match="No case has a value of exact"):
        attribute(held, TWO, "exact")
    with pytest.raises(EvaluationError, match="No case has a value of f1"):
        attribute([*held[:3], held[0].of(np.zeros(3, bool))], TWO, "f1")
    for wrong in (held[:3], []):
        with pytest.raises(ValueError, match="combinations"):
            attribute(wrong, TWO, "f1")
    with pytest.raises(ValueError, match="combinations"):
        attribute(held[:1], [], "f1")


VALUES = st.integers(1, 3).flatmap(
    lambda k: arrays(np.float64, st.tuples(st.just(1 << k), st.integers(1, 12)), elements=st.integers(0, 10))
)


@given(values=VALUES)
def test_the_parts_add_up_to_the_whole(values: np.ndarray) -> None:
    some = ALL[: len(values).bit_length() - 1]
    found = of(values / 10, some)
    assert sum(effect.effect.value for effect in found.effects) == pytest.approx(found.total.value)
    for each in attribute_cases(columns(values / 10), some, "f1"):
        assert sum(each.effects.values()) == pytest.approx(each.after - each.before)


@given(values=VALUES)
def test_a_part_is_the_mean_gain_over_all_orders(values: np.ndarray) -> None:
    k = len(values).bit_length() - 1
    orders = list(permutations(range(k)))
    for factor, part in enumerate(shapley_values(values)):
        gains = np.zeros(values.shape[1])
        for order in orders:
            before = sum(1 << each for each in order[: order.index(factor)])
            gains += values[before | 1 << factor] - values[before]
        assert part == pytest.approx(gains / len(orders))


@given(values=VALUES)
def test_factors_that_add_up_do_not_interact(values: np.ndarray) -> None:
    k = len(values).bit_length() - 1
    added = np.array(
        [sum((values[1 << i] for i in range(k) if number >> i & 1), values[0]) for number in range(1 << k)]
    )
    for column in interactions_of(added).values():
        assert column == pytest.approx(np.zeros(values.shape[1]))


def case(*values: float) -> CaseAttribution:
    """A case with these values in the combinations."""
    some = TWO if len(values) == 4 else ALL
    (found,) = attribute_cases(columns(np.array(values)[:, None]), some, "f1")
    return found


@pytest.mark.parametrize(
    ("values", "cause", "sure"),
    [
        ((1, 0, 1, 0), "prompt", True),
        ((0, 0, 1, 1), "model", True),
        ((1, 1, 1, 0), "prompt and model together", True),
        ((1, 0, 0, 0), "prompt or model", True),
        ((0.9, 0.2, 1.0, 0.2), "prompt", True),
        # Each adds a part, whatever the other is.
        ((0.2, 0.5, 0.5, 0.8), "prompt and model together", True),
        ((1.0, 0.4, 0.6, 0.0), "prompt and model together", True),
        ((1, 0, 1, 0, 1, 0, 1, 0), "prompt", True),
        ((1, 1, 1, 1, 1, 0, 1, 0), "prompt and model together", True),
        ((1, 1, 1, 1, 1, 1, 1, 0), "prompt, retrieval and model together", True),
        # The prompt in three of the four settings of the others.
        ((1, 0, 1, 0, 0, 0, 1, 0), "prompt", False),
        # Any two of the three.
        ((1, 1, 1, 0, 1, 0, 0, 0), "cannot tell", False),
        ((1, 0, 0, 1, 0, 1, 1, 0), "cannot tell", False),
    ],
)
def test_the_cause_of_a_case_is_what_all_its_answers_show(
    values: tuple[float, ...], cause: str, sure: bool
) -> None:
    found = case(*values)
    assert (found.cause, found.sure) == (cause, sure)


def test_a_case_tells_how_many_settings_agree() -> None:
    found = case(1, 0, 1, 0, 0, 0, 1, 0)
    assert (found.before, found.after) == (1, 0)
    assert found.agreement == {"prompt": (3, 4), "retrieval": (0, 4), "model": (1, 4)}
    assert found.effects == pytest.approx({"prompt": -5 / 6, "retrieval": 1 / 6, "model": -1 / 3})


@given(values=arrays(np.float64, st.tuples(st.sampled_from([4, 8]), st.just(6)), elements=st.integers(0, 2)))
def test_what_is_said_of_a_case_does_not_depend_on_the_way_it_went(values: np.ndarray) -> None:
    some = TWO if len(values) == 4 else ALL
    there, back = (list(attribute_cases(columns(each), some, "f1")) for each in (values, 2 - values))
    assert [each.position for each in there] == list(np.nonzero(values[0] != values[-1])[0])
    for one, other in zip(there, back, strict=True):
        assert (one.cause, one.sure, one.agreement) == (other.cause, other.sure, other.agreement)
        assert list(one.effects.values()) == pytest.approx([-each for each in other.effects.values()])
