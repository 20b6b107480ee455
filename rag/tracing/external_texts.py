"""The question and the answer in the data of other programs, which have no common form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# In order of preference.
_ASKED = ("question", "query", "input", "prompt", "user_input", "text", "content", "messages", "inputs", "kwargs")
_ANSWERED = (
    *("answer", "output", "result", "response", "text", "content", "generation", "choices", "message", "messages"),
    *("outputs", "kwargs"),
)
_HUMAN = ("user", "human")
_DEEPEST = 20


def question_in(value: object) -> str:
    """Return what was asked, from the input of a program; empty if nothing looks like it."""
    return _text(value, _ASKED)


def answer_in(value: object) -> str:
    """Return what was answered, from the output of a program; empty if nothing looks like it."""
    return _text(value, _ANSWERED)


def messages_in(value: object) -> list[Any]:
    """Return messages with ``role`` and ``content``, where a message of the conventions has parts."""
    messages = value if isinstance(value, list) else [value] if isinstance(value, dict) else []
    return [
        {"role": str(message.get("role", "")), "content": _parts(message["parts"])}
        if isinstance(message, dict) and isinstance(message.get("parts"), list)
        else message
        for message in messages
    ]


def _text(value: object, names: Sequence[str], depth: int = 0) -> str:
    if isinstance(value, str):
        return value
    if depth == _DEEPEST:
        return ""
    if isinstance(value, list):
        return _list_text(value, names, depth)
    if isinstance(value, dict):
        if isinstance(value.get("parts"), list):
            return _parts(value["parts"])
        for name in names:
            if value.get(name) and (text := _text(value[name], names, depth + 1)):
                return text
    return ""


def _list_text(values: list[Any], names: Sequence[str], depth: int) -> str:
    if values and all(isinstance(value, dict) and value.get("type") == "text" for value in values):
        return _parts(values)
    asked = [value for value in values if isinstance(value, dict) and _role(value) in _HUMAN]
    chosen = asked if names is _ASKED and asked else values
    # The question of a conversation, and the answer of a batch, are at its end.
    return _text(chosen[-1], names, depth + 1) if chosen else ""


def _parts(parts: object) -> str:
    found = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return "".join(str(part.get("content") or part.get("text") or "") for part in found)


def _role(message: Mapping[str, Any]) -> str:
    """Return the role of a message; LangChain writes it as the type, also of the arguments of a class."""
    kwargs = message.get("kwargs")
    within = kwargs if isinstance(kwargs, dict) else message
    return str(within.get("role") or within.get("type") or "").lower()
