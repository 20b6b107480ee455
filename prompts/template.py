"""Prompt templates: messages with named placeholders, filled in one pass so that no value can inject another."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from prompts.parts import Part, PromptSettings
from prompts.validation import first_problem

Role = Literal["system", "user", "assistant"]

NAME = r"[a-z][a-z0-9-]*"
_PLACEHOLDER = re.compile(r"\{\{\s*([a-z][a-z0-9_]*)\s*\}\}")
PlaceholderName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
_INCLUDE = re.compile(rf"\{{\{{>\s*({NAME}(?:@[a-z0-9-]+)?)\s*\}}\}}")
# A placeholder or an include.
PLACE = re.compile(f"{_PLACEHOLDER.pattern}|{_INCLUDE.pattern}")
# Fields that are not part of the identity of a version.
_ASIDE = frozenset({"name", "version", "description", "tags", "variables", "saved"})


class PromptTemplateError(ValueError):
    """A template is malformed or missing, or the values do not match its variables."""


class Message(Part):
    """One message of a chat."""

    role: Role
    content: str


class Saved(Part):
    """The save record of a version.

    Attributes:
        by: The author.
        at: The time of saving.
        message: The reason for the change.
        sha256: ``PromptTemplate.sha256`` at that time, to detect later changes.
    """

    by: str
    at: datetime = Field(strict=False)
    message: str
    sha256: str


class PromptTemplate(Part):
    """One immutable version of a named prompt.

    A placeholder is written ``{{name}}``; ``{{> NAME@VERSION}}`` or ``{{> NAME@LABEL}}`` includes the text of
    another prompt, which must have a single message.

    Attributes:
        variables: The placeholders of ``messages``, including those of included prompts.
        example: Template of one few-shot example, shown before the last message.
        examples: Few-shot examples: values for the placeholders of ``example``.
        fragments: Named snippets with placeholders of their own that the caller fills as often as needed, such as
            a retrieved passage.
        settings: Answer settings.
        saved: Save record; None for a hand-written file.
    """

    name: str = Field(pattern=rf"^{NAME}$")
    version: int = Field(ge=1)
    description: str
    tags: tuple[str, ...] = Field(default=(), strict=False)
    variables: tuple[str, ...] = Field(strict=False)
    messages: tuple[Message, ...] = Field(min_length=1, strict=False)
    example: tuple[Message, ...] = Field(default=(), strict=False)
    examples: tuple[Mapping[PlaceholderName, str], ...] = Field(default=(), strict=False)
    fragments: Mapping[PlaceholderName, str] = Field(default_factory=dict)
    settings: PromptSettings = PromptSettings()
    saved: Saved | None = None

    @model_validator(mode="after")
    def _placeholders_are_variables(self) -> PromptTemplate:
        used = set(placeholders(self.messages))
        declared = set(self.variables)
        undeclared = used - declared
        # Included prompts add placeholders of their own.
        unused = set() if self.includes else declared - used
        if undeclared or unused:
            missing = ", ".join(sorted(undeclared)) or "none"
            idle = ", ".join(sorted(unused)) or "none"
            raise ValueError(f"used but not declared: {missing}; declared but not used: {idle}")
        return self

    @model_validator(mode="after")
    def _examples_can_be_shown(self) -> PromptTemplate:
        if bool(self.example) != bool(self.examples):
            raise ValueError("example and examples must be given together")
        wanted = set(placeholders(self.example))
        for number, values in enumerate(self.examples, 1):
            mismatch = _mismatch(wanted, values)
            if mismatch and not _included(self.example):
                raise ValueError(f"examples {number} does not match example: {mismatch}")
        return self

    @property
    def label(self) -> str:
        """``NAME@VERSION``."""
        return f"{self.name}@{self.version}"

    @property
    def includes(self) -> tuple[str, ...]:
        """References to the included prompts, in order."""
        return _included((*self.messages, *self.example))

    @property
    def sha256(self) -> str:
        """Hexadecimal hash of the content that is sent, without descriptions and tags."""
        content = self.model_dump(mode="json", exclude=set(_ASIDE)) | {"settings": self.settings.given}
        content = {key: value for key, value in content.items() if value or key == "fragments"}
        return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=True).encode()).hexdigest()

    def resolved(self, find: Callable[[str], PromptTemplate], path: Sequence[str] = ()) -> PromptTemplate:
        """Return the prompt with its includes replaced by their text.

        Args:
            find: Finds a prompt by its reference.
            path: Labels of the prompts that include this one.

        Raises:
            PromptTemplateError: A prompt includes itself, or an included one has several messages or undeclared
                placeholders.
        """
        if not self.includes:
            return self
        path = (*path, self.label)

        def text(found: re.Match[str]) -> str:
            prompt = find(found[1])
            if prompt.label in path:
                raise PromptTemplateError(
                    f"A prompt must not include itself: {' > '.join((*path, prompt.label))}."
                )
            if len(prompt.messages) != 1:
                raise PromptTemplateError(
                    f"The prompt {self.label} includes {prompt.label}, which has {len(prompt.messages)} messages: "
                    "only a prompt with a single message can be included."
                )
            return prompt.resolved(find, path).messages[0].content

        def expand(messages: Sequence[Message]) -> list[dict[str, str]]:
            return [{"role": one.role, "content": _INCLUDE.sub(text, one.content)} for one in messages]

        changes = {"messages": expand(self.messages), "example": expand(self.example)}
        try:
            return type(self).model_validate(self.model_dump() | changes)
        except ValidationError as error:
            raise PromptTemplateError(
                f"The prompt {self.label} does not match its includes: {first_problem(error, PromptTemplate)}."
            ) from error

    def render(self, values: Mapping[str, str]) -> tuple[Message, ...]:
        """Fill the placeholders of all messages and insert the examples before the last one.

        Args:
            values: Exactly one value per variable.

        Raises:
            PromptTemplateError: A value is missing or unknown; the message names it.
        """
        _check(self.label, set(self.variables), values)
        *first, last = _filled_all(self.messages, values)
        return (*first, *self.shown_examples, last)

    @property
    def shown_examples(self) -> tuple[Message, ...]:
        """The few-shot examples as messages."""
        return tuple(message for values in self.examples for message in _filled_all(self.example, values))

    def fragment(self, name: str, values: Mapping[str, str]) -> str:
        """Fill the placeholders of a fragment.

        Raises:
            PromptTemplateError: There is no such fragment, or a value is missing or unknown.
        """
        if name not in self.fragments:
            raise PromptTemplateError(f"The prompt {self.label} has no fragment {name}.")
        text = self.fragments[name]
        _check(f"{self.label}, fragment {name}", set(placeholders_in(text)), values)
        return _filled(text, values)


def check_name(name: str) -> None:
    """Raise PromptTemplateError unless the text can be the name of a prompt."""
    if not re.fullmatch(NAME, name):
        raise PromptTemplateError(
            f"The name {name!r} is invalid: use lower-case letters, digits and dashes, a letter first."
        )


def placeholders(messages: Sequence[Message]) -> tuple[str, ...]:
    """Return the distinct placeholder names of messages, in order."""
    return tuple(dict.fromkeys(name for message in messages for name in placeholders_in(message.content)))


def placeholders_in(text: str) -> list[str]:
    """Return the placeholder names of a text, in order."""
    return _PLACEHOLDER.findall(text)


def split_placeholders(text: str) -> list[tuple[str, str]]:
    """Split a text at its placeholders into pairs of a text and the name after it; the last name is empty."""
    *pieces, last = _PLACEHOLDER.split(text)
    return [*zip(pieces[::2], pieces[1::2], strict=True), (last, "")]


def _included(messages: Sequence[Message]) -> tuple[str, ...]:
    return tuple(reference for message in messages for reference in _INCLUDE.findall(message.content))


def _check(where: str, wanted: set[str], values: Mapping[str, Any]) -> None:
    mismatch = _mismatch(wanted, values)
    if mismatch:
        raise PromptTemplateError(f"The values do not match the prompt {where}: {mismatch}.")


def _mismatch(wanted: set[str], values: Mapping[str, Any]) -> str:
    missing = sorted(wanted - set(values))
    unknown = sorted(set(values) - wanted)
    return "; ".join(
        f"{what} {', '.join(names)}" for what, names in (("missing", missing), ("unknown", unknown)) if names
    )


def _filled_all(messages: Sequence[Message], values: Mapping[str, str]) -> list[Message]:
    return [Message(role=one.role, content=_filled(one.content, values)) for one in messages]


def _filled(text: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda place: values[place.group(1)], text)
