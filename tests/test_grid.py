"""The grid of a run and the comparison of two: which rows fit, in which order, and what is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_cells import case, cell, failed
from sqlalchemy import Engine

from rag.errors import EvaluationError
from rag.evaluation.case_answers import outcome
from rag.evaluation.cases import Case
from rag.evaluation.compare import Side, compare
from rag.evaluation.dataset_store import DatasetStore
from rag.evaluation.grid import Grid
from rag.evaluation.metric_definitions import BY_NAME
from rag.evaluation.run_store import Cell, Plan, RunStore, Score, by_case
from rag.evaluation.summary import change
from rag.evaluation.variants import Variant


def made(engine: Engine, cases: Sequence[Case], cells: Sequence[Cell], name: str = "faq", **plan: object) -> Side:
    """A finished run over a dataset of these cases with these answers."""
    version = DatasetStore(engine).save(name, cases, by="a test", message="")
    variants = max((each.variant for each in cells), default=0) + 1
    held = Plan(
        variants=tuple(Variant(name=f"v{number}") for number in range(variants)),
        states=("",) * variants,
        corpus="notes",
    ).model_copy(update=plan)
    store = RunStore(engine)
    run = store.begin(held, name="a run", dataset=name, version=version.version, sha256=version.sha256)
    store.keep(run.id, cells)
    store.end(run.id, "finished")
    return Side(store.get(run.id), 0, version)


def grid_of(engine: Engine, side: Side) -> Grid:
    return Grid(RunStore(engine), DatasetStore(engine), side.run, side.version)


@pytest.fixture
def side(engine: Engine) -> Side:
    """Five cases: right in both, wrong in one, failed in one, equally wrong in both, not answered yet."""
    cases = [case(number) for number in range(5)]
    cells = [
        cell(0, 0),
        cell(1, 0),
        cell(0, 1),
        cell(1, 1, 0.0, answer="Nobody knows the Ärmelkanal"),
        cell(0, 2),
        failed(1, 2),
        cell(0, 3, 0.0),
        cell(1, 3, 0.0),
    ]
    return made(engine, cases, cells)


@pytest.mark.parametrize(
    ("show", "search", "positions"),
    [
        ("all", "", [0, 1, 2, 3, 4]),
        ("failures", "", [1, 2, 3]),
        ("different", "", [1, 2]),
        ("errors", "", [2]),
        ("all", "question 3", [3]),
        ("all", "ÄRMELKANAL", [1]),
        ("all", "no connection", [2]),
        ("failures", "yes", [1, 2, 3]),
        ("errors", "ärmelkanal", []),
        ("all", "  ", [0, 1, 2, 3, 4]),
    ],
)
def test_the_rows_that_fit_are_shown(
    engine: Engine, side: Side, show: str, search: str, positions: list[int]
) -> None:
    page = grid_of(engine, side).page(0, 10, show=show, search=search)  # type: ignore[arg-type]
    assert [row.position for row in page.rows] == positions
    assert page.total == len(positions)


def test_pages_follow_each_other_without_a_gap(engine: Engine, side: Side) -> None:
    grid = grid_of(engine, side)
    pages = [grid.page(start, 2, show="failures") for start in (0, 2, 4)]
    assert [[row.position for row in page.rows] for page in pages] == [[1, 2], [3], []]
    assert {page.total for page in pages} == {3}


def test_a_row_has_its_case_and_the_whole_answers(engine: Engine, side: Side) -> None:
    row = grid_of(engine, side).row(2)
    assert row.case.question == "Question 2?"
    assert [each and each.status for each in row.cells] == ["answered", "failed"]
    assert grid_of(engine, side).row(4).cells == (None, None)


@pytest.mark.parametrize(
    ("given_cell", "expected"),
    [
        (cell(0, 0), "right"),
        (cell(0, 0, 0.0), "wrong"),
        (failed(0, 0), "failed"),
        (cell(0, 0, status="cancelled"), "failed"),
        (cell(0, 0, 0.0, status="abstained"), "refused"),
        (cell(0, 0, scores={}), "unknown"),
        (cell(0, 0, scores={"judge": Score(4), "contains": Score(0)}), "right"),
        (cell(0, 0, scores={"judge": Score(3), "contains": Score(1)}), "wrong"),
        (cell(0, 0, status="abstained", scores={"refusal_recall": Score(1)}), "right"),
        (cell(0, 0, scores={"refusal_recall": Score(0), "contains": Score(1)}), "wrong"),
    ],
)
def test_what_became_of_an_answer_in_one_word(given_cell: Cell, expected: str) -> None:
    assert outcome(given_cell) == expected


@given(st.lists(st.sets(st.integers(0, 9)), min_size=1, max_size=4))
def test_answers_stand_side_by_side_by_case(there: list[set[int]]) -> None:
    rows = dict(by_case([iter(cell(n, at) for at in sorted(each)) for n, each in enumerate(there)]))
    assert sorted(rows) == sorted(set().union(*there))
    for position, row in rows.items():
        assert [each is not None for each in row] == [position in each for each in there]


# Two runs


def test_runs_over_the_same_cases_compare_without_a_word_of_warning(engine: Engine) -> None:
    cases = [case(number) for number in range(6)]
    one = made(engine, cases, [cell(0, number, 0.0) for number in range(6)])
    other = made(engine, cases, [cell(0, number) for number in range(6)])
    found = compare(RunStore(engine), DatasetStore(engine), one, other)
    moved = change(found.one, found.other, BY_NAME["contains"])
    assert found.notes == ()
    assert moved is not None
    assert (moved.value, moved.n) == (1.0, 6)


def test_of_two_datasets_the_common_cases_count_wherever_they_stand(engine: Engine) -> None:
    cases = [case(number) for number in range(6)]
    one = made(engine, cases, [cell(0, at, float(at % 2)) for at in range(6)])
    shuffled = [case(9), cases[4], cases[1], cases[3]]
    right = [1.0, 0.0, 1.0, 1.0]
    other = made(engine, shuffled, [cell(0, at, right[at]) for at in range(4)], name="other")
    found = compare(RunStore(engine), DatasetStore(engine), one, other)
    assert list(found.other.positions) == [1, 3, 4]
    assert list(found.other.numerators["contains"]) == [1.0, 1.0, 0.0]
    moved = change(found.one, found.other, BY_NAME["contains"])
    assert moved is not None
    assert (moved.value, moved.n) == (0.0, 3)
    assert "faq@1 and other@1" in found.notes[0]


def test_other_scorers_judges_and_corpora_are_told(engine: Engine) -> None:
    cases = [case(0)]
    one = made(engine, cases, [cell(0, 0)])
    other = made(engine, cases, [cell(0, 0)], scoring=0, judged_by="openai:x judge-answer@1", corpus="wiki")
    notes = compare(RunStore(engine), DatasetStore(engine), one, other).notes
    assert [note.split(":")[0].split(" ")[2] for note in notes] == ["were", "had", "use"]


def test_a_run_that_has_not_finished_is_told(engine: Engine) -> None:
    one, other = (made(engine, [case(0)], [cell(0, 0)]) for _ in range(2))
    half = replace(other, run=replace(other.run, status="stopped"))
    assert compare(RunStore(engine), DatasetStore(engine), one, half).notes == (f"Not finished: {other.run.id}.",)


def test_runs_without_a_common_case_do_not_compare(engine: Engine) -> None:
    one = made(engine, [case(0)], [cell(0, 0)])
    other = made(engine, [case(1)], [cell(0, 0)], name="other")
    with pytest.raises(EvaluationError, match="no answered case in common"):
        compare(RunStore(engine), DatasetStore(engine), one, other)


def test_a_run_of_which_the_store_knows_nothing_is_named(engine: Engine, side: Side) -> None:
    store = RunStore(engine)
    assert store.get(side.run.id[:6]).id == side.run.id
    with pytest.raises(EvaluationError, match="There is no run 'abc'"):
        store.get("abc")


def test_columns_may_be_taken_by_mask_and_by_number(engine: Engine) -> None:
    cases, cells = [case(at) for at in range(4)], [cell(0, at, float(at > 1)) for at in range(4)]
    one, other = (made(engine, cases, cells) for _ in range(2))
    columns = compare(RunStore(engine), DatasetStore(engine), one, other).one
    by_mask = columns.of(np.array([False, True, False, True]))
    assert (
        list(by_mask.numerators["contains"]) == list(columns.of(np.array([1, 3])).numerators["contains"]) == [0, 1]
    )


def test_a_run_is_listed_and_deleted_with_its_answers(engine: Engine, side: Side) -> None:
    store = RunStore(engine)
    assert [run.id for run in store.list()] == [side.run.id]
    assert store.count(side.run.id) == 7
    store.delete(side.run.id)
    assert store.list() == ()
    assert store.count(side.run.id) == 0
