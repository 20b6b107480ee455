"""What a version asks for beside its text: kept in its file, part of its identity, told by a diff, followed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from test_prompts import ANY_TEXT, template
from tiny import QUESTION, answered, keep

from prompts import PromptLibrary, PromptSettings, PromptTemplate, PromptTemplateError, load_prompt
from prompts.diff import apply, diff, parts
from prompts.files import as_draft, as_yaml, parse_draft, parse_prompt, write_prompt
from prompts.library import SHIPPED
from prompts.template import _ASIDE, split_placeholders
from rag.evaluation.variants import Variant
from ui.app.app import App

PLAIN = st.text(st.characters(codec="utf-8"), max_size=20)
SCHEMAS = st.dictionaries(PLAIN, st.one_of(PLAIN, st.integers(), st.lists(PLAIN, max_size=2)), max_size=3)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0, 1, exclude_min=True),
    "top_k": st.integers(1),
    "repetition_penalty": st.floats(0, 10, exclude_min=True),
    "seed": st.integers(0, 2**31 - 1),
    "max_tokens": st.integers(1),
    "stop": st.lists(PLAIN, max_size=3).map(tuple),
    "json_schema": SCHEMAS,
    "style": st.sampled_from(["full", "sentence", "brief"]),
    "citations": st.sampled_from(["inline", "end", "none"]),
    "passages": st.integers(1, 1000),
    "refuse_below": st.floats(0, 1),
    "adapter": PLAIN.filter(bool),
}
SETTINGS = st.fixed_dictionaries({}, optional=FIELDS).map(lambda told: PromptSettings(**told))
NONE = PromptSettings()
WANTED: dict[str, Any] = {
    "temperature": 0.7,
    "top_p": 0.9,
    "top_k": 40,
    "repetition_penalty": 1.15,
    "seed": 7,
    "max_tokens": 123,
    "stop": ("\n\n", "Sources:"),
    "json_schema": {"type": "object", "required": ["answer"]},
    "style": "brief",
    "citations": "end",
    "passages": 2,
    "refuse_below": 0.4,
    "adapter": "citer",
}


def hash_before_settings(prompt: PromptTemplate) -> str:
    """The identity as it was told when no version could ask for anything."""
    told = prompt.model_dump(mode="json", exclude={*_ASIDE, "settings"})
    told = {key: value for key, value in told.items() if value or key == "fragments"}
    return hashlib.sha256(json.dumps(told, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


# The file


@given(settings=SETTINGS)
def test_settings_come_back_from_yaml_as_they_were(settings: PromptSettings) -> None:
    prompt = template(settings=settings)
    assert parse_prompt(as_yaml(prompt)) == prompt
    assert parse_draft(as_draft(prompt), prompt.name, prompt.version) == prompt


def test_settings_survive_a_file_and_a_saved_version(tmp_path: Path) -> None:
    prompt = template(settings=WANTED)
    write_prompt(tmp_path / "greeting" / "1.yaml", prompt)
    assert load_prompt(tmp_path / "greeting" / "1.yaml").settings == PromptSettings(**WANTED)
    library = PromptLibrary(tmp_path / "library")
    library.save(prompt, by="Ada", message="First.")
    assert PromptLibrary(tmp_path / "library").find("greeting").settings == PromptSettings(**WANTED)


def test_a_version_without_settings_has_none_in_its_file() -> None:
    assert "settings" not in as_yaml(template())
    assert "settings" not in as_draft(template())


def test_settings_stay_with_a_version_that_includes_another(tmp_path: Path) -> None:
    library = PromptLibrary(tmp_path)
    library.save(template(name="part", messages=[{"role": "user", "content": "Hi {{who}}."}]), by="a", message="m")
    library.save(
        template(messages=[{"role": "user", "content": "{{> part@1}}"}], settings=WANTED), by="a", message="m"
    )
    found = library.find("greeting")
    assert found.messages[0].content == "Hi {{who}}."
    assert found.settings == PromptSettings(**WANTED)


def test_changed_settings_of_a_saved_version_are_told(tmp_path: Path) -> None:
    library = PromptLibrary(tmp_path)
    library.save(template(settings={"seed": 1}), by="Ada", message="First.")
    path = tmp_path / "greeting" / "1.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("seed: 1", "seed: 2"), encoding="utf-8")
    with pytest.raises(PromptTemplateError, match="has changed since it was saved"):
        library.find("greeting")


@pytest.mark.parametrize(
    ("told", "where"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": "40"}, "top_k"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"seed": 2**31}, "seed"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": "END"}, "stop"),
        ({"json_schema": "object"}, "json_schema"),
        ({"style": "long"}, "style"),
        ({"citations": "footnotes"}, "citations"),
        ({"passages": 1001}, "passages"),
        ({"refuse_below": 1.5}, "refuse_below"),
        ({"refuse_below": float("nan")}, "refuse_below"),
        ({"k": 5}, "k"),
        ({"stop": ["half \ud800"]}, "surrogate"),
    ],
)
def test_settings_out_of_range_are_told_by_their_place(told: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError, match=where):
        template(settings=told)


def test_a_whole_number_is_a_temperature() -> None:
    assert template(settings={"temperature": 1, "refuse_below": 0}).settings.given == {
        "temperature": 1.0,
        "refuse_below": 0.0,
    }


# The identity


def test_a_version_without_settings_keeps_the_hash_that_it_had() -> None:
    shipped = [load_prompt(path) for path in sorted(SHIPPED.glob("*/*.yaml"))]
    plain = [each for each in shipped if each.settings == NONE]
    assert len(plain) > 10
    assert [each.sha256 for each in plain] == [hash_before_settings(each) for each in plain]


@given(text=ANY_TEXT)
def test_any_text_without_settings_keeps_the_hash_that_it_had(text: str) -> None:
    prompt = template(messages=[{"role": "user", "content": f"{text} {{{{who}}}}"}], variables=_variables(text))
    assert prompt.sha256 == hash_before_settings(prompt)


def _variables(text: str) -> list[str]:
    return sorted({name for _, name in split_placeholders(f"{text} {{{{who}}}}") if name})


@pytest.mark.parametrize(("name", "value"), WANTED.items())
def test_each_setting_is_part_of_the_hash(name: str, value: Any) -> None:
    assert set(WANTED) == set(PromptSettings.model_fields)
    assert template(settings={name: value}).sha256 != template().sha256


@given(one=SETTINGS, other=SETTINGS)
def test_the_hash_tells_settings_apart(one: PromptSettings, other: PromptSettings) -> None:
    same = json.dumps(one.given, sort_keys=True) == json.dumps(other.given, sort_keys=True)
    assert (template(settings=one).sha256 == template(settings=other).sha256) == same


# What differs


@given(old=SETTINGS, new=SETTINGS)
def test_a_diff_of_settings_leads_from_one_to_the_other(old: PromptSettings, new: PromptSettings) -> None:
    before, after = template(settings=old), template(settings=new)
    changes = diff(before, after)
    assert apply(before, changes) == parts(after)
    differing = {name for name in FIELDS if _told(old, name) != _told(new, name)}
    assert {change.where for change in changes} == {f"settings {name}" for name in differing}


def _told(settings: PromptSettings, name: str) -> str | None:
    return json.dumps(settings.given[name], ensure_ascii=False) if name in settings.given else None


def test_a_diff_says_what_a_setting_was_and_is() -> None:
    old = template(settings={"temperature": 0.5, "passages": 3})
    new = template(settings={"temperature": 0.7, "json_schema": {"type": "string"}})
    told = {change.where: (change.old, change.new) for change in diff(old, new)}
    assert told == {
        "settings temperature": ("0.5", "0.7"),
        "settings passages": ("3", None),
        "settings json_schema": (None, '{"type": "string"}'),
    }


# What follows it


def test_settings_reach_the_release(own_app: App) -> None:
    app = own_app
    release = app.releases.pipeline(
        variant=Variant(name="v", changes={"prompt": keep(app, "all-of-them", **WANTED)})
    ).release
    decoding = release.decoding
    assert (decoding.temperature, decoding.top_p, decoding.top_k) == (0.7, 0.9, 40)
    assert (decoding.repetition_penalty, decoding.seed, decoding.max_tokens) == (1.15, 7, 123)
    assert (decoding.stop, decoding.json_schema) == (WANTED["stop"], WANTED["json_schema"])
    assert (release.answer.style, release.answer.citations) == ("brief", "end")
    assert (release.k, release.grounding.min_confidence, release.grounding.min_support) == (2, 0.4, 0.4)
    assert release.prompt == "all-of-them@1"
    assert release.prompt_sha256 != app.releases.pipeline().release.prompt_sha256


async def test_settings_reach_the_answer(own_app: App) -> None:
    app = own_app
    label = keep(app, "one-place", passages=1, citations="none", temperature=1.0)
    variant = Variant(name="v", changes={"prompt": label})
    plain = await answered(app.releases.assistant(), QUESTION)
    answer = await answered(app.releases.assistant(variant), QUESTION)
    assert (len(plain.hits), len(answer.hits)) == (5, 1)
    assert "[1]" in plain.text
    assert "[1]" not in answer.text
    assert "1871" in answer.text
    assert answer.prompt == "one-place@1"
    assert answer.release == app.releases.pipeline(variant=variant).release.name != plain.release
    assert answer.notes == ("the model does not honour decoding.temperature",)
    # The settings of the process are as they were.
    assert (await answered(app.releases.assistant(), QUESTION)).text == plain.text


async def test_a_label_that_is_moved_brings_the_settings_of_its_version(own_app: App) -> None:
    app = own_app
    keep(app, "moving", passages=1)
    keep(app, "moving", passages=3)
    variant = Variant(name="v", changes={"prompt": "moving"})
    assert len((await answered(app.releases.assistant(variant), QUESTION)).hits) == 1
    app.stores.prompts.move("moving", "production", 2, by="Ada", message="Better.")
    assert len((await answered(app.releases.assistant(variant), QUESTION)).hits) == 3
