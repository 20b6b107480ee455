"""Variants: alternative settings that are compared side by side or over a dataset.

Later settings override earlier ones: those of the process, of the prompt version, of the variant.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from prompts import PromptSettings
from prompts.validation import closest, field_names, plain_reason, unknown_name
from rag.errors import SettingsError
from rag.models.chat_models import check_model_name
from rag.settings import Settings
from rag.types import current_model

# The sections and fields that a variant may change.
SECTIONS = ("retrieval", "decoding", "answer", "grounding")
FIELDS = ("prompt", "model", "local.adapter", "reader.adapter")
# Settings of a prompt version, and the settings that they override.
PROMPT_SETTINGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "temperature": ("decoding.temperature",),
        "top_p": ("decoding.top_p",),
        "top_k": ("decoding.top_k",),
        "repetition_penalty": ("decoding.repetition_penalty",),
        "seed": ("decoding.seed",),
        "max_tokens": ("decoding.max_tokens",),
        "stop": ("decoding.stop",),
        "json_schema": ("decoding.json_schema",),
        "style": ("answer.style",),
        "citations": ("answer.citations",),
        "passages": ("retrieval.k",),
        # The probability of an extractive reader, and the support for any other model.
        "refuse_below": ("grounding.min_confidence", "grounding.min_support"),
        "adapter": ("local.adapter",),
    }
)
_NAMED = re.compile(r"\s*(?P<name>[^=:]+):(?:\s+(?P<rest>.*))?", re.DOTALL)


class Variant(BaseModel):
    """One variant.

    Attributes:
        name: Display name, 1 to 80 characters.
        changes: Settings by their dotted names, such as ``retrieval.k``; ``prompt`` names a version or a label.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=80)
    changes: dict[str, JsonValue] = Field(default_factory=dict)

    @field_validator("changes")
    @classmethod
    def _names_a_current_model(cls, changes: dict[str, JsonValue]) -> dict[str, JsonValue]:
        model = changes.get("model")
        return changes | {"model": current_model(model)} if isinstance(model, str) else changes


def parse_variants(text: str) -> list[Variant]:
    """Parse variants, one on each line; see ``parse_variant``."""
    return [parse_variant(line) for line in text.splitlines() if line.strip()]


def parse_variant(text: str) -> Variant:
    """Parse ``NAME: SETTING=VALUE SETTING=VALUE``.

    The default name is the changes, or ``baseline`` without changes. Values are parsed as JSON if possible, else
    they are texts; quoting works like in a shell.

    Raises:
        SettingsError: The text is malformed, or names a setting that a variant cannot change.
    """
    named = _NAMED.fullmatch(text)
    name, rest = (named["name"].strip(), named["rest"] or "") if named else ("", text)
    where = f"the variant {text!r}"
    words = _words(rest, where)
    form = "Write `NAME: SETTING=VALUE …`, such as `longer: prompt=answer@2 retrieval.k=8`."
    changes = _changes(words, where, form)
    try:
        return Variant(name=name or " ".join(words) or "baseline", changes=changes)
    except ValidationError as error:
        raise SettingsError(
            f"The name of the variant {text!r} is invalid: {plain_reason(error.errors()[0]['msg'])}.",
            fix="Use a short name: `NAME: SETTING=VALUE …`.",
        ) from error


def parse_changes(text: str, where: str) -> dict[str, JsonValue]:
    """Parse ``SETTING=VALUE SETTING=VALUE``; see ``parse_variant``.

    Args:
        where: What has the text, for messages.

    Raises:
        SettingsError: The text is malformed, or names a setting that a variant cannot change.
    """
    return _changes(
        _words(text, where), where, "Write `SETTING=VALUE …`, such as `retrieval.k=8 answer.style=brief`."
    )


def _words(text: str, where: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise SettingsError(f"A quote in {where} is not closed.", fix="Close it.") from error


def _changes(words: Sequence[str], where: str, form: str) -> dict[str, JsonValue]:
    changes: dict[str, JsonValue] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise SettingsError(f"{word!r} in {where} must have the form SETTING=VALUE.", fix=form)
        _check_name(key)
        changes[key] = _value(value)
    return changes


def with_changes(settings: Settings, changes: Mapping[str, JsonValue]) -> Settings:
    """Return the settings with changes.

    Raises:
        SettingsError: A name is unknown or not changeable, or a value is out of range.
    """
    grouped: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        _check_name(name)
        section, dot, field = name.partition(".")
        grouped.setdefault(section if dot else "", {})[field or section] = value
    updates: dict[str, Any] = {}
    for section, values in grouped.items():
        current: BaseModel = getattr(settings, section) if section else settings
        for field in values:
            if field not in type(current).model_fields:
                known = tuple(f"{section}.{one}" for one in type(current).model_fields)
                name = f"{section}.{field}"
                problem = unknown_name(name, closest(name, known), "setting")
                raise SettingsError(f"U{problem[1:]}.", fix=f"Use one of: {', '.join(known)}.")
        if not section:
            if wrong := [field for field, value in values.items() if not isinstance(value, str)]:
                raise SettingsError(
                    f"The setting {wrong[0]} of a variant must be a text.", fix="Put it in quotes."
                )
            if "model" in values:
                values["model"] = check_model_name(values["model"])
            updates |= values
            continue
        try:
            updates[section] = type(current).model_validate(current.model_dump() | values)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            where = ".".join(str(part) for part in (section, *first["loc"]))
            raise SettingsError(
                f"The setting {where} of a variant is invalid: {first['msg']}.", fix="Correct the variant."
            ) from error
    return settings.model_copy(update=updates)


def with_prompt(settings: Settings, wanted: PromptSettings) -> Settings:
    """Return the settings with those of a prompt version.

    Raises:
        SettingsError: A value is out of range.
    """
    given = wanted.given
    return with_changes(
        settings,
        {target: given[name] for name, targets in PROMPT_SETTINGS.items() for target in targets if name in given},
    )


def _check_name(name: str) -> None:
    section, _, field = name.partition(".")
    if name in FIELDS or (section in SECTIONS and field):
        return
    known = (*FIELDS, *(one for one in field_names(Settings) if one.partition(".")[0] in SECTIONS))
    near = closest(name, known)
    raise SettingsError(
        f"A variant cannot change {name!r}.",
        fix=f"{f'Did you mean `{near}`? ' if near else ''}It can change {', '.join(FIELDS)}, and the settings of "
        f"{', '.join(SECTIONS)}.",
    )


def _value(text: str) -> JsonValue:
    try:
        value: JsonValue = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value
