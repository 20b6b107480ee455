"""A variant says in one line what it changes, and nothing that it cannot change gets through."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts import PromptSettings, PromptTemplate, find_prompt
from rag.errors import PromptError, SettingsError
from rag.evaluation.variants import (
    FIELDS,
    PROMPT_SETTINGS,
    SECTIONS,
    Variant,
    parse_variant,
    with_changes,
    with_prompt,
)
from rag.settings import Settings
from ui.app.app import open_app

ANY_TEXT = st.text(max_size=60)
# What a person may type: signs that mean something here come often.
TYPED = st.lists(
    st.sampled_from(
        [":", "=", " ", '"', "'", "\\", "retrieval.k", "prompt", "8", "-1", "[", "{", "a", "\x00", "é", "\ud800"]
    ),
    max_size=14,
).map("".join)

# Parsing


@pytest.mark.parametrize(
    ("text", "name", "changes"),
    [
        ("", "baseline", {}),
        ("   ", "baseline", {}),
        ("plain:", "plain", {}),
        ("  more of them : retrieval.k=8", "more of them", {"retrieval.k": 8}),
        (
            "retrieval.k=8 prompt=answer@2",
            "retrieval.k=8 prompt=answer@2",
            {"retrieval.k": 8, "prompt": "answer@2"},
        ),
        ("model=openai:gpt-4o", "model=openai:gpt-4o", {"model": "openai:gpt-4o"}),
        ("big: model=openai:org/model:7b", "big", {"model": "openai:org/model:7b"}),
        ("x: retrieval.reranker=", "x", {"retrieval.reranker": ""}),
        ("x: decoding.temperature=0.5", "x", {"decoding.temperature": 0.5}),
        ("x: grounding.min_confidence=null", "x", {"grounding.min_confidence": None}),
        ('x: \'decoding.stop=["a b", "c=d"]\'', "x", {"decoding.stop": ["a b", "c=d"]}),
        (
            """x: 'decoding.json_schema={"type": "object"}' answer.style=brief""",
            "x",
            {"decoding.json_schema": {"type": "object"}, "answer.style": "brief"},
        ),
        ('x: local.adapter="a folder/with spaces"', "x", {"local.adapter": "a folder/with spaces"}),
        ("x: local.adapter=[half", "x", {"local.adapter": "[half"}),
        ("x: retrieval.k=8 retrieval.k=9", "x", {"retrieval.k": 9}),
        ("x: prompt=a=b", "x", {"prompt": "a=b"}),
        ("x:\nretrieval.k=8\n\tprompt=answer", "x", {"retrieval.k": 8, "prompt": "answer"}),
    ],
)
def test_what_a_person_writes(text: str, name: str, changes: dict[str, Any]) -> None:
    assert parse_variant(text) == Variant(name=name, changes=changes)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x: longer", "'longer' in the variant 'x: longer' must have the form SETTING=VALUE."),
        ("openai:gpt", "'openai:gpt' in the variant 'openai:gpt' must have the form SETTING=VALUE."),
        ("x: prompt='answer", 'A quote in the variant "x: prompt=\'answer" is not closed.'),
        ("x: =5", "cannot change ''."),
        ("x: retrieval=5", "cannot change 'retrieval'."),
        ("x: retrieval.=5", "cannot change 'retrieval.'."),
        ("x: home=/tmp", "cannot change 'home'."),
        ("x: openai.api_key=secret", "cannot change 'openai.api_key'."),
        ("x: encoder.model=other", "cannot change 'encoder.model'."),
        ("x: chunking.tokens=100", "cannot change 'chunking.tokens'."),
        ("x: local.device=cpu", "cannot change 'local.device'."),
        ("x: prompt.version=2", "cannot change 'prompt.version'."),
        (f"{'n' * 81}: retrieval.k=5", "is invalid: "),
    ],
)
def test_what_is_malformed_or_not_changeable_is_refused_in_a_sentence(text: str, expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_variant(text)
    assert expected in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.message.endswith(".")
    assert caught.value.fix


def test_the_closest_setting_is_proposed_for_one_that_cannot_be_changed() -> None:
    with pytest.raises(SettingsError) as caught:
        parse_variant("warm: temperature=0.7")
    assert caught.value.fix.startswith("Did you mean `decoding.temperature`?")


@given(text=st.one_of(ANY_TEXT, TYPED, TYPED.map("x: {}".format)))
def test_any_text_is_a_variant_or_a_settings_error(text: str) -> None:
    try:
        variant = parse_variant(text)
    except SettingsError:
        return
    assert 1 <= len(variant.name) <= 80
    assert all(name in FIELDS or name.partition(".")[0] in SECTIONS for name in variant.changes)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(
    name=st.text("abc xyz-_éß@1", min_size=1, max_size=20).filter(str.strip),
    changes=st.dictionaries(st.sampled_from(["prompt", "retrieval.k", "decoding.stop", "answer.style"]), VALUES),
)
def test_json_in_quotes_comes_back_as_it_was(name: str, changes: dict[str, Any]) -> None:
    words = [shlex.quote(f"{key}={json.dumps(value)}") for key, value in changes.items()]
    assert parse_variant(" ".join([f"{name}:", *words])) == Variant(name=name.strip(), changes=changes)


# Changing settings


def test_the_older_name_of_the_extractive_reader_is_understood() -> None:
    assert Variant(name="a", changes={"model": "embedded"}).changes == {"model": "extractive"}
    assert with_changes(Settings(model="smollm2"), {"model": "embedded"}).model == "extractive"


def test_changes_replace_what_they_name_and_leave_the_rest() -> None:
    settings = Settings(retrieval={"candidates": 70, "k": 9}, decoding={"seed": 3})
    changed = with_changes(
        settings,
        {
            "retrieval.k": 2,
            "retrieval.mode": "dense",
            "decoding.stop": ["END"],
            "answer.citations": "end",
            "grounding.min_support": 0,
            "model": "openai:gpt-4o",
            "prompt": "answer-short",
            "reader.adapter": "",
            "local.adapter": None,
        },
    )
    assert (changed.retrieval.k, changed.retrieval.mode, changed.retrieval.candidates) == (2, "dense", 70)
    assert (changed.decoding.stop, changed.decoding.seed) == (("END",), 3)
    assert (changed.answer.citations, changed.grounding.min_support) == ("end", 0)
    assert (changed.model, changed.prompt) == ("openai:gpt-4o", "answer-short")
    assert (changed.reader.adapter, changed.local.adapter) == ("", None)
    assert settings.retrieval.k == 9
    assert with_changes(settings, {}) == settings


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("retrieval.k", 0, "retrieval.k"),
        ("retrieval.k", 1001, "retrieval.k"),
        ("retrieval.k", "many", "retrieval.k"),
        ("retrieval.k", 2.5, "retrieval.k"),
        ("retrieval.mode", "both", "retrieval.mode"),
        ("decoding.temperature", 2.1, "decoding.temperature"),
        ("decoding.top_p", 0, "decoding.top_p"),
        ("decoding.max_tokens", 0, "decoding.max_tokens"),
        ("decoding.seed", 2**31, "decoding.seed"),
        ("decoding.stop", [1], "decoding.stop.0"),
        ("decoding.json_schema", "object", "decoding.json_schema"),
        ("answer.style", "long", "answer.style"),
        ("grounding.min_support", 1.1, "grounding.min_support"),
        ("grounding.min_confidence", -0.1, "grounding.min_confidence"),
        ("retrieval.depth", 3, "retrieval.depth"),
        ("retrieval.k.x", 3, "retrieval.k.x"),
        ("local.adapter", 3, "local.adapter"),
        ("prompt", 3, "prompt"),
        ("model", None, "model"),
        ("model", "gpt-4o", "gpt-4o"),
        ("home", "/tmp/elsewhere", "home"),
        ("cost.prices", "mine.toml", "cost.prices"),
    ],
)
def test_what_is_unknown_or_out_of_range_is_named(name: str, value: Any, expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        with_changes(Settings(), {name: value})
    assert expected in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.fix


@given(
    changes=st.dictionaries(
        st.sampled_from(["retrieval.k", "decoding.top_p", "answer.style", "model", "home"]), VALUES
    )
)
def test_any_value_is_taken_or_refused_in_a_settings_error(changes: dict[str, Any]) -> None:
    try:
        changed = with_changes(Settings(), changes)
    except SettingsError:
        return
    assert Settings.model_validate(changed.model_dump(exclude={"home"})) == changed


# What wins


@pytest.mark.parametrize(("name", "targets"), PROMPT_SETTINGS.items())
def test_a_prompt_can_change_all_that_its_settings_name(name: str, targets: tuple[str, ...]) -> None:
    values: dict[str, Any] = {
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 40,
        "repetition_penalty": 1.1,
        "seed": 7,
        "max_tokens": 99,
        "stop": ("END",),
        "json_schema": {"type": "string"},
        "style": "brief",
        "citations": "none",
        "passages": 3,
        "refuse_below": 0.25,
        "adapter": "citer",
    }
    assert set(values) == set(PromptSettings.model_fields) == set(PROMPT_SETTINGS)
    settings = with_prompt(Settings(), PromptSettings(**{name: values[name]}))
    for target in targets:
        section, _, field = target.partition(".")
        assert getattr(getattr(settings, section), field) == values[name]
    untouched = {other: getattr(Settings(), other) for other in Settings.model_fields}
    touched = {target.partition(".")[0] for target in targets}
    assert all(getattr(settings, other) == value for other, value in untouched.items() if other not in touched)


def test_a_prompt_without_settings_changes_nothing() -> None:
    settings = Settings(retrieval={"k": 9}, decoding={"temperature": 1.5})
    assert with_prompt(settings, PromptSettings()) == settings


def test_the_process_loses_to_the_version_and_the_version_to_the_variant(tmp_path: Path) -> None:
    app = open_app(Settings(home=tmp_path, retrieval={"k": 9}, decoding={"seed": 1}, answer={"style": "brief"}))
    wanted = {"passages": 4, "seed": 2, "refuse_below": 0.5}
    shipped = find_prompt("answer").model_dump() | {"name": "mine", "settings": wanted}
    app.stores.prompts.save(PromptTemplate.model_validate(shipped), by="Ada", message="First.")

    plain = app.releases.resolve().settings
    assert (plain.retrieval.k, plain.decoding.seed, plain.answer.style) == (9, 1, "brief")
    by_version = app.releases.resolve(Variant(name="v", changes={"prompt": "mine"})).settings
    assert (by_version.retrieval.k, by_version.decoding.seed, by_version.answer.style) == (4, 2, "brief")
    assert by_version.grounding.min_support == 0.5
    chosen = {"prompt": "mine@1", "retrieval.k": 2, "grounding.min_confidence": None}
    by_variant = app.releases.resolve(Variant(name="v", changes=chosen)).settings
    assert (by_variant.retrieval.k, by_variant.decoding.seed) == (2, 2)
    assert (by_variant.grounding.min_confidence, by_variant.grounding.min_support) == (None, 0.5)
    app.close()


def test_a_variant_whose_prompt_is_not_there_is_told(tmp_path: Path) -> None:
    app = open_app(Settings(home=tmp_path))
    with pytest.raises(PromptError, match="There is no prompt answer@7"):
        app.releases.resolve(Variant(name="v", changes={"prompt": "answer@7"}))
    app.close()
