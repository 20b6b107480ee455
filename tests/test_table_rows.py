"""A question that names a row of a table is answered from that row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from evidence_samples import evidence_of, lexical_at

from rag.documents.table_rows import asked_rows, is_looked_up, row_of
from rag.models.extractive.sentence_ranking import SentenceRanking

if TYPE_CHECKING:
    from rag.encoders import Encoder

ROWS = (
    "Guest: Ada Lind; Room: 12; Meal: fish",
    "Guest: Ada Lindgren; Room: 14; Meal: soup; Friend: Bo Ek",
    "Guest: Bo Ek; Room: 15",
    "The inn has rooms for guests; all of them: heated.",
)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Which room does Bo Ek have?", {2}),
        ("Which room has Ada Lindgren?", {1}),
        ("What do Ada Lind and Bo Ek eat?", {0, 2}),
        ("Which rooms are heated?", set()),
        ("", set()),
    ],
)
def test_a_row_is_asked_about_if_the_question_contains_its_first_cell(question: str, expected: set[int]) -> None:
    assert asked_rows(question, [row_of(row) for row in ROWS]) == expected


def test_the_line_above_a_group_and_a_cell_without_a_name_are_keys() -> None:
    rows = [row_of("North pier; Berth: A1; Rent: 9"), row_of("South; 2023: 4; 2024: 5")]
    assert asked_rows("What is the rent of berth A1?", rows) == {0}
    assert asked_rows("How much was it on the north pier?", rows) == {0}
    assert asked_rows("How deep was the south basin in 2023?", rows) == {1}


def test_a_code_in_another_cell_is_a_key_if_no_first_cell_is_named() -> None:
    rows = [
        row_of("Zone: East; Spot: E1; Fee: 12"),
        row_of("Zone: East; Spot: E2; Fee: 9"),
        row_of("Zone: West; Fee: 3"),
    ]
    assert asked_rows("What is the fee of spot E2?", rows) == {1}
    assert asked_rows("What is the fee of E2 in the zone west?", rows) == {2}


def test_articles_and_prose_are_no_keys() -> None:
    assert asked_rows("What is a room?", [row_of("Class: A; Room: 3")]) == set()
    assert row_of("It rained; we left.") is None
    assert row_of("One column: value") is None


def test_a_value_is_looked_up_by_the_name_of_its_column() -> None:
    row = row_of(ROWS[2])
    assert row is not None
    assert is_looked_up("Which room does Bo Ek have?", row)
    assert not is_looked_up("Which meal does Bo Ek have?", row)


def test_the_row_that_is_asked_about_is_quoted_and_no_other(encoder: Encoder, tmp_path: Path) -> None:
    names = ("Ada", "Bo", "Cilla", "Dag", "Ivar", "Jon")
    text = "\n\n".join(f"Guest: {name} Holm; Room: {at}; Friend: Ivar Holm" for at, name in enumerate(names, 40))
    ranking = SentenceRanking(encoder, lexical_at(tmp_path))
    ranked = ranking.rank(evidence_of(encoder, "Which room does Ivar Holm have?", [text]))
    assert [one.sentence.text for one in ranked] == ["Guest: Ivar Holm; Room: 44; Friend: Ivar Holm"]
    assert ranking.confidence(ranked) > 0.8
