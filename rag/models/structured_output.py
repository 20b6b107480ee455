"""Answers as JSON: whether one fits its schema, what it claims, and how it is asked for again.

Schemas are of Draft 2020-12 (https://json-schema.org/draft/2020-12), and nothing is fetched for them. Text and
schema may come from outside: how long a check may take and how deep it may go is limited.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from prompts import PromptTemplate, PromptTemplateError
from rag.errors import PromptError, SettingsError
from rag.models.fencing import beside, without_tokens

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

LONGEST = 100_000
"""Characters of an answer, and of a schema."""
PATIENCE_S = 2.0
"""How long a check may take."""
DIALECT = "https://json-schema.org/draft/2020-12/schema"

_LONGEST_REASON = 300
_FENCE = "```"


class NotTheSchema(ValueError):
    """A text is no JSON, or does not fit its schema.

    Args:
        reason: The first thing that is wrong, with its place; without a full stop.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _TooLong(Exception):
    """The check has taken all of its time."""


def check_schema(schema: Mapping[str, Any]) -> None:
    """See that answers can be held to a schema.

    Raises:
        SettingsError: It is no JSON schema, it refers to what is not in it, or it uses what could take for ever.
    """
    from jsonschema import Draft202012Validator, SchemaError

    try:
        if len(json.dumps(schema, allow_nan=False)) > LONGEST:
            _refuse(f"it is longer than {LONGEST:,} characters")
        Draft202012Validator.check_schema(schema)
        _check_parts(dict(schema))
    except SchemaError as error:
        _refuse(f"at {error.json_path}: {error.message}", error)
    except (TypeError, ValueError, AttributeError) as error:
        _refuse(str(error), error)
    except RecursionError as error:
        _refuse("it is nested too deeply", error)


def parse(text: str, schema: Mapping[str, Any]) -> Any:
    """Read an answer.

    Args:
        text: JSON; white space around it and a fence of Markdown are passed over.
        schema: One that ``check_schema`` lets pass.

    Returns:
        What ``json.loads`` makes of it.

    Raises:
        NotTheSchema: It is no JSON, does not fit, or the check takes too long.
    """
    if len(text) > LONGEST:
        raise NotTheSchema(f"it is longer than {LONGEST:,} characters")
    from referencing.exceptions import Unresolvable

    try:
        value = _read(_unfenced(text.strip()))
        violation = next(_validator(schema).iter_errors(value), None)
        told = violation and f"at {violation.json_path}: {violation.message}"
    except RecursionError as error:
        raise NotTheSchema("it, or its schema, is nested too deeply") from error
    except Unresolvable as error:
        raise NotTheSchema(_shortened(f"its schema refers to what is not there: {error}")) from error
    except _TooLong as error:
        raise NotTheSchema(f"checking it takes more than {PATIENCE_S:g} seconds") from error
    if told:
        raise NotTheSchema(_shortened(told))
    return value


def claims_of(value: Any) -> str:
    """All texts of a JSON value in order, a paragraph each, so that they can be checked as sentences are.

    Names of properties, numbers and the like claim nothing of themselves.
    """
    texts: list[str] = []
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            texts.append(part.strip())
        elif isinstance(part, Mapping):
            waiting.extend(reversed([*part.values()]))
        elif isinstance(part, list):
            waiting.extend(reversed(part))
    return "\n\n".join(text for text in texts if text)


def repair_messages(
    messages: Sequence[BaseMessage], reply: str, reason: str, prompt: PromptTemplate, schema: Mapping[str, Any]
) -> list[BaseMessage]:
    """The conversation that asks a model for its answer again.

    Args:
        messages: What it was asked.
        reply: What it wrote; what is longer than an answer may be is left out.
        reason: Of ``NotTheSchema``.
        prompt: Says what is wrong, with the variables ``reason`` and ``schema``.

    Raises:
        PromptError: The prompt has other variables.
    """
    from langchain_core.messages import AIMessage, HumanMessage

    # The reason quotes what the model wrote, which may have it from a document.
    values = {"reason": beside(f"{reason}."), "schema": json.dumps(schema, ensure_ascii=False, indent=2)}
    try:
        asked = "\n\n".join(message.content for message in prompt.render(values))
    except PromptTemplateError as error:
        raise PromptError(str(error), fix="A prompt that asks again is given reason and schema.") from error
    return [*messages, AIMessage(without_tokens(reply[:LONGEST])), HumanMessage(asked)]


def _unfenced(text: str) -> str:
    if not text.startswith(_FENCE) or not text.endswith(_FENCE) or "\n" not in text:
        return text
    first, _, rest = text.partition("\n")
    return rest[: -len(_FENCE)] if first[len(_FENCE) :].strip().casefold() in ("", "json") else text


def _read(text: str) -> Any:
    try:
        value = json.loads(text, object_pairs_hook=_properties, parse_constant=_no_constant, parse_float=_finite)
        # Half of a character can be escaped, but nothing that keeps the answer takes it.
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise NotTheSchema(f"it is no JSON: {error.msg} at line {error.lineno}, column {error.colno}") from error
    except UnicodeEncodeError as error:
        raise NotTheSchema("it holds half of a character (a lone surrogate)") from error
    except NotTheSchema:
        raise
    except ValueError as error:
        raise NotTheSchema(_shortened(f"it is no JSON: {error}")) from error
    return value


def _properties(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise NotTheSchema(_shortened(f"it is no JSON: the property {name!r} stands there twice"))
        made[name] = value
    return made


def _no_constant(name: str) -> NoReturn:
    raise NotTheSchema(f"it is no JSON: {name} is no number")


def _finite(number: str) -> float:
    read = float(number)
    if not math.isfinite(read):
        raise NotTheSchema(_shortened(f"it is no JSON that can be read: {number} is too large"))
    return read


def _validator(schema: Mapping[str, Any]) -> Any:
    """A validator that gives up in time, fetches nothing, and cannot be held up by an expression."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend
    from referencing import Registry

    end = time.monotonic() + PATIENCE_S
    checks = Draft202012Validator.VALIDATORS | {"pattern": _pattern(end), "uniqueItems": _unique_items}
    timed = extend(  # type: ignore[no-untyped-call]
        Draft202012Validator, {name: _timed(check, end) for name, check in checks.items()}
    )
    # A part that names its dialect would be checked by a validator of the library's own.
    plain = {name: value for name, value in schema.items() if name != "$schema"}
    return timed(plain, registry=Registry())


def _timed(check: Callable[..., Any], end: float) -> Callable[..., Iterator[Any]]:
    def checked(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[Any]:
        if time.monotonic() > end:
            raise _TooLong
        yield from check(validator, wanted, value, schema) or ()

    return checked


def _pattern(end: float) -> Callable[..., Iterator[Any]]:
    import regex  # type: ignore[import-untyped]
    from jsonschema import ValidationError

    def check(validator: Any, wanted: str, value: Any, schema: Any) -> Iterator[Any]:
        try:
            left = max(end - time.monotonic(), 0.001)
            if isinstance(value, str) and not regex.search(wanted, value, timeout=left):
                yield ValidationError(f"{value!r} does not match {wanted!r}")
        except TimeoutError as error:
            raise _TooLong from error

    return check


def _unique_items(validator: Any, wanted: bool, value: Any, schema: Any) -> Iterator[Any]:
    # The library compares each with each where they cannot be sorted.
    from jsonschema import ValidationError

    if wanted and isinstance(value, list):
        told = {json.dumps(_comparable(each), sort_keys=True) for each in value}
        if len(told) < len(value):
            yield ValidationError("it has non-unique elements")


def _comparable(value: Any) -> Any:
    """The same value wherever JSON schema calls two values equal: 1.0 is 1."""
    if isinstance(value, dict):
        return {name: _comparable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_comparable(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _check_parts(schema: dict[str, Any]) -> None:
    """Look at every part of a schema, and at what its references lead to."""
    import regex
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    if schema.pop("$schema", DIALECT).rstrip("#") != DIALECT:
        _refuse("its $schema is not of Draft 2020-12")
    resolver = Registry().resolver_with_root(DRAFT202012.create_resource(schema))
    waiting: list[Any] = [schema]
    seen: set[int] = set()
    while waiting:
        part = waiting.pop()
        if not isinstance(part, dict) or id(part) in seen:
            continue
        seen.add(id(part))
        if "$schema" in part:
            _refuse("a part of it has a $schema of its own")
        if "patternProperties" in part:
            _refuse("it has patternProperties, whose expressions could take for ever")
        if isinstance(expression := part.get("pattern"), str):
            _compile(expression, regex)
        for reference in (part[name] for name in ("$ref", "$dynamicRef") if name in part):
            if not reference.startswith("#"):
                _refuse(f"it refers to {reference}, and only references within it (#…) are followed")
            try:
                waiting.append(resolver.lookup(reference).contents)
            except Unresolvable as error:
                _refuse(f"it refers to {reference}, which is not there", error)
        waiting.extend(DRAFT202012.subresources_of(part))


def _compile(expression: str, regex: Any) -> None:
    try:
        regex.compile(expression)
    except regex.error as error:
        _refuse(f"its pattern {expression!r} is no regular expression: {error}", error)


def _refuse(reason: str, cause: Exception | None = None) -> NoReturn:
    raise SettingsError(
        f"decoding.json_schema cannot be used: {_shortened(reason)}.",
        fix="Correct it: a JSON schema of Draft 2020-12 without references to elsewhere.",
    ) from cause


def _shortened(text: str) -> str:
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= _LONGEST_REASON else f"{line[: _LONGEST_REASON - 1]}…"
