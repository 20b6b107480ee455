"""What a sweep tries: choices and ranges, on the command line and in a file."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from sft_data import sft_recipe

from finetune.sweeps.search_space import (
    FIELDS,
    Choices,
    Dimension,
    Range,
    check_space,
    grid_size,
    grid_values,
    joined,
    parse_dimension,
    read_space,
)
from rag.errors import TuningError

FLOATS = st.floats(-1e9, 1e9).map(lambda value: value + 0.0)
INTS = st.integers(-(10**9), 10**9)
TEXTS = st.text(st.characters(exclude_characters=",", exclude_categories=["Cs", "C", "Z"]), min_size=1)
VALUES = {float: FLOATS, int: INTS, str: TEXTS}


@st.composite
def choices(draw: st.DrawFn) -> Choices:
    field, kind = draw(st.sampled_from(list(FIELDS.items())))
    values = draw(st.lists(VALUES[kind], min_size=1, max_size=5, unique=True))
    return Choices(field=field, values=tuple(values))


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    field, kind = draw(st.sampled_from([each for each in FIELDS.items() if each[1] is not str]))
    low, high = sorted(draw(st.lists(VALUES[kind], min_size=2, max_size=2, unique=True)))
    return Range(field=field, low=low, high=high, log=low > 0 and draw(st.booleans()))


@given(st.one_of(choices(), ranges()))
def test_what_is_parsed_is_what_was_written(dimension: Dimension) -> None:
    parsed = parse_dimension(str(dimension))
    assert parsed == dimension
    assert TypeAdapter(Choices | Range).validate_json(parsed.model_dump_json()) == dimension


@given(st.one_of(st.text(), st.builds("{}={}{}{}".format, st.sampled_from(list(FIELDS)), *[st.text()] * 3)))
def test_any_text_is_a_dimension_or_refused(text: str) -> None:
    with suppress(TuningError):
        parse_dimension(text)


@given(st.lists(choices(), min_size=1, max_size=3, unique_by=lambda each: each.field))
def test_a_grid_has_each_combination_once(space: list[Choices]) -> None:
    size = grid_size(space)
    found = [grid_values(space, number) for number in range(size)]
    assert len({json.dumps(values) for values in found}) == size
    assert all(values[each.field] in each.values for values in found for each in space)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("rank", "'rank' must have the form FIELD=VALUES"),
        ("rnak=4", "unknown field `rnak` (did you mean `rank`?)"),
        ("=4", "unknown field ``"),
        ("rank=4.5", "rank must be a whole number, not '4.5'"),
        ("rank=4,,8", "rank must be a whole number, not ''"),
        ("rank=8,4,8", "A value of rank is listed twice"),
        ("rank=16..4", "must begin below its end, and 16 is not below 4"),
        ("rank=4..16:linear", "The scale of rank must be log, not 'linear'"),
        ("learning_rate=0..1e-3:log", "must begin above 0, not at 0.0"),
        ("learning_rate=nan", "must be at most"),
        ("learning_rate=1..inf", "must be at most"),
        ("epochs=many", "epochs must be a number, not 'many'"),
        ("base=one,", "A value of base is empty"),
    ],
)
def test_a_wrong_dimension_is_refused_in_one_sentence(text: str, reason: str) -> None:
    with pytest.raises(TuningError) as raised:
        parse_dimension(text)
    assert reason in str(raised.value)


def test_a_file_has_choices_ranges_and_fixed_values(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text(
        'learning_rate = "1e-5..1e-3:log"\nrank = [4, 8]\nepochs = 2\nbase = "a, b"\n', encoding="utf-8"
    )
    assert read_space(path) == (
        Range(field="learning_rate", low=1e-5, high=1e-3, log=True),
        Choices(field="rank", values=(4, 8)),
        Choices(field="epochs", values=(2.0,)),
        Choices(field="base", values=("a, b",)),
    )
    # The command line counts.
    space = joined(["rank=16,32"], path)
    assert [each.field for each in space] == ["rank", "learning_rate", "epochs", "base"]
    assert space[0] == Choices(field="rank", values=(16, 32))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"rank = ", "must be valid TOML"),
        (b"\xff", "must be valid TOML"),
        (b"rank = [true, false]", "rank must be a value, a list of values, or a range as text"),
        (b"[rank]\nlow = 4", "rank must be a value"),
        (b"rank = []", "rank has no values"),
        (b"wheels = 4", "unknown field `wheels`"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_bytes(content)
    with pytest.raises(TuningError, match=reason):
        read_space(tmp_path / "space.toml")


def test_a_sweep_varies_something_and_sets_nothing_twice(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="needs a field with more than one value"):
        joined([], None)
    with pytest.raises(TuningError, match="needs a field with more than one value"):
        joined(["rank=4"], None)
    with pytest.raises(TuningError, match="rank is set twice"):
        joined(["rank=4", "rank=8"], None)
    with pytest.raises(TuningError, match=r"missing\.toml cannot be read: No such file"):
        joined([], tmp_path / "missing.toml")


def test_a_value_that_the_recipe_refuses_is_named() -> None:
    recipe = sft_recipe("some-base")
    check_space([parse_dimension("rank=4,8"), parse_dimension("dropout=0..0.5")], recipe)
    with pytest.raises(TuningError, match=r"rank=0 cannot be tried.*lora\.rank: Input should be greater than"):
        check_space([parse_dimension("rank=0..4")], recipe)
    with pytest.raises(TuningError, match=r"dropout=1\.5 cannot be tried"):
        check_space([parse_dimension("dropout=0.1,1.5")], recipe)
    with pytest.raises(TuningError, match=r"seed=-1 cannot be tried"):
        check_space([parse_dimension("seed=-1,1")], recipe)


def test_a_grid_of_ranges_or_without_end_is_refused() -> None:
    with pytest.raises(TuningError, match=r"A grid needs the values of rank, and rank=4\.\.8 is a range"):
        grid_size([parse_dimension("rank=4..8")])
    many = ",".join(map(str, range(1, 102)))
    with pytest.raises(TuningError, match="The grid has 1,010 combinations"):
        grid_size([parse_dimension(f"rank={many}"), parse_dimension("epochs=1,2,3,4,5,6,7,8,9,10")])
