"""The settings in the body of an OpenAI request, and what of it a prompt cannot have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Parameters, and the settings of a prompt that they are; the last one wins.
_NAMES: Mapping[str, str] = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "repetition_penalty": "repetition_penalty",
    "seed": "seed",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "stop": "stop",
    "response_format": "json_schema",
}


def settings_of(body: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the settings of a body by name, and the parameters that are not settings of a prompt.

    Null is the same as absent.
    """
    given = {name: value for name, value in body.items() if value is not None and name != "messages"}
    found: dict[str, Any] = {}
    for name, setting in _NAMES.items():
        if name in given:
            found[setting] = _value(name, given[name])
    return found, tuple(name for name in given if name not in _NAMES)


def _value(name: str, value: Any) -> Any:
    if name == "stop":
        return [value] if isinstance(value, str) else value
    if name == "response_format":
        return _schema(value)
    return value


def _schema(form: Any) -> Any:
    """Return the JSON schema of a response format; None for free text."""
    if not isinstance(form, dict) or form.get("type") not in ("text", "json_object", "json_schema"):
        # Refused by the check of the settings, with its place.
        return form
    if form["type"] == "text":
        return None
    described = form.get("json_schema")
    return described.get("schema") if isinstance(described, dict) else {"type": "object"}
