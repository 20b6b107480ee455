"""The first problem of invalid data, as a clause of an error message."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from difflib import get_close_matches
from typing import get_args

from pydantic import BaseModel, ValidationError


def first_problem(error: ValidationError, model: type[BaseModel], thing: str = "field") -> str:
    """Describe the first problem, with its location; an unknown name explains a missing one.

    Args:
        model: The model that the data were validated against.
        thing: What a name of the data is called.
    """
    problems = error.errors(include_url=False, include_context=False)
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        # The names of the model know nothing of the positions in lists.
        plain = ".".join(part for part in first["loc"] if isinstance(part, str))
        return unknown_name(where, closest(plain, tuple(field_names(model))), thing)
    reason = plain_reason(first["msg"])
    return f"{where}: {reason}" if where else reason


def plain_reason(message: str) -> str:
    """Return the message of a problem without the prefix that pydantic gives to the errors of a validator."""
    return message.removeprefix("Value error, ")


def unknown_name(name: str, near: str, thing: str = "field") -> str:
    """Describe a name that is not known.

    Args:
        near: The known name that may be meant; empty for none.
    """
    return f"unknown {thing} `{name}`" + (f" (did you mean `{near}`?)" if near else "")


def closest(name: str, known: Collection[str]) -> str:
    """Return the dotted name that may be meant by another one, such as the same field of another section."""
    last = name.rpartition(".")[2]
    same = [other for other in known if other.rpartition(".")[2] == last]
    return next(iter(same or get_close_matches(name, known, 1)), "")


def field_names(model: type[BaseModel]) -> Iterator[str]:
    """Yield the dotted names of the fields of a model, and of the models in it."""
    for name, field in model.model_fields.items():
        yield name
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from (f"{name}.{inner}" for inner in field_names(part))
