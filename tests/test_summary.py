"""The table of a run: what each way comes to, how it differs from the first, and what cannot be told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.database import open_database
from rag.evaluation.metric_definitions import BY_NAME, METRICS
from rag.evaluation.metric_formatting import (
    format_change,
    format_figure,
    format_interval,
    format_metric,
    is_better,
)
from rag.evaluation.run_store import PAGE, Cell, Plan, Run, RunStore, Score, by_case
from rag.evaluation.statistics import Estimate
from rag.evaluation.summary import Columns, Summary, change, read_columns, summarise
from rag.evaluation.variants import Variant
from rag.workspace import Workspace

Keep = Callable[..., tuple[RunStore, Run]]


@pytest.fixture
def keep(workspace: Workspace) -> Keep:
    """Keeps a run with these cells, those of each variant in a list of its own."""
    store = RunStore(open_database(workspace))

    def kept(*variants: Sequence[Cell]) -> tuple[RunStore, Run]:
        names = tuple(
            Variant(name=f"v{number}", changes={"retrieval.k": number + 1}) for number in range(len(variants))
        )
        plan = Plan(variants=names, states=tuple(each.name for each in names), corpus="c")
        run = store.begin(plan, name="n", dataset="d", version=1, sha256="0" * 64)
        cells = [cell for each in variants for cell in each]
        for at in range(0, len(cells), 200):
            store.keep(run.id, cells[at : at + 200])
        return store, run

    return kept


def cell(variant: int, position: int, /, latency_s: float | None = 1.0, **told: Any) -> Cell:
    """A cell; what is neither one of its fields nor a weight is a score of weight 1."""
    fields = {name: told.pop(name) for name in ("status", "cost_usd", "input_tokens", "cached") if name in told}
    scores = {name: value if isinstance(value, Score) else Score(value) for name, value in told.items()}
    return Cell(variant, position, fields.pop("status", "answered"), scores=scores, latency_s=latency_s, **fields)


def table(kept: tuple[RunStore, Run], size: int = 10, baseline: int = 0) -> Summary:
    return summarise(*kept, size, baseline)


def test_a_mean_is_over_the_cases_of_which_a_measure_says_something(keep: Keep) -> None:
    one = [
        cell(0, 0, f1=0.5, recall=1.0, refusal_precision=Score(0, 0)),
        cell(0, 1, f1=1.0, refusal_precision=Score(1, 1)),
        cell(0, 2, f1=0.0, refusal_precision=Score(0, 1)),
    ]
    figures = table(keep(one)).variants[0].figures
    values = {name: (each.estimate.value, each.estimate.n) for name, each in figures.items() if each.estimate}
    assert values["f1"] == (0.5, 3)
    assert values["recall"] == (1.0, 1)
    assert values["refusal_precision"] == (0.5, 2)
    assert "ndcg" not in figures
    assert figures["f1"].change is None


def test_measures_stand_in_their_usual_order_and_only_those_that_somebody_has(keep: Keep) -> None:
    summary = table(
        keep([cell(0, 0, words=5, latency_s=None)], [cell(1, 0, recall=1.0, exact=0.0, latency_s=None)])
    )
    assert [metric.name for metric in summary.metrics] == ["recall", "exact", "words"]
    assert [set(each.figures) for each in summary.variants] == [{"words"}, {"recall", "exact"}]
    # What one of the two lacks cannot be compared.
    assert summary.variants[1].figures["exact"].change is None


def test_a_change_is_how_much_larger_it_is_than_the_baseline(keep: Keep) -> None:
    chance = np.random.default_rng(0)
    base = chance.uniform(0.2, 0.8, 60)
    kept = keep(
        [cell(0, at, f1=value, latency_s=1 + value) for at, value in enumerate(base)],
        [cell(1, at, f1=value + 0.1, latency_s=0.5 + value) for at, value in enumerate(base)],
        [cell(2, at, f1=value - 0.2 * (at % 2), latency_s=1 + value) for at, value in enumerate(base)],
    )
    summary = table(kept, 60)
    better_one, worse, first = (
        summary.variants[1].figures,
        summary.variants[2].figures,
        summary.variants[0].figures,
    )
    gained = better_one["f1"].change
    assert gained is not None
    # The same gain in every case: paired, there is no doubt of it, however much the cases differ.
    assert (gained.value, gained.low, gained.high, gained.n) == pytest.approx((0.1, 0.1, 0.1, 60))
    assert first["f1"].estimate is not None
    assert first["f1"].estimate.high - first["f1"].estimate.low > 0.05
    lost = worse["f1"].change
    assert lost is not None
    assert lost.value == pytest.approx(-0.1)
    assert lost.low < lost.value < lost.high < 0
    faster = better_one["latency_p50"].change
    assert faster is not None
    assert faster.value == pytest.approx(-0.5)
    assert (is_better(BY_NAME["f1"], gained), is_better(BY_NAME["f1"], lost)) == (True, False)
    assert is_better(BY_NAME["latency_p50"], faster) is True

    turned = table(kept, 60, baseline=1)
    back = turned.variants[0].figures["f1"].change
    assert (turned.baseline, turned.variants[1].figures["f1"].change) == (1, None)
    assert back is not None
    assert back.value == pytest.approx(-0.1)


def test_a_change_rests_on_the_cases_that_both_have(keep: Keep) -> None:
    store, run = keep(
        [cell(0, 0, f1=1.0), cell(0, 1, f1=0.0), cell(0, 2, f1=0.0)],
        [cell(1, 1, f1=0.5), cell(1, 2, f1=1.0), cell(1, 7, f1=0.0)],
    )
    one, other = read_columns(store, run, 0), read_columns(store, run, 1)
    found = change(one, other, BY_NAME["f1"])
    assert found is not None
    assert (found.value, found.n) == (0.75, 2)
    assert list(other.positions) == [1, 2, 7]


def test_two_ways_without_a_common_case_do_not_compare(keep: Keep) -> None:
    figures = table(keep([cell(0, 0, f1=1.0)], [cell(1, 1, f1=0.0)])).variants[1].figures
    assert figures["f1"].estimate is not None
    assert (figures["f1"].change, figures["latency_p95"].change) == (None, None)


def test_an_unfinished_run_is_told_as_far_as_it_is(keep: Keep) -> None:
    summary = table(keep([cell(0, 0, f1=1.0), cell(0, 1, f1=0.0)], [cell(1, 0, f1=1.0)], []), 100)
    assert (summary.size, [each.done for each in summary.variants]) == (100, [2, 1, 0])
    assert summary.variants[2].figures == {}
    assert summary.variants[1].figures["f1"].change is not None
    assert [dict(each.changes) for each in summary.variants] == [{"retrieval.k": each} for each in (1, 2, 3)]


def test_a_run_without_any_answer_has_an_empty_table(keep: Keep) -> None:
    summary = table(keep([], []))
    assert summary.metrics == ()
    assert [(each.done, each.cached, each.failed, each.figures) for each in summary.variants] == [
        (0, 0, 0, {})
    ] * 2


def test_a_baseline_without_figures_leaves_the_others_theirs(keep: Keep) -> None:
    failed = cell(0, 0, status="failed", latency_s=9.0, failed=1.0)
    figures = table(keep([failed], [cell(1, 0, f1=0.5, failed=0.0)])).variants[1].figures
    assert figures["f1"].estimate is not None
    assert (figures["f1"].change, figures["latency_p50"].change) == (None, None)
    assert figures["failed"].change is not None
    assert figures["failed"].change.value == -1.0


def test_a_failure_says_nothing_of_time_and_cost(keep: Keep) -> None:
    cells = [
        cell(0, 0, latency_s=1.0, cost_usd=0.5, input_tokens=10),
        cell(0, 1, latency_s=3.0, cost_usd=None, input_tokens=None),
        cell(0, 2, status="failed", latency_s=60.0, cost_usd=7.0, input_tokens=900),
        cell(0, 3, status="abstained", latency_s=None, cached=True, cost_usd=0.0),
    ]
    shown = table(keep(cells)).variants[0]
    assert (shown.done, shown.cached, shown.failed) == (4, 1, 1)
    values = {
        name: (each.estimate.value, each.estimate.n) for name, each in shown.figures.items() if each.estimate
    }
    assert values["latency_p50"] == (2.0, 2)
    assert values["latency_p95"] == pytest.approx((2.9, 2))
    # A cost that nobody knows is left out, and is not 0.
    assert values["cost"] == (0.25, 2)
    assert values["input_tokens"] == (10.0, 1)
    assert "output_tokens" not in shown.figures


def test_an_answer_from_the_cache_costs_what_it_cost(keep: Keep) -> None:
    cells = [
        cell(0, 0, cost_usd=0.5, cached=True),
        cell(0, 1, cost_usd=0.25, cached=True),
        cell(0, 2, cost_usd=0.3),
        *(cell(1, at, cost_usd=None, cached=True) for at in range(3)),
        *(cell(2, at, cost_usd=0.5) for at in range(3)),
    ]
    shown = table(keep(cells, [], []), 3).variants
    cost = shown[0].figures["cost"].estimate
    assert cost is not None
    assert (cost.value, cost.n) == (pytest.approx(0.35), 3)
    assert [each.saved_usd for each in shown] == [0.75, None, None]
    assert "cost" not in shown[1].figures


def test_an_older_run_knows_nothing_of_the_cost_of_its_cache(keep: Keep) -> None:
    store, run = keep([cell(0, 0, cost_usd=0.0, cached=True), cell(0, 1, cost_usd=0.5)])
    older = replace(run, plan=run.plan.model_copy(update={"scoring": 1}))
    shown = summarise(store, older, 2).variants[0]
    cost = shown.figures["cost"].estimate
    assert cost is not None
    assert (cost.value, cost.n, shown.saved_usd) == (0.5, 1, None)


def test_points_are_compared_over_the_cases_that_were_judged_on_both_sides(keep: Keep) -> None:
    def points(variant: int, at: int, given: float | None) -> Cell:
        return (
            cell(variant, at, judge_errors=1.0)
            if given is None
            else cell(variant, at, judge=given, judge_errors=0.0)
        )

    one, other = [1.0, 2.0, 5.0, 4.0], [None, 3.0, 5.0, None]
    summary = table(
        keep(
            [points(0, at, each) for at, each in enumerate(one)],
            [points(1, at, each) for at, each in enumerate(other)],
        )
    )
    base, candidate = (each.figures["judge"] for each in summary.variants)
    assert (base.of, candidate.of) == (None, 4)
    assert format_figure(BY_NAME["judge"], candidate) == "4.00 (2 of 4)"
    assert format_figure(BY_NAME["judge"], base) == "3.00"
    assert candidate.change is not None
    # 2 and 5 became 3 and 5; the means of all points rose from 3 to 4.
    assert (candidate.change.value, candidate.change.n) == (0.5, 2)


@given(seconds=st.lists(st.floats(0.001, 100), min_size=1, max_size=30))
def test_quantiles_are_those_of_numpy(seconds: list[float]) -> None:
    names = ("latency_p50", "latency_p95")
    columns = Columns(
        np.arange(len(seconds)),
        {name: np.array(seconds) for name in names},
        {name: np.ones(len(seconds)) for name in names},
        0,
        0,
    )
    for name, q in zip(names, (0.5, 0.95), strict=True):
        estimate = columns.estimate(BY_NAME[name])
        assert estimate is not None
        assert estimate.value == pytest.approx(float(np.quantile(seconds, q)))
        assert min(seconds) <= estimate.low <= estimate.high <= max(seconds)


def test_more_cells_than_are_read_at_once_are_all_read(keep: Keep) -> None:
    count = PAGE * 2 + 1
    store, run = keep([cell(0, at * 2, f1=at % 2) for at in range(count)], [])
    columns = read_columns(store, run, 0)
    assert list(columns.positions) == list(range(0, 2 * count, 2))
    assert columns.numerators["f1"].sum() == count // 2
    assert [each.position for each in store.cells(run.id, 0)] == list(columns.positions)


# Side by side


@given(held=st.lists(st.sets(st.integers(0, 12)), max_size=4))
def test_cells_are_laid_side_by_side_by_their_case(held: list[set[int]]) -> None:
    variants = [
        [Cell(number, at, "answered") for at in sorted(positions)] for number, positions in enumerate(held)
    ]
    rows = list(by_case([iter(each) for each in variants]))
    assert [position for position, _ in rows] == sorted(set().union(*held))
    for position, row in rows:
        assert [each is not None for each in row] == [position in positions for positions in held]
        assert all(each.variant == number and each.position == position for number, each in enumerate(row) if each)


def test_one_cell_of_each_is_held_at_a_time() -> None:
    drawn = [0, 0]

    def cells(variant: int) -> Any:
        for at in range(100):
            drawn[variant] += 1
            yield Cell(variant, at, "answered")

    rows = by_case([cells(0), cells(1)])
    for _ in range(10):
        next(rows)
    assert max(drawn) <= 11


# As a person reads it


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("f1", 0.8123, "81.2 %"),
        ("latency_p50", 0.0854, "85 ms"),
        ("latency_p95", 1.239, "1.24 s"),
        ("latency_p95", 12.31, "12.3 s"),
        ("words", 38.46, "38.5"),
        ("input_tokens", 12345.6, "12,346"),
        ("cost", 0.0012345, "$0.0012"),
        ("cost", 12.345, "$12.35"),
        ("cost", 0.0, "$0"),
        ("judge", 4.256, "4.26"),
        ("f1", None, "–"),
    ],
)
def test_a_figure_is_told_in_its_unit(name: str, value: float | None, text: str) -> None:
    assert format_metric(BY_NAME[name], value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.021, "+2.1 points"), (-0.021, "−2.1 points"), (0.0, "±0.0 points")]
)
def test_a_change_is_told_with_its_sign(value: float, text: str) -> None:
    estimate = Estimate(value, value - 0.01, value + 0.01, 5)
    assert format_change(BY_NAME["f1"], estimate) == text
    assert format_change(BY_NAME["f1"], None) == format_interval(BY_NAME["f1"], None) == ""
    assert format_interval(BY_NAME["f1"], Estimate(0.5, 0.4, 0.6, 5)) == "40.0 % to 60.0 %"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.01, 0.02, True), (-0.02, -0.01, False), (-0.01, 0.01, None), (0.0, 0.01, None), (-0.01, 0.0, None)],
)
def test_a_change_is_better_or_worse_only_where_that_is_sure(
    low: float, high: float, expected: bool | None
) -> None:
    estimate = Estimate((low + high) / 2, low, high, 5)
    assert is_better(BY_NAME["f1"], estimate) is expected
    turned = None if expected is None else not expected
    assert is_better(BY_NAME["cost"], estimate) is turned
    # Longer is neither.
    assert is_better(BY_NAME["words"], estimate) is None


@given(value=st.floats(-1e6, 1e6), metric=st.sampled_from(METRICS))
def test_any_figure_is_shown_on_one_line_without_an_exponent(value: float, metric: Any) -> None:
    text = format_metric(metric, value)
    assert text
    assert "\n" not in text
    assert "e" not in text.lower()
