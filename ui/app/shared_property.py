"""A property that is computed once, whichever thread reads it first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Part = TypeVar("Part")


class shared_property(Generic[Part]):  # noqa: N801 - it is used like `property`
    """Like ``functools.cached_property``, under the ``lock`` of the object that has it.

    ``functools.cached_property`` lets two threads compute the value twice: two databases would be opened.
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
