"""A prompt template: messages with named places, filled in one pass, so that no value can change its shape."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from prompts.parts import Part, PromptSettings

Role = Literal["system", "user", "assistant"]

NAME = r"[a-z][a-z0-9-]*"
_PLACE = re.compile(r"\{\{\s*([a-z][a-z0-9_]*)\s*\}\}")
PlaceName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
_INCLUDE = re.compile(rf"\{{\{{>\s*({NAME}(?:@[a-z0-9-]+)?)\s*\}}\}}")
# What is not part of the identity of a version.
_ASIDE = frozenset({"name", "version", "description", "tags", "variables", "saved"})


class PromptTemplateError(ValueError):
    """A template is malformed or missing, or the values do not fit its variables."""


class Message(Part):
    """One message of a chat."""

    role: Role
    content: str


class Saved(Part):
    """When a version came to be.

    Attributes:
        message: Why.
        sha256: ``PromptTemplate.sha256`` at that time: a version that was changed afterwards is told by it.
    """

    by: str
    at: datetime = Field(strict=False)
    message: str
    sha256: str


class PromptTemplate(Part):
    """One immutable version of a named prompt.

    A place is written ``{{name}}``; ``{{> NAME@VERSION}}`` or ``{{> NAME@LABEL}}`` stands for the text of another
    prompt, which has one message.

    Attributes:
        variables: The places of ``messages``, those of what they include among them.
        example: How one of ``examples`` is shown: before the last message, with places of its own.
        examples: Few-shot examples, a value for each place of ``example``.
        fragments: Pieces with places of their own, filled by the caller as often as it needs, such as one
            retrieved passage.
        settings: How it wants to be answered.
        saved: None where a person wrote the file.
    """

    name: str = Field(pattern=rf"^{NAME}$")
    version: int = Field(ge=1)
    description: str
    tags: tuple[str, ...] = Field(default=(), strict=False)
    variables: tuple[str, ...] = Field(strict=False)
    messages: tuple[Message, ...] = Field(min_length=1, strict=False)
    example: tuple[Message, ...] = Field(default=(), strict=False)
    examples: tuple[Mapping[PlaceName, str], ...] = Field(default=(), strict=False)
    fragments: Mapping[PlaceName, str] = Field(default_factory=dict)
    settings: PromptSettings = PromptSettings()
    saved: Saved | None = None

    @model_validator(mode="after")
    def _places_are_variables(self) -> PromptTemplate:
        used = set(places(self.messages))
        declared = set(self.variables)
        undeclared = used - declared
        # What is included brings places of its own.
        unused = set() if self.includes else declared - used
        if undeclared or unused:
            missing = ", ".join(sorted(undeclared)) or "none"
            idle = ", ".join(sorted(unused)) or "none"
            raise ValueError(f"used but not declared: {missing}; declared but not used: {idle}")
        return self

    @model_validator(mode="after")
    def _examples_can_be_shown(self) -> PromptTemplate:
        if bool(self.example) != bool(self.examples):
            raise ValueError("example, which says how one is shown, and examples belong together")
        wanted = set(places(self.example))
        for number, each in enumerate(self.examples, 1):
            told = _unfit(wanted, each)
            if told and not _included(self.example):
                raise ValueError(f"examples {number} does not fit example: {told}")
        return self

    @property
    def label(self) -> str:
        """``NAME@VERSION``."""
        return f"{self.name}@{self.version}"

    @property
    def includes(self) -> tuple[str, ...]:
        """References to what stands in it, in order."""
        return _included((*self.messages, *self.example))

    @property
    def sha256(self) -> str:
        """The identity of what is sent, 64 hexadecimal digits; descriptions and tags do not count."""
        told = self.model_dump(mode="json", exclude=set(_ASIDE)) | {"settings": self.settings.given}
        told = {key: value for key, value in told.items() if value or key == "fragments"}
        return hashlib.sha256(json.dumps(told, sort_keys=True, ensure_ascii=True).encode()).hexdigest()

    def resolved(self, find: Callable[[str], PromptTemplate], path: Sequence[str] = ()) -> PromptTemplate:
        """The same with what it includes in its place.

        Args:
            find: Finds a prompt by its reference.
            path: Labels of those that include this one.

        Raises:
            PromptTemplateError: One includes itself, has more than one message, or brings places that are no
                variables.
        """
        if not self.includes:
            return self
        path = (*path, self.label)

        def text(found: re.Match[str]) -> str:
            prompt = find(found[1])
            if prompt.label in path:
                raise PromptTemplateError(f"A prompt includes itself: {' > '.join((*path, prompt.label))}.")
            if len(prompt.messages) != 1:
                raise PromptTemplateError(
                    f"The prompt {self.label} includes {prompt.label}, which has {len(prompt.messages)} messages: "
                    "only a prompt with a single message can be included."
                )
            return prompt.resolved(find, path).messages[0].content

        def whole(messages: Sequence[Message]) -> list[dict[str, str]]:
            return [{"role": each.role, "content": _INCLUDE.sub(text, each.content)} for each in messages]

        changes = {"messages": whole(self.messages), "example": whole(self.example)}
        try:
            return PromptTemplate.model_validate(self.model_dump() | changes)
        except ValidationError as error:
            raise PromptTemplateError(
                f"The prompt {self.label} does not fit what it includes: {told_of(error)}."
            ) from error

    def render(self, values: Mapping[str, str]) -> tuple[Message, ...]:
        """Fill the places of all messages; the examples stand before the last one.

        Args:
            values: One for each variable, no more and no less.

        Raises:
            PromptTemplateError: A value is missing or unknown; the message names it.
        """
        _check(self.label, set(self.variables), values)
        *first, last = _filled_all(self.messages, values)
        return (*first, *self.shown_examples, last)

    @property
    def shown_examples(self) -> tuple[Message, ...]:
        """The few-shot examples as messages."""
        return tuple(message for each in self.examples for message in _filled_all(self.example, each))

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


def told_of(error: ValidationError) -> str:
    """The first thing that is wrong, with its place."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{f'at {where}: ' if where else ''}{first['msg']}"


def places(messages: Sequence[Message]) -> tuple[str, ...]:
    """The names of the places of messages, each once, in order."""
    return tuple(dict.fromkeys(name for message in messages for name in _PLACE.findall(message.content)))


def split_places(text: str) -> list[tuple[str, str]]:
    """A text in pieces, each with the place behind it; the last one has none."""
    *pieces, last = _PLACE.split(text)
    return [*zip(pieces[::2], pieces[1::2], strict=True), (last, "")]


def _included(messages: Sequence[Message]) -> tuple[str, ...]:
    return tuple(reference for message in messages for reference in _INCLUDE.findall(message.content))


def _check(where: str, wanted: set[str], values: Mapping[str, Any]) -> None:
    told = _unfit(wanted, values)
    if told:
        raise PromptTemplateError(f"The values do not fit the prompt {where}: {told}.")


def _unfit(wanted: set[str], values: Mapping[str, Any]) -> str:
    missing = sorted(wanted - set(values))
    unknown = sorted(set(values) - wanted)
    return "; ".join(
        f"{what} {', '.join(names)}" for what, names in (("missing", missing), ("unknown", unknown)) if names
    )


def _filled_all(messages: Sequence[Message], values: Mapping[str, str]) -> list[Message]:
    return [Message(role=each.role, content=_filled(each.content, values)) for each in messages]


def _filled(text: str, values: Mapping[str, str]) -> str:
    return _PLACE.sub(lambda place: values[place.group(1)], text)
