"""A diff shows what differs and nothing else, and leads from the old version to the new one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_prompts import ANY_TEXT, template

from prompts import find_prompt
from prompts.diff import Piece, apply, diff, parts, words
from prompts.template import split_placeholders

# Texts that have much in common, and ones that have nothing.
WORDS = st.lists(st.sampled_from(["answer", "briefly", " ", "\n", ", ", "{{who}}", "Answer", "."])).map("".join)
TEXTS = st.one_of(WORDS, ANY_TEXT)


@st.composite
def prompts(draw: st.DrawFn) -> Any:
    contents = draw(st.lists(TEXTS, min_size=1, max_size=4))
    shown = draw(st.lists(TEXTS, max_size=3))
    names = {name for content in contents for _, name in split_placeholders(content) if name}
    return template(
        description=draw(TEXTS),
        tags=draw(st.lists(TEXTS, max_size=2)),
        variables=sorted(names),
        messages=[{"role": draw(st.sampled_from(["system", "user"])), "content": each} for each in contents],
        example=[{"role": "user", "content": "{{shown}}"}] if shown else [],
        examples=[{"shown": each} for each in shown],
        fragments=draw(st.dictionaries(st.sampled_from(["passage", "turn"]), TEXTS)),
    )


@given(old=prompts(), new=prompts())
def test_a_diff_applied_to_the_old_version_gives_the_new_one(old: Any, new: Any) -> None:
    changes = diff(old, new)
    assert apply(old, changes) == parts(new)
    assert (not changes) == (parts(old) == parts(new))
    for change in changes:
        assert change.old != change.new


@given(old=TEXTS, new=TEXTS)
def test_pieces_hold_both_texts_whole(old: str, new: str) -> None:
    pieces = words(old, new)
    assert "".join(each.text for each in pieces if each.kind != "added") == old
    assert "".join(each.text for each in pieces if each.kind != "removed") == new
    assert all(each.text for each in pieces)


def test_a_changed_word_is_told_alone() -> None:
    assert words("Answer in a few words.", "Answer in ten words!") == (
        Piece("same", "Answer in "),
        Piece("removed", "a few"),
        Piece("added", "ten"),
        Piece("same", " words"),
        Piece("removed", "."),
        Piece("added", "!"),
    )


def test_parts_stand_in_the_order_of_the_file_and_say_where_they_are() -> None:
    old = template(tags=["short"])
    new = template(
        description="Greets.",
        messages=[{"role": "user", "content": "{{who}}"}] * 11,
        fragments={"part": "x"},
    )
    wheres = [change.where for change in diff(old, new)]
    assert wheres[:5] == ["description", "tags", "messages 1 role", "messages 1 content", "messages 2 content"]
    assert wheres[-3:] == ["messages 11 role", "messages 11 content", "fragments part"]
    added = diff(old, new)[-1]
    assert (added.old, added.new, added.pieces) == (None, "x", (Piece("added", "x"),))


def test_name_version_and_who_saved_it_are_no_difference() -> None:
    prompt = find_prompt("answer")
    assert diff(prompt, prompt.model_copy(update={"name": "other", "version": 9})) == ()


def test_a_diff_of_another_version_is_refused() -> None:
    one, two, three = (template(description=text) for text in ("one", "two", "three"))
    with pytest.raises(ValueError, match="description does not apply to greeting@1"):
        apply(three, diff(one, two))
