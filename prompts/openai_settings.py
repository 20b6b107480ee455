"""The settings in the body of an OpenAI request, and what of it a prompt cannot have.

Also those of servers with the same messages: Ollama has settings in ``options``, and OpenAI's Responses API and
Anthropic name some of them otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Parameters, and the settings of a prompt that they are; the last one wins.
_NAMES: Mapping[str, str] = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "repeat_penalty": "repetition_penalty",
    "repetition_penalty": "repetition_penalty",
    "seed": "seed",
    "num_predict": "max_tokens",
    "max_output_tokens": "max_tokens",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "stop_sequences": "stop",
    "stop": "stop",
    "format": "json_schema",
    "text": "json_schema",
    "response_format": "json_schema",
}


# Parts of a body with settings, and with messages.
_NESTED = ("options", "extra_body")
MESSAGES = ("messages", "input", "prompt")
_SYSTEM = ("instructions", "system")


def settings_of(body: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the settings of a body by name, and the parameters that are not settings of a prompt.

    Null is the same as absent.
    """
    nested = [name for name in _NESTED if isinstance(body.get(name), dict)]
    whole = {name: value for part in (*(body[name] for name in nested), body) for name, value in part.items()}
    aside = (*MESSAGES, *_SYSTEM, *nested)
    given = {name: value for name, value in whole.items() if value is not None and name not in aside}
    found: dict[str, Any] = {}
    for name, setting in _NAMES.items():
        if name in given:
            found[setting] = _value(name, given[name])
    return found, tuple(name for name in given if name not in _NAMES)


def _value(name: str, value: Any) -> Any:
    if name in ("stop", "stop_sequences"):
        return [value] if isinstance(value, str) else value
    if name == "response_format":
        return _schema(value)
    if name == "format":
        # Ollama's: a schema, or "json".
        return {"type": "object"} if value == "json" else value or None
    if name == "text":
        # Of the Responses API: {"format": {"type": "json_schema", "schema": …}}.
        form = value.get("format") if isinstance(value, dict) else value
        return None if form is None else _schema(form)
    return value


def _schema(form: Any) -> Any:
    """Return the JSON schema of a response format; None for free text."""
    if not isinstance(form, dict) or form.get("type") not in ("text", "json_object", "json_schema"):
        # Refused by the check of the settings, with its place.
        return form
    if form["type"] == "text":
        return None
    described = form if isinstance(form.get("schema"), dict) else form.get("json_schema")
    return described.get("schema") if isinstance(described, dict) else {"type": "object"}
