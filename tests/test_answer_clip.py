"""What a client sets as the end of an answer: whole and in pieces it is the same text."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from ui.answer_clip import Clip

LETTERS = st.text("ab ", max_size=20)


def words(text: str) -> list[int]:
    return [found.start() for found in re.finditer(r"\S+", text)]


@example(text="aba", stops=["b", "aba"])
@given(text=LETTERS, stops=st.lists(st.text("ab ", min_size=1, max_size=4), max_size=3))
def test_nothing_is_sent_early_that_the_whole_answer_does_not_have(text: str, stops: list[str]) -> None:
    clip = Clip(tuple(stops))
    whole = clip(text)
    begun = [clip.begun(text[:end]) for end in range(len(text) + 1)]
    assert all(whole.startswith(piece) for piece in begun)
    assert not any(stop in whole for stop in stops)
    assert sorted(begun, key=len) == begun


def test_the_earlier_end_counts() -> None:
    clip = Clip(("four",), 3, words)
    assert clip("one two three four five") == "one two three "
    assert clip.is_too_long("one two three and more")
    assert not clip.is_too_long("one two three four five")
    assert clip("one four") == "one "
    assert clip.begun("one two fo") == "one two "
