"""A property that is computed only once, even with several threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Part = TypeVar("Part")


class shared_property(Generic[Part]):  # noqa: N801 - used like `property`
    """A ``functools.cached_property`` that computes its value under the ``lock`` of its object.

    Without the lock two threads could compute the value twice, and open two databases.
    """

    def __init__(self, compute: Callable[[Any], Part]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Part:
        with instance.lock:
            values = vars(instance)
            if self._name not in values:
                values[self._name] = self._compute(instance)
            value: Part = values[self._name]
            return value
