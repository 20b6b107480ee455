"""The result of a check."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check.

    Attributes:
        name: The part that was checked.
        ok: Whether it works; None is a warning: a run works, but less well than it could.
        detail: What was found.
        fix: What to do about it; empty if nothing needs to be done.
    """

    name: str
    ok: bool | None
    detail: str
    fix: str = ""
