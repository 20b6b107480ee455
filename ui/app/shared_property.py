"""A property that is made once, whichever thread asks for it first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Part = TypeVar("Part")


class shared_property(Generic[Part]):  # noqa: N801 - it is used like `property`
    """A part of an object that is made when it is first asked for, and once, under the object's lock."""

    def __init__(self, make: Callable[[Any], Part]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, holder: Any, owner: type | None = None) -> Part:
        with holder.lock:
            if self._name not in holder.__dict__:
                holder.__dict__[self._name] = self._make(holder)
            made: Part = holder.__dict__[self._name]
            return made
