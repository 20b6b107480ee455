"""The version of ragsmith, which traces are stored with."""

from __future__ import annotations

from functools import cache


@cache
def code_version() -> str:
    """Return the installed version; empty if the packages run without an installation."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ragsmith")
    except PackageNotFoundError:
        return ""
