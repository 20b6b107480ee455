"""A prompt template: messages with named places, filled in one pass, so that no value can change its shape."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Role = Literal["system", "user", "assistant"]

_PLACE = re.compile(r"\{\{\s*([a-z][a-z0-9_]*)\s*\}\}")


class PromptTemplateError(ValueError):
    """A template is malformed, or the values do not fit its variables."""


class Message(BaseModel):
    """One message of a chat."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    role: Role
    content: str


class PromptTemplate(BaseModel):
    """One immutable version of a named prompt.

    A place is written ``{{name}}``. ``fragments`` are pieces with places of their own, filled by the caller as
    often as it needs, such as one retrieved passage.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    version: int = Field(ge=1)
    description: str
    variables: tuple[str, ...] = Field(strict=False)
    messages: tuple[Message, ...] = Field(min_length=1, strict=False)
    fragments: Mapping[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _places_are_variables(self) -> PromptTemplate:
        used = {name for message in self.messages for name in _PLACE.findall(message.content)}
        declared = set(self.variables)
        if used != declared:
            missing = ", ".join(sorted(used - declared)) or "none"
            unused = ", ".join(sorted(declared - used)) or "none"
            raise ValueError(f"used but not declared: {missing}; declared but not used: {unused}")
        return self

    @property
    def label(self) -> str:
        """``NAME@VERSION``."""
        return f"{self.name}@{self.version}"

    @property
    def sha256(self) -> str:
        """The identity of what is sent: messages and fragments, 64 hexadecimal digits."""
        told = {
            "messages": [message.model_dump() for message in self.messages],
            "fragments": dict(self.fragments),
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True, ensure_ascii=True).encode()).hexdigest()

    def render(self, values: Mapping[str, str]) -> tuple[Message, ...]:
        """Fill the places of all messages.

        Args:
            values: One for each variable, no more and no less.

        Raises:
            PromptTemplateError: A value is missing or unknown; the message names it.
        """
        _check(self.label, set(self.variables), values)
        return tuple(
            Message(role=message.role, content=_filled(message.content, values)) for message in self.messages
        )

    def fragment(self, name: str, values: Mapping[str, str]) -> str:
        """Fill the places of one fragment.

        Raises:
            PromptTemplateError: There is no such fragment, or a value is missing or unknown.
        """
        if name not in self.fragments:
            raise PromptTemplateError(f"The prompt {self.label} has no fragment {name}.")
        text = self.fragments[name]
        _check(f"{self.label}, fragment {name}", set(_PLACE.findall(text)), values)
        return _filled(text, values)


def _check(where: str, wanted: set[str], values: Mapping[str, str]) -> None:
    missing = sorted(wanted - set(values))
    unknown = sorted(set(values) - wanted)
    if missing or unknown:
        told = [
            f"{what} {', '.join(names)}" for what, names in (("missing", missing), ("unknown", unknown)) if names
        ]
        raise PromptTemplateError(f"The values do not fit the prompt {where}: {'; '.join(told)}.")


def _filled(text: str, values: Mapping[str, str]) -> str:
    return _PLACE.sub(lambda place: values[place.group(1)], text)
