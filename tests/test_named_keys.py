"""Sentences about the key that a question names, among records that are alike in everything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.documents.keys import keys_in
from rag.documents.sentences import split_sentences
from rag.models.extractive.evidence import EvidencePassage
from rag.models.extractive.named_keys import about_keys


def passage(text: str, number: int = 1, title: str = "Alarms", headings: tuple[str, ...] = ()) -> EvidencePassage:
    return EvidencePassage(number, text, title, headings, 0.5)


def texts(question: str, *passages: EvidencePassage) -> list[str] | None:
    """The sentences that may answer, or None for all."""
    allowed = about_keys(question, passages)
    if allowed is None:
        return None
    return [
        sentence.text
        for one in passages
        for sentence in split_sentences(one.text)
        if (one.number, sentence.start) in allowed and not sentence.heading
    ]


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("What does alarm A-17 mean?", {"a-17"}),
        ("Is 0x80070005 or ERR_DISK worse?", {"0x80070005", "err_disk"}),
        ("What came with 4.10.2, and when?", {"4.10.2"}),
        ("The total of invoice 2024-1180?", {"2024-1180"}),
        ("What is upload.max_size?", {"upload.max_size"}),
        ("How do C++ and C# differ?", {"c++", "c#"}),
        ("What was the loss of 3.5 million in 2019?", set()),
        ("Did FY2018 or Q22023 pay more than Q1?", set()),
        ("Who, e.g. in the U.S., pays 40 francs?", set()),
    ],
)
def test_codes_versions_and_names_are_keys_and_numbers_are_not(text: str, keys: set[str]) -> None:
    assert keys_in(text) == keys


HEADED = "## Alarm A-16\n\nOpen the vent.\n\n## Alarm A-17\n\nClose the vent.\n\n## Alarm A-18\n\nCall the keeper."
LINES = (
    "Alarm A-16\n\nOpen the vent.\n\nAlarm A-17\n\nClose the vent. Then wait.\n\nAlarm A-18\n\nCall the keeper."
)
ROWS = "A-16: open the vent.\nA-17: close the vent.\nA-18: call the keeper."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEADED, ["Close the vent."]),
        (LINES, ["Close the vent.", "Then wait."]),
        (ROWS.replace("\n", "\n\n"), ["A-17: close the vent."]),
        ("When A-17 rings, close the vent. It takes a minute.", None),
    ],
)
def test_only_what_belongs_to_the_key_can_answer(text: str, expected: list[str] | None) -> None:
    whole = [sentence.text for sentence in split_sentences(text)]
    assert texts("What do I do on alarm A-17?", passage(text)) == (expected or whole)


def test_a_passage_below_the_heading_of_the_key_is_about_it_and_others_are_not() -> None:
    ours = passage("Close the vent.", 1, headings=("Alarm A-17",))
    theirs = passage("Open the vent.", 2, headings=("Alarm A-16",))
    assert texts("And on a-17?", ours, theirs) == ["Close the vent."]


def test_the_name_of_a_file_is_a_key_without_its_ending() -> None:
    assert texts("Total of 2024-1180?", passage("40 francs.", 1, "2024-1180.txt"), passage("50 francs.", 2)) == [
        "40 francs."
    ]


def test_several_keys_allow_what_belongs_to_any_of_them() -> None:
    assert texts("Compare A-16 and A-18.", passage(HEADED)) == ["Open the vent.", "Call the keeper."]


@pytest.mark.parametrize("question", ["What do I do on alarm A-19?", "What do I do?", ""])
def test_without_the_key_in_the_passages_everything_may_answer(question: str) -> None:
    assert texts(question, passage(HEADED)) is None


@given(st.text(), st.text())
def test_any_text_can_be_asked_about(question: str, text: str) -> None:
    allowed = about_keys(question, [passage(text)])
    assert allowed is None or allowed
