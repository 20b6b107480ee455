"""The attributes of a span of another program, read by their names."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue


class SpanAttributes:
    """The attributes of a span, of which every one is used once."""

    def __init__(self, sent: Any) -> None:
        pairs: list[KeyValue] = list(sent)
        self._values: dict[str, object] = {one.key: plain_value(one.value) for one in pairs}

    def has(self, *names: str) -> bool:
        """Whether there is one of these."""
        return any(name in self._values for name in names)

    def take(self, *names: str) -> object:
        """Remove these, and return the first that is not None."""
        taken = [self._values.pop(name, None) for name in names]
        return next((value for value in taken if value is not None), None)

    def text(self, *names: str) -> str:
        """Remove these, and return the first as a text; empty if it is none."""
        value = self.take(*names)
        return value if isinstance(value, str) else ""

    def number(self, *names: str) -> float | None:
        """Remove these, and return the first as a number from 0; None if it is none."""
        value = self.take(*names)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value) if math.isfinite(value) and 0 <= value < 1e12 else None

    def value(self, name: str) -> Any:
        """Remove ``NAME.value``, and return it, parsed if its type is JSON."""
        value, kind = self.take(f"{name}.value"), self.text(f"{name}.mime_type")
        return _from_json(value) if kind == "application/json" else value

    def parsed(self, *names: str) -> Any:
        """Remove these, and return the first, parsed if it is the text of an object or a list."""
        value = self.take(*names)
        found = _from_json(value)
        return found if isinstance(found, dict | list) else value

    def listed(self, prefix: str, within: str) -> list[Any]:
        """Remove ``PREFIX.N.WITHIN.NAME``, and return the objects in the order of their numbers."""
        pattern = re.compile(rf"{re.escape(prefix)}\.(\d{{1,6}})\.{re.escape(within + '.') if within else ''}(.+)")
        found: dict[int, dict[str, object]] = {}
        for name in list(self._values):
            if match := pattern.fullmatch(name):
                found.setdefault(int(match[1]), {})[match[2]] = self._values.pop(name)
        return [found[number] for number in sorted(found)]

    def drop(self, prefix: str) -> None:
        """Remove those that begin so."""
        for name in [name for name in self._values if name.startswith(prefix)]:
            del self._values[name]

    def rest(self) -> dict[str, object]:
        """Return those that were not removed."""
        return dict(self._values)


def _from_json(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def plain_value(value: AnyValue) -> object:
    """Return a value of an attribute as Python has it."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return dict(_pairs(value.kvlist_value.values))
    return None if kind is None else getattr(value, kind)


def _pairs(values: Any) -> Iterator[tuple[str, object]]:
    for one in values:
        yield one.key, plain_value(one.value)
