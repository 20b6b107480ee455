"""An answer is held against its passages: what is cited must be there, and what is claimed must be in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.answering.grounding import Grounded, ground, without_markers
from rag.types import Citation, Hit, Passage

if TYPE_CHECKING:
    from rag.encoders import Encoder

TIDES = (
    "The tide gauge was installed in 1871 by Ida Brandt. It is read twice a day,\n  at six and at eighteen.\n\n"
    "- The highest water was 5.13 metres.\n- A red lamp warns of storm surges.\n"
)
BREAD = "Rye dough is never kneaded, since it has hardly any gluten to develop. The oven must reach 250 degrees."
CODE = "Read `args[0]` first. The list is [1, 2] by default. See the manual [1] for more. Ends here.[2]\n"
START = 1000
Check = Callable[..., Grounded]


def hit(text: str, start: int = START) -> Hit:
    return Hit(Passage(1, 1, "/a.md", "a.md", "A", text, start, start + len(text)), 1.0)


HITS = [hit(TIDES), hit(BREAD, 50)]


def marked(citation: Citation) -> str:
    """The text that a citation points at, cut out of the stored text."""
    assert citation.start is not None
    assert citation.end is not None
    passage = citation.hit.passage
    return passage.text[citation.start - passage.start : citation.end - passage.start]


@pytest.fixture
def check(encoder: Encoder) -> Check:
    return lambda text, hits=HITS: ground(text, hits, encoder)


# Markers


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("The oven must reach 250 degrees [3].", "The oven must reach 250 degrees."),
        ("The oven must reach 250 degrees. [0] [99]", "The oven must reach 250 degrees."),
        ("The oven must reach 250 degrees [2][7].", "The oven must reach 250 degrees [2]."),
        ("The oven [12] must reach 250 degrees [2].", "The oven must reach 250 degrees [2]."),
    ],
)
def test_a_marker_beyond_the_passages_is_removed(check: Check, written: str, kept: str) -> None:
    grounded = check(written)
    assert grounded.text == kept
    assert {citation.marker for citation in grounded.citations} <= {2}
    assert grounded.support == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "The oven must reach 250 degrees [2]. The highest water was 5.13 metres [1].",
        "The oven must reach 250 degrees. [2] The highest water was 5.13 metres. [1]",
        "The oven must reach 250 degrees.[2] The highest water was 5.13 metres.[1]",
        "The oven must reach 250 degrees[2]. The highest water was 5.13 metres[1].",
        "- The oven must reach 250 degrees. [2]\n- The highest water was 5.13 metres. [1]\n",
        "The oven must reach 250 degrees [2].\n\nThe highest water was 5.13 metres [1].",
        "The oven must reach 250 degrees [2], [2]. The highest water was 5.13 metres [1]",
    ],
)
def test_a_marker_belongs_to_the_sentence_before_it(check: Check, text: str) -> None:
    grounded = check(text)
    assert [(each.marker, marked(each), each.support) for each in grounded.citations] == [
        (2, "The oven must reach 250 degrees.", 1.0),
        (1, "The highest water was 5.13 metres.", 1.0),
    ]
    assert (grounded.support, grounded.best) == (1.0, 1.0)


@pytest.mark.parametrize("markers", ["[1][2]", "[1] [2]", "[1, 2]", "[1,2]", "[1; 2]", "[1], [2]"])
def test_a_sentence_may_cite_several_passages_in_any_writing(check: Check, markers: str) -> None:
    grounded = check(f"The oven must reach 250 degrees {markers}.")
    assert sorted(each.marker for each in grounded.citations) == [1, 2]
    supports = {each.marker: each.support for each in grounded.citations}
    assert supports[2] == 1.0
    assert supports[1] < 0.5
    # The best of what is cited carries the sentence.
    assert grounded.support == 1.0


def test_a_list_of_numbers_that_are_no_passages_stays_text(check: Check) -> None:
    assert check("The oven must reach [200, 250] degrees.").text == "The oven must reach [200, 250] degrees."


def test_brackets_in_code_are_no_markers(check: Check) -> None:
    text = "Read `args[0]` first [1].\n\n```\nx = y[7]\n```\n"
    grounded = check(text, [hit(CODE)])
    assert grounded.text == text.strip()
    assert [each.marker for each in grounded.citations] == [1]


def test_a_passage_that_is_cited_twice_is_one_citation_with_its_best_evidence(check: Check) -> None:
    grounded = check("Ovens are hot things to touch [2]. The oven must reach 250 degrees [2].")
    (citation,) = grounded.citations
    assert (marked(citation), citation.support) == ("The oven must reach 250 degrees.", 1.0)
    assert grounded.support is not None
    assert grounded.support < 1.0 == grounded.best


def test_a_citation_of_a_heading_and_a_row_marks_the_row(check: Check) -> None:
    row = "name: Alva; hour: 16.5; night: 19"
    (citation,) = check(f"Wages [1] {row} [1]", [hit(f"Wages\n\n{row}")]).citations
    assert (marked(citation), citation.support) == (row, 1.0)


# Support


def test_word_for_word_is_full_support_and_the_exact_place(check: Check) -> None:
    grounded = check("The tide gauge was installed in 1871 by Ida Brandt. [1]")
    (citation,) = grounded.citations
    assert (citation.start, citation.end) == (START, START + TIDES.index(" It is read"))
    assert (citation.support, grounded.support) == (1.0, 1.0)


@pytest.mark.parametrize(
    "claim",
    [
        "It is read twice a day, at six and at eighteen.",
        "It is read twice  a day,\tat six\nand at eighteen. ",
        "It is read twice a day",
    ],
)
def test_white_space_does_not_count(check: Check, claim: str) -> None:
    grounded = check(f"{claim} [1]")
    assert marked(grounded.citations[0]) == "It is read twice a day,\n  at six and at eighteen."
    assert grounded.support == 1.0


def test_a_quote_over_the_end_of_a_sentence_is_marked_as_far_as_it_goes(check: Check) -> None:
    passage = hit("Dogs (e.g. terriers) pay. No. 5 is closed [3]; it is old.")
    grounded = check("terriers) pay. No. 5 is closed; it is old [1]", [passage])
    assert grounded.support == 1.0


def test_footnotes_of_a_source_do_not_hide_that_it_was_quoted(check: Check) -> None:
    grounded = check("See the manual for more. [1]", [hit(CODE)])
    assert grounded.support == 1.0
    assert marked(grounded.citations[0]) == "See the manual [1] for more."


def test_a_paraphrase_is_supported_in_part(check: Check) -> None:
    grounded = check("Ida Brandt put in the gauge for the tide in 1871 [1].")
    assert grounded.support is not None
    assert 0.5 < grounded.support < 1.0
    assert marked(grounded.citations[0]).startswith("The tide gauge was installed")


@pytest.mark.parametrize(
    "claim",
    ["Aida was first sung in Cairo.", "Penguins cannot fly but swim well.", "My hovercraft is full of eels!"],
)
def test_an_invented_sentence_has_hardly_any_support(check: Check, claim: str) -> None:
    for text in (claim, f"{claim} [1]", f"{claim} [1][2]"):
        assert check(text).support < 0.3


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("Brandt installed a gauge in 1871", "Brandt installed a gauge in 1817"),
        ("water reached 5.13 metres", "water reached 51.3 metres"),
        ("water reached 5.13 metres", "water reached 5 metres"),
    ],
)
def test_a_wrong_number_halves_the_support(check: Check, right: str, wrong: str) -> None:
    good, bad = check(f"{right} [1].").support, check(f"{wrong} [1].").support
    assert 0 < bad < 0.65 * good


def test_the_support_of_an_answer_is_that_of_its_weakest_sentence(check: Check) -> None:
    good, bad = "The oven must reach 250 degrees [2].", "Aida was first sung in Cairo [2]."
    alone = check(bad)
    both = check(f"{good} {bad}")
    assert both.support == pytest.approx(alone.support)
    assert both.best == 1.0


def test_without_markers_an_answer_is_held_against_all_passages(check: Check) -> None:
    grounded = check("The oven must reach 250 degrees. The highest water was 5.13 metres.")
    assert (grounded.support, grounded.citations) == (1.0, ())


def test_a_sentence_without_a_marker_beside_one_with_is_checked_as_well(check: Check) -> None:
    grounded = check("Aida was first sung in Cairo. The oven must reach 250 degrees [2].")
    assert [each.marker for each in grounded.citations] == [2]
    assert grounded.support is not None
    assert grounded.support < 0.3


def test_a_sentence_that_cites_the_wrong_passage_is_not_saved_by_another(check: Check) -> None:
    assert check("The oven must reach 250 degrees [1].").support < 0.5


@pytest.mark.parametrize("text", ["", " ", "[1]", "[1][2]", "...", "— [1]", "[9]"])
def test_where_nothing_is_claimed_nothing_is_supported(check: Check, text: str) -> None:
    grounded = check(text)
    assert (grounded.citations, grounded.support, grounded.best) == ((), None, 0.0)


def test_without_passages_nothing_is_supported(check: Check) -> None:
    grounded = check("The oven must reach 250 degrees [1].", [])
    assert (grounded.text, grounded.citations, grounded.best) == ("The oven must reach 250 degrees.", (), 0.0)


@pytest.mark.parametrize("passage", ["", "   \n", "---\n", "...", "````"])
def test_a_passage_without_sentences_supports_nothing(check: Check, passage: str) -> None:
    (citation,) = check("The oven must reach 250 degrees [1].", [hit(passage)]).citations
    assert (citation.start, citation.end) == (None, None)
    assert citation.support == 0.0


# Anything


PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            ["[1]", "[2]", "[3]", "[1, 2]", "[0]", "`", "```", ". ", "\n", "\n\n", "- ", "| ", "250", " "]
        ),
        st.sampled_from([*TIDES.split(". "), *BREAD.split(", ")]),
        st.text(max_size=20),
    ),
    max_size=8,
).map("".join)


@settings(max_examples=60)
@given(text=PIECES, passages=st.lists(st.tuples(PIECES, st.integers(0, 10_000)), max_size=3))
def test_any_answer_over_any_passages_is_checked(
    encoder: Encoder, text: str, passages: list[tuple[str, int]]
) -> None:
    text = text.encode("utf-8", "replace").decode()
    hits = [hit(passage.encode("utf-8", "replace").decode(), start) for passage, start in passages]
    grounded = ground(text, hits, encoder)
    assert 0.0 <= grounded.best <= 1.0
    assert grounded.support is None or 0.0 <= grounded.support <= grounded.best
    markers = [citation.marker for citation in grounded.citations]
    assert len(markers) == len(set(markers))
    for citation in grounded.citations:
        assert citation.hit is hits[citation.marker - 1]
        assert 0.0 <= citation.support <= 1.0
        passage = citation.hit.passage
        if citation.start is None or citation.end is None:
            assert citation.start is citation.end is None
        else:
            assert passage.start <= citation.start < citation.end <= passage.end
            assert marked(citation).strip()


@given(PIECES)
def test_without_markers_leaves_none_outside_of_code(text: str) -> None:
    plain = without_markers(text)
    assert len(plain) <= len(text)
    if "`" not in text:
        assert not any(f"[{number}]" in plain for number in range(4))
