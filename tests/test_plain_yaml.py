"""YAML from outside means no more than it says: aliases and deep nesting are refused before anything is built."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from terminal import assert_one_line, call

from prompts import plain_yaml
from prompts.files import as_yaml, parse_draft, parse_prompt
from prompts.template import Message, PromptTemplate, PromptTemplateError
from rag.documents.loaders import load as load_file
from rag.errors import PromptError
from ui.pages.prompts.draft_settings import FIELDS, field_value, settings_in, with_settings

# Each line stands for eight of the line before it: the last one for a thousand million numbers.
NAMES = "abcdefghij"
BOMB = "    a: &a [1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"    {name}: &{name} [{', '.join([f'*{before}'] * 8)}]\n" for before, name in pairwise(NAMES)
)
DRAFT = f"""\
description: A schema that stands for more than any machine holds.
variables: [question]
messages:
  - role: user
    content: "{{{{question}}}}"
settings:
  json_schema:
{BOMB}"""
# Far beyond what a recursive reader survives: libyaml's ends the process.
DEEP = "[" * 100_000
FAST_S = 0.5

VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text("ab*&:-# \n", max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text("xy*", min_size=1), inner)),
    max_leaves=12,
)


@given(VALUES)
def test_what_yaml_can_say_without_aliases_is_read_as_it_was_written(value: object) -> None:
    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    assert plain_yaml.load(yaml.dump(value, Dumper=Plain, allow_unicode=True)) == value


def test_stars_in_texts_are_no_aliases() -> None:
    text = "a: '*b'\nb: |\n  * one\n  **two**\nc: 2 * 3 # *d\nd: &anchor 1\n"
    assert plain_yaml.load(text) == {"a": "*b", "b": "* one\n**two**\n", "c": "2 * 3", "d": 1}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &x 1\nb: *x", "alias \\*x is not allowed"),
        ("a: &x {b: 1}\nc: {<<: *x}", "alias \\*x is not allowed"),
        (DRAFT, "alias \\*a is not allowed"),
        (DEEP, "64 levels deep"),
        ("- " * 100_000, "64 levels deep"),
        ("{a: " * 100_000, "64 levels deep"),
        ("a: 2024-13-45", "cannot be read"),
        (f"a: {'9' * 5000}", "cannot be read"),
    ],
)
@pytest.mark.parametrize("read", [plain_yaml.load, plain_yaml.compose])
def test_what_stands_for_more_is_refused_at_once(text: str, reason: str, read: object) -> None:
    if read is plain_yaml.compose and reason == "cannot be read":
        pytest.skip("a tree of nodes holds no values")
    started = time.perf_counter()
    with pytest.raises(yaml.YAMLError, match=reason):
        read(text)  # type: ignore[operator]
    assert time.perf_counter() - started < FAST_S


def test_the_deepest_that_is_allowed_is_read() -> None:
    deepest = "[" * plain_yaml.MAX_DEPTH + "]" * plain_yaml.MAX_DEPTH
    assert json.dumps(plain_yaml.load(deepest)) == deepest
    with pytest.raises(yaml.YAMLError, match="levels deep"):
        plain_yaml.load(f"[{deepest}]")


def test_a_key_that_is_given_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    twice = "settings: {seed: 1}\nvariables: []\nsettings: {seed: 2}\n"
    with pytest.raises(PromptTemplateError, match="line 3: the key `settings` is already on line 1"):
        parse_draft(twice, "twice", 1)
    with pytest.raises(yaml.YAMLError, match="`b` is already"):
        plain_yaml.load("- {a: {b: 1, c: [b, b], b: 2}}")
    assert plain_yaml.load("a: {b: 1}\nb: {a: b, b: a}") == {"a": {"b": 1}, "b": {"a": "b", "b": "a"}}
    # A page of somebody else is read all the same.
    page = tmp_path / "page.md"
    page.touch()
    problems: list[str] = []
    load_file(page, b"---\nlang: de\nlang: en\n---\n\nBody.\n", on_problem=problems.append)
    assert problems == []


def test_places_are_counted_in_characters() -> None:
    root = plain_yaml.compose("é: ü\nb: 1\n")
    assert isinstance(root, yaml.MappingNode)
    assert root.value[1][0].start_mark.index == 5


# Where a person, or somebody else's file, brings it in


@pytest.mark.parametrize("text", [DRAFT, DEEP])
def test_a_draft_is_refused_with_the_reason(text: str) -> None:
    started = time.perf_counter()
    with pytest.raises(PromptTemplateError, match=r"must be valid YAML: line .*(alias|levels deep)"):
        parse_draft(text, "bomb", 1)
    assert settings_in(text) is None
    with pytest.raises(PromptError, match="must be readable"):
        with_settings(text, {"seed": 1})
    assert time.perf_counter() - started < FAST_S


@pytest.mark.parametrize("text", [DRAFT, DEEP])
def test_commands_name_the_file_and_go_no_further(tmp_path: Path, text: str) -> None:
    path = tmp_path / "home" / "prompts" / "bomb" / "1.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    for arguments in (("show", "bomb"), ("list",)):
        assert_one_line(call(tmp_path / "home", "prompts", *arguments), str(path), "line")
    foreign = tmp_path / "foreign.yaml"
    foreign.write_text(text, encoding="utf-8")
    assert_one_line(
        call(tmp_path / "home", "prompts", "new", "other", "--file", foreign, "-m", "Try.", "--by", "Ada"),
        "must be valid YAML",
    )


@pytest.mark.parametrize("text", [f"settings:\n  json_schema:\n{BOMB}", DEEP])
def test_front_matter_is_read_as_text_and_named(tmp_path: Path, text: str) -> None:
    problems: list[str] = []
    path = tmp_path / "page.md"
    path.touch()
    (document,) = load_file(path, f"---\n{text[:60_000]}\n---\n\nBody.\n".encode(), on_problem=problems.append)
    assert "Body." in document.text
    assert "front matter is not valid YAML" in problems[0]
    # As text it has no spaces.
    assert ["without a space" in problem for problem in problems[1:]] == [True] * (text == DEEP)


@pytest.mark.parametrize("depth", [64, 500, 100_000])
def test_a_schema_typed_into_its_field_may_not_be_nested_without_end(depth: int) -> None:
    (field,) = (each for each in FIELDS if each.kind == "json")
    with pytest.raises(PromptError, match=r"JSON schema must (not be nested|be JSON)"):
        field_value(field, '{"a":' * depth + "1" + "}" * depth)


def test_unusual_line_ends_in_a_prompt_survive_its_file() -> None:
    prompt = PromptTemplate(
        name="a", version=1, description="\x85", variables=(), messages=(Message(role="user", content="\u2028"),)
    )
    assert parse_prompt(as_yaml(prompt)) == prompt


def test_a_schema_as_deep_as_allowed_goes_into_the_draft_and_comes_back() -> None:
    (field,) = (each for each in FIELDS if each.kind == "json")
    value = field_value(field, '{"a":' * 62 + "1" + "}" * 62)
    assert (settings_in(with_settings("a: 1\n", {"json_schema": value})) or {})["json_schema"] == value
