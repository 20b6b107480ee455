"""Answers as JSON: what fits, what is told when one does not, and that nothing can hold a check up."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from prompts import find_prompt
from rag.documents.sentences import split_sentences
from rag.errors import PromptError, SettingsError
from rag.models.structured_output import (
    LONGEST,
    PATIENCE_S,
    NotTheSchema,
    check_schema,
    claims_of,
    parse,
    repair_messages,
)

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "answer": {"type": "string", "minLength": 1},
        "steps": {"type": "array", "items": {"$ref": "#/$defs/step"}, "uniqueItems": True},
        "code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]+$"},
    },
    "required": ["answer"],
    "additionalProperties": False,
    "$defs": {"step": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}},
}
FREE: dict[str, Any] = {}
KEYWORDS = st.sampled_from(
    ["$ref", "$defs", "$id", "$anchor", "items", "properties", "pattern", "not", "if", "then", "type", "enum", "a"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def reason(text: str, schema: dict[str, Any] = SCHEMA) -> str:
    """Why a text is not taken: one line without a full stop."""
    with pytest.raises(NotTheSchema) as caught:
        parse(text, schema)
    told = caught.value.reason
    assert told
    assert "\n" not in told
    assert not told.endswith(".")
    assert len(told) <= 300
    return told


# Reading


@given(VALUES, st.sampled_from(["{}", "\n {} \t", "```json\n{}\n```", "```\n{}```", " ```JSON \n{}\n``` "]))
def test_json_is_read_with_or_without_what_models_put_around_it(value: Any, around: str) -> None:
    assert parse(around.replace("{}", json.dumps(value)), FREE) == value


@given(st.text())
@example("```json```")
@example("``````")
@example("``")
@example("[" * 50_000)
@example('{"a":' * 50_000)
@example("9" * 5000)
def test_a_text_of_chance_does_not_fit_and_is_told(text: str) -> None:
    assert reason(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "invalid JSON: Expecting value at line 1, column 1"),
        ("The ferry leaves at seven.", "invalid JSON: Expecting value at line 1, column 1"),
        ('{"answer": "a"} That is it.', "invalid JSON: Extra data at line 1, column 17"),
        ('```yaml\n{"answer": "a"}\n```', "invalid JSON: Expecting value at line 1, column 1"),
        ('{"answer": "a", "answer": "b"}', "invalid JSON: the property 'answer' occurs twice"),
        ('{"answer": NaN}', "invalid JSON: NaN is not allowed"),
        ("[-Infinity]", "invalid JSON: -Infinity is not allowed"),
        ("1e999", "invalid JSON: the number 1e999 is too large"),
        ('"\\ud800"', "text must not contain lone surrogates"),
        ("[" * 20_000 + "]" * 20_000, "it, or its schema, is nested too deeply"),
        (" " * (LONGEST + 1), "it must have at most 100,000 characters"),
        ("{}", "at $: 'answer' is a required property"),
        ('{"answer": 7}', "at $.answer: 7 is not of type 'string'"),
        ('{"answer": "a", "steps": [{"text": "a"}, {}]}', "at $.steps[1]: 'text' is a required property"),
        ('{"answer": "a", "steps": [{"text": "a"}, {"text": "a"}]}', "at $.steps: it has non-unique elements"),
        ('{"answer": "a", "code": "x"}', "at $.code: 'x' does not match '^[A-Z]{2}-[0-9]+$'"),
    ],
)
def test_the_first_thing_that_is_wrong_is_told_with_its_place(text: str, told: str) -> None:
    assert reason(text) == told


def test_what_is_told_of_a_long_answer_is_short() -> None:
    assert reason(json.dumps("a" * 50_000)).endswith("…")


def test_one_and_one_point_nought_are_equal_and_true_is_neither() -> None:
    unique = {"uniqueItems": True}
    assert reason("[1, 1.0]", unique)
    assert reason('[{"a": [1]}, {"a": [1.0]}]', unique)
    assert parse("[1, true, 0, false, null]", unique) == [1, True, 0, False, None]


# What could take for ever


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.models.structured_output.PATIENCE_S", 0.25)


@pytest.mark.usefixtures("impatient")
def test_an_evil_expression_is_given_up() -> None:
    schema = {"type": "string", "pattern": "^(a|a)+$"}
    check_schema(schema)
    started = time.monotonic()
    assert reason(json.dumps("a" * 60 + "!"), schema) == "checking it takes more than 0.25 seconds"
    assert time.monotonic() - started < 5


@pytest.mark.usefixtures("impatient")
def test_a_schema_that_doubles_at_each_step_is_given_up() -> None:
    parts = {str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(30)}
    schema = {"$ref": "#/$defs/0", "$defs": parts | {"30": {"type": "string"}}}
    check_schema(schema)
    assert reason('"a"', schema) == "checking it takes more than 0.25 seconds"


def test_many_different_elements_are_compared_in_time() -> None:
    elements = [{"a": number} for number in range(9_000)]
    started = time.monotonic()
    assert parse(json.dumps(elements, separators=(",", ":")), {"uniqueItems": True}) == elements
    assert time.monotonic() - started < PATIENCE_S + 5


def test_a_schema_that_refers_to_itself_without_an_end_is_told() -> None:
    assert reason("1", {"$ref": "#"}) == "it, or its schema, is nested too deeply"


def test_a_schema_for_trees_is_no_trouble() -> None:
    tree = {"type": "object", "properties": {"below": {"type": "array", "items": {"$ref": "#"}}}}
    check_schema(tree)
    assert parse('{"below": [{"below": []}]}', tree) == {"below": [{"below": []}]}
    assert reason('{"below": [{"below": [1]}]}', tree) == "at $.below[0].below[0]: 1 is not of type 'object'"


# Schemas


@pytest.mark.parametrize(
    "schema",
    [
        SCHEMA,
        FREE,
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "string"},
        {"properties": {"$ref": {"type": "string"}, "pattern": {"const": {"$ref": "http://a.example/"}}}},
        {"$ref": "#here", "$defs": {"x": {"$anchor": "here", "type": "string"}}},
    ],
)
def test_a_schema_that_can_be_used_stays_as_it_is(schema: dict[str, Any]) -> None:
    before = json.dumps(schema)
    check_schema(schema)
    assert json.dumps(schema) == before


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"type": "text"}, r"at \$\.type: 'text' is not valid"),
        ({"required": "answer"}, r"at \$\.required"),
        ({"$ref": "https://a.example/schema"}, "https://a.example/schema must point into the schema"),
        ({"items": {"anyOf": [{"$ref": "other.json"}]}}, r"the reference other\.json must"),
        ({"$ref": "#/definitions/a", "definitions": {"a": {"$ref": "file:///etc/passwd"}}}, "the reference file:"),
        ({"$ref": "#/x/a", "x": {"a": {"$ref": "b"}}}, "b must point into the schema"),
        ({"$ref": "#/$defs/gone"}, "#/\\$defs/gone has no target"),
        ({"pattern": "(["}, r"\(\["),
        ({"patternProperties": {"^a": {}}}, "patternProperties"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "must be Draft 2020-12"),
        ({"items": {"$schema": "http://json-schema.org/draft-07/schema#"}}, r"only the root may have a \$schema"),
        ({"const": float("nan")}, "not JSON compliant"),
        ({"const": {1, 2}}, "not JSON serializable"),
        ({"description": "a" * LONGEST}, "at most 100,000 characters"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused(schema: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told) as caught:
        check_schema(schema)
    assert caught.value.message.startswith("decoding.json_schema cannot be used: ")
    assert caught.value.fix


def test_a_schema_of_endless_depth_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(5_000):
        schema = {"items": schema}
    with pytest.raises(SettingsError, match="nested too deeply"):
        check_schema(schema)


@given(
    st.recursive(st.text(max_size=5) | st.integers(), lambda inner: st.dictionaries(KEYWORDS, inner, max_size=3))
)
def test_any_schema_is_taken_or_refused(schema: Any) -> None:
    given = schema if isinstance(schema, dict) else {"items": schema}
    try:
        check_schema(given)
    except SettingsError:
        return
    with suppress(NotTheSchema):
        assert parse('{"a": ["b", 1, null]}', given) == {"a": ["b", 1, None]}


# Claims


@given(VALUES)
def test_every_text_is_claimed_and_nothing_else(value: Any) -> None:
    texts: list[str] = []

    def collect(part: Any) -> None:
        if isinstance(part, str):
            texts.append(part.strip())
        for each in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            collect(each)

    collect(value)
    assert claims_of(value) == "\n\n".join(text for text in texts if text)


def test_claims_are_sentences_of_their_own() -> None:
    value = {
        "answer": "the ferry leaves at seven [1]",
        "steps": [{"text": "Buy a ticket."}, {"text": "board", "n": 2}],
    }
    sentences = [each.text for each in split_sentences(claims_of(value))]
    assert sentences == ["the ferry leaves at seven [1]", "Buy a ticket.", "board"]
    assert claims_of(7) == ""


def test_the_claims_of_a_deep_value_are_found() -> None:
    value: Any = "at the bottom"
    for _ in range(100_000):
        value = [value]
    assert claims_of(value) == "at the bottom"


# Asking again


def test_a_model_is_shown_what_it_wrote_and_what_is_wrong_with_it() -> None:
    asked = [SystemMessage("Be brief."), HumanMessage("When?")]
    told = reason("{}")
    again = repair_messages(asked, "{}", told, find_prompt("repair-json"), SCHEMA | {"title": "Fähre {{reason}}"})
    assert again[:2] == asked
    assert again[2] == AIMessage("{}")
    assert isinstance(again[3], HumanMessage)
    assert len(again) == 4
    assert f"{told}." in again[3].text
    assert '"title": "Fähre {{reason}}"' in again[3].text
    assert json.dumps(SCHEMA["$defs"], indent=2).replace("\n", "\n  ") in again[3].text


def test_a_reply_without_an_end_is_not_sent_back_whole() -> None:
    again = repair_messages([], "a" * 1_000_000, "too long", find_prompt("repair-json"), FREE)
    assert len(again[0].text) == LONGEST


def test_a_prompt_with_other_variables_is_told() -> None:
    with pytest.raises(PromptError, match="condense@1") as caught:
        repair_messages([], "", "x", find_prompt("condense"), FREE)
    assert "reason and schema" in caught.value.fix
