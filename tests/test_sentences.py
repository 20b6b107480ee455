"""Sentences: what a person would quote, each at its exact place."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.documents.relative_links import RelativeLinks, without_relative_links
from rag.documents.sentences import split_sentences

MARKS = st.sampled_from(
    [
        " ",
        " ",
        "\n",
        "\n\n",
        ". ",
        "! ",
        "?",
        "。",
        "- ",
        "1. ",
        "# ",
        "| ",
        "```\n",
        "====\n",
        "e.g. ",
        "Dr. ",
        "(",
        '"',
    ]
)
PIECES = st.one_of(MARKS, st.sampled_from(["mill", "River", "é", "山", "7", "x_y", "🙂", "\u200b", "\t", "*"]))


def cut(text: str) -> list[str]:
    return [sentence.text for sentence in split_sentences(text)]


@given(st.one_of(st.lists(PIECES, max_size=60).map("".join), st.text(max_size=200)))
def test_each_sentence_is_exactly_its_place_in_the_text(text: str) -> None:
    found = split_sentences(text)
    for sentence in found:
        assert text[sentence.start : sentence.end] == sentence.text
        assert sentence.text == sentence.text.strip(" \t\n")
        assert any(character.isalnum() for character in sentence.text)
    assert all(one.end <= other.start for one, other in itertools.pairwise(found))


@given(st.lists(PIECES, max_size=60).map("".join))
def test_only_mark_up_and_code_fences_are_left_out(text: str) -> None:
    covered = set(itertools.chain.from_iterable(range(s.start, s.end) for s in split_sentences(text)))
    lost = "".join(character for at, character in enumerate(text) if at not in covered)
    assert "mill" not in lost or "```" in text
    assert "River" not in lost or "```" in text


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        (" \n\t ", []),
        ("?!", []),
        ("One mill", ["One mill"]),
        ("One mill. Two rivers! Three stones?", ["One mill.", "Two rivers!", "Three stones?"]),
        ("One mill.\nTwo rivers.", ["One mill.", "Two rivers."]),
        ("A sentence that goes on\nin the next line.", ["A sentence that goes on\nin the next line."]),
        ('He said "Stop." Then he left.', ['He said "Stop."', "Then he left."]),
        ("It works (see below). Then it stops.", ["It works (see below).", "Then it stops."]),
        ("Version 3.14 is out. Use 2.0 instead.", ["Version 3.14 is out.", "Use 2.0 instead."]),
        ("It is at example.org/a.b today. Look there.", ["It is at example.org/a.b today.", "Look there."]),
        ("Étienne left. Älter ist er. Жил он тут.", ["Étienne left.", "Älter ist er.", "Жил он тут."]),
    ],
)
def test_a_text_is_cut_where_a_sentence_ends(text: str, sentences: list[str]) -> None:
    assert cut(text) == sentences


@pytest.mark.parametrize(
    "text",
    [
        "Dr. Miller met Mrs. Stone.",
        "Use a cache, e.g. Redis, here.",
        "See Fig. 3 and Eq. 7 on pp. 12.",
        "The company Acme Inc. Sells mills.",
        "J. R. Miller wrote it.",
        "It opened in Sept. 1871.",
        "Rivers (cf. Miller) carry water.",
    ],
)
def test_an_abbreviation_ends_no_sentence(text: str) -> None:
    assert cut(text) == [text]


def test_the_pronoun_i_may_end_a_sentence() -> None:
    assert cut("So do I. Then we left.") == ["So do I.", "Then we left."]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("川は冷たい。水車は古い！石は丸い？", ["川は冷たい。", "水車は古い！", "石は丸い？"]),
        ("河水很冷。磨坊很旧。", ["河水很冷。", "磨坊很旧。"]),
    ],
)
def test_scripts_without_spaces_are_cut_at_their_own_marks(text: str, sentences: list[str]) -> None:
    assert cut(text) == sentences


@pytest.mark.parametrize("sign", ["-", "*", "+", "•", "1.", "12)"])
def test_each_item_of_a_list_stands_alone_without_its_sign(sign: str) -> None:
    text = f"You need\n{sign} a mill\n{sign} a river\n  {sign} and stones"
    assert cut(text) == ["You need", "a mill", "a river", "and stones"]


def test_headings_stand_alone_and_are_told() -> None:
    found = split_sentences("# The mill\nIt grinds rye.\n\n## The river ##\n\nIt is cold.")
    assert [(s.text, s.heading) for s in found if not s.heading] == [
        ("It grinds rye.", False),
        ("It is cold.", False),
    ]
    assert found[0].text == "The mill"
    assert found[0].heading
    assert found[2].heading


def test_the_line_under_a_heading_is_mark_up() -> None:
    assert cut("The mill\n========\n\nIt grinds rye.\n\nStones\n------\nThey are round.") == [
        "The mill",
        "It grinds rye.",
        "Stones",
        "They are round.",
    ]


def test_paragraphs_are_not_run_together() -> None:
    assert cut("no full stop\n\nand none here") == ["no full stop", "and none here"]


def test_each_row_of_a_table_stands_alone() -> None:
    assert cut("| mill | 1871 |\n| river | cold |") == ["mill | 1871", "river | cold"]


def test_fences_of_code_are_left_out_and_its_lines_stay() -> None:
    found = cut("Call it so:\n\n```python\nmill.grind(rye)\n```\n\nThen wait.")
    assert found == ["Call it so:", "mill.grind(rye)", "Then wait."]


@pytest.mark.parametrize(
    "unit",
    [
        "stone ",
        "A stone. ",
        "\n",
        " ",
        ".",
        ". ",
        '"',
        "|",
        "| ",
        "- ",
        "#",
        "# ",
        "e.g. A ",
        "=",
        "=\n",
        "\n ",
        "山。",
        "1. ",
    ],
)
def test_the_work_grows_with_the_length_and_not_faster(unit: str) -> None:
    def seconds(length: int) -> float:
        text = (unit * (length // len(unit) + 1))[:length]
        best = float("inf")
        for _ in range(3):
            started = time.process_time()
            split_sentences(text)
            best = min(best, time.process_time() - started)
        return best

    # Quadratic work would take 64 times as long; the sum forgives the clock its grain.
    assert seconds(64_000) < 24 * seconds(8_000) + 0.03


LINKED = "See [the mill](mill.md#stones), [its site](https://mill.example/) and args[0](x) [1]. [open"


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_relative_links_are_shown_as_their_words(size: int) -> None:
    links = RelativeLinks()
    pieces = [links.shown(LINKED[at : at + size]) for at in range(0, len(LINKED), size)]
    shown = "See the mill, [its site](https://mill.example/) and args[0](x) [1]. [open"
    assert "".join(pieces) + links.rest() == shown == without_relative_links(LINKED)
