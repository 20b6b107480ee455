"""JSON answers: validation against a schema, extraction of claims, and the request for a corrected answer.

Schemas follow Draft 2020-12 (https://json-schema.org/draft/2020-12); nothing is fetched for them. Text and schema
may be untrusted, so time and depth of a check are limited.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from prompts import PromptTemplate
from rag.errors import SettingsError, prompt_errors
from rag.models.fencing import beside, without_tokens

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

LONGEST = 100_000
"""Maximum characters of an answer, and of a schema."""
PATIENCE_S = 2.0
"""Maximum seconds of a check."""
DIALECT = "https://json-schema.org/draft/2020-12/schema"

_LONGEST_REASON = 300
_FENCE = "```"


class NotTheSchema(ValueError):
    """A text is not JSON, or does not match its schema.

    Args:
        reason: The first problem with its location, without a full stop.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _TooLong(Exception):
    """The check has exceeded its time."""


def check_schema(schema: Mapping[str, Any]) -> None:
    """Check that a schema can be used to validate answers.

    Raises:
        SettingsError: It is not a JSON schema, has external references, or uses features of unbounded cost.
    """
    from jsonschema import Draft202012Validator, SchemaError

    try:
        if len(json.dumps(schema, allow_nan=False)) > LONGEST:
            _refuse(f"it must have at most {LONGEST:,} characters")
        Draft202012Validator.check_schema(schema)
        _check_parts(dict(schema))
    except SchemaError as error:
        _refuse(f"at {error.json_path}: {error.message}", error)
    except (TypeError, ValueError, AttributeError) as error:
        _refuse(str(error), error)
    except RecursionError as error:
        _refuse("it is nested too deeply", error)


def parse(text: str, schema: Mapping[str, Any]) -> Any:
    """Parse and validate an answer.

    Args:
        text: JSON; surrounding white space and a Markdown fence are ignored.
        schema: A schema that ``check_schema`` accepts.

    Returns:
        The parsed value.

    Raises:
        NotTheSchema: The text is not JSON or does not match the schema, or the check takes too long.
    """
    if len(text) > LONGEST:
        raise NotTheSchema(f"it must have at most {LONGEST:,} characters")
    from referencing.exceptions import Unresolvable

    try:
        value = _read(_unfenced(text.strip()))
        violation = next(_validator(schema).iter_errors(value), None)
        problem = violation and f"at {violation.json_path}: {violation.message}"
    except RecursionError as error:
        raise NotTheSchema("it, or its schema, is nested too deeply") from error
    except Unresolvable as error:
        raise NotTheSchema(_shortened(f"its schema has an unresolvable reference: {error}")) from error
    except _TooLong as error:
        raise NotTheSchema(f"checking it takes more than {PATIENCE_S:g} seconds") from error
    if problem:
        raise NotTheSchema(_shortened(problem))
    return value


def claims_of(value: Any) -> str:
    """Return all strings of a JSON value as paragraphs, in order, so that their claims can be checked.

    Property names, numbers and other values make no claims.
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
    """Return the conversation that asks a model to correct its answer.

    Args:
        messages: The original messages.
        reply: The model's reply, which is truncated to the maximum length.
        reason: The reason of ``NotTheSchema``.
        prompt: The prompt for a correction, with the variables ``reason`` and ``schema``.
        schema: The schema.

    Raises:
        PromptError: The prompt has other variables.
    """
    from langchain_core.messages import AIMessage, HumanMessage

    # The reason quotes the reply, which may contain text of a document.
    values = {"reason": beside(f"{reason}."), "schema": json.dumps(schema, ensure_ascii=False, indent=2)}
    with prompt_errors("Declare exactly the variables reason and schema in it."):
        asked = "\n\n".join(message.content for message in prompt.render(values))
    return [*messages, AIMessage(without_tokens(reply[:LONGEST])), HumanMessage(asked)]


def _unfenced(text: str) -> str:
    if not text.startswith(_FENCE) or not text.endswith(_FENCE) or "\n" not in text:
        return text
    first, _, rest = text.partition("\n")
    return rest[: -len(_FENCE)] if first[len(_FENCE) :].strip().casefold() in ("", "json") else text


def _read(text: str) -> Any:
    try:
        value = json.loads(text, object_pairs_hook=_properties, parse_constant=_no_constant, parse_float=_finite)
        # Lone surrogates can be escaped in JSON, but not stored.
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise NotTheSchema(f"invalid JSON: {error.msg} at line {error.lineno}, column {error.colno}") from error
    except UnicodeEncodeError as error:
        raise NotTheSchema("text must not contain lone surrogates") from error
    except NotTheSchema:
        raise
    except ValueError as error:
        raise NotTheSchema(_shortened(f"invalid JSON: {error}")) from error
    return value


def _properties(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for name, value in pairs:
        if name in properties:
            raise NotTheSchema(_shortened(f"invalid JSON: the property {name!r} occurs twice"))
        properties[name] = value
    return properties


def _no_constant(name: str) -> NoReturn:
    raise NotTheSchema(f"invalid JSON: {name} is not allowed")


def _finite(number: str) -> float:
    read = float(number)
    if not math.isfinite(read):
        raise NotTheSchema(_shortened(f"invalid JSON: the number {number} is too large"))
    return read


def _validator(schema: Mapping[str, Any]) -> Any:
    """Build a validator with a time limit for all checks, including regular expressions, that fetches nothing."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend
    from referencing import Registry

    end = time.monotonic() + PATIENCE_S
    checks = Draft202012Validator.VALIDATORS | {"pattern": _pattern(end), "uniqueItems": _unique_items}
    timed = extend(  # type: ignore[no-untyped-call]
        Draft202012Validator, {name: _timed(check, end) for name, check in checks.items()}
    )
    # With its $schema, the library would choose its own validator.
    plain = {name: value for name, value in schema.items() if name != "$schema"}
    return timed(plain, registry=Registry())


def _timed(check: Callable[..., Any], end: float) -> Callable[..., Iterator[Any]]:
    def checked(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[Any]:
        if time.monotonic() > end:
            raise _TooLong
        yield from check(validator, wanted, value, schema) or ()

    return checked


def _pattern(end: float) -> Callable[..., Iterator[Any]]:
    import regex
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
    # The library compares all pairs of unsortable items.
    from jsonschema import ValidationError

    if wanted and isinstance(value, list):
        distinct = {json.dumps(_comparable(item), sort_keys=True) for item in value}
        if len(distinct) < len(value):
            yield ValidationError("it has non-unique elements")


def _comparable(value: Any) -> Any:
    """Normalize a value so that values that JSON schema considers equal compare equal: 1.0 is 1."""
    if isinstance(value, dict):
        return {name: _comparable(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_comparable(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _check_parts(schema: dict[str, Any]) -> None:
    """Check every part of a schema, including the targets of references."""
    import regex
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    if schema.pop("$schema", DIALECT).rstrip("#") != DIALECT:
        _refuse("its $schema must be Draft 2020-12")
    resolver = Registry().resolver_with_root(DRAFT202012.create_resource(schema))
    waiting: list[Any] = [schema]
    checked: set[int] = set()
    while waiting:
        part = waiting.pop()
        if not isinstance(part, dict) or id(part) in checked:
            continue
        checked.add(id(part))
        if "$schema" in part:
            _refuse("only the root may have a $schema")
        if "patternProperties" in part:
            _refuse("it must not use patternProperties, whose expressions have no time limit")
        if isinstance(expression := part.get("pattern"), str):
            _compile(expression, regex)
        for reference in (part[name] for name in ("$ref", "$dynamicRef") if name in part):
            if not reference.startswith("#"):
                _refuse(f"the reference {reference} must point into the schema (#…)")
            try:
                waiting.append(resolver.lookup(reference).contents)
            except Unresolvable as error:
                _refuse(f"the reference {reference} has no target", error)
        waiting.extend(DRAFT202012.subresources_of(part))


def _compile(expression: str, regex: Any) -> None:
    try:
        regex.compile(expression)
    except regex.error as error:
        _refuse(f"the pattern {expression!r} must be a valid regular expression: {error}", error)


def _refuse(reason: str, cause: Exception | None = None) -> NoReturn:
    raise SettingsError(
        f"decoding.json_schema cannot be used: {_shortened(reason)}.",
        fix="Use a JSON schema of Draft 2020-12 without external references.",
    ) from cause


def _shortened(text: str) -> str:
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= _LONGEST_REASON else f"{line[: _LONGEST_REASON - 1]}…"
