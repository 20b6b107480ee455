"""The answers of all variants beside their case, and why a case needs a look."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_cells import case, cell

from rag.evaluation.case_answers import Answered, Kind, kind_of, side_by_side
from rag.evaluation.run_store import Score


@pytest.mark.parametrize(
    ("cells", "asked", "kind"),
    [
        ([cell(0, 0), None], {}, Kind.REST),
        ([cell(0, 0), cell(1, 0, 0.0)], {}, Kind.SPLIT),
        ([cell(0, 0), cell(1, 0, answer="Yes")], {}, Kind.DIFFERENT),
        ([cell(0, 0), cell(1, 0, scores={"contains": Score(1.0)})], {}, Kind.DIFFERENT),
        ([cell(0, 0), cell(1, 0, latency_s=9.0)], {}, Kind.REST),
        ([cell(0, 0), replace(cell(1, 0), status="cancelled")], {}, Kind.FAILED),
        ([cell(0, 0, 0.0), cell(1, 0, 0.0)], {}, Kind.WRONG),
        ([cell(0, 0, scores={}), cell(1, 0, scores={})], {"answers": ()}, Kind.REST),
        # Of a question to refuse only a refusal is right, whatever words were found in it.
        (
            [cell(0, 0, scores={"refusal_recall": Score(0.0), "contains": Score(1.0)})],
            {"answers": (), "must_refuse": True},
            Kind.WRONG,
        ),
    ],
)
def test_why_a_case_needs_a_look(cells: Any, asked: Any, kind: Kind) -> None:
    assert kind_of(Answered(0, case(0, **asked), tuple(cells))) is kind


@given(st.lists(st.sets(st.integers(0, 12)), min_size=1, max_size=4), st.integers(0, 12))
def test_every_answer_stands_beside_its_own_case(there: list[set[int]], size: int) -> None:
    cases = [case(number) for number in range(size)]
    found = list(
        side_by_side(cases, lambda number: (cell(number, each) for each in sorted(there[number])), len(there))
    )
    assert [each.case for each in found] == cases
    for answered in found:
        known = [each and (each.variant, each.position) for each in answered.cells]
        expected = [
            (number, answered.position) if answered.position in positions else None
            for number, positions in enumerate(there)
        ]
        assert known == expected
