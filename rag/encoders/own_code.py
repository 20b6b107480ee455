"""Refusal of models that need Python code from their own folder: ragsmith never runs it."""

from __future__ import annotations

from pathlib import Path

# Every refusal by transformers and sentence-transformers mentions the option that would permit it.
_PERMISSION = "trust_remote_code"

FIX = "Choose a model that transformers supports by itself, or a version of this one that it supports."


def needs_own_code(error: BaseException) -> bool:
    """Whether loading a model failed because it needs code from its folder."""
    return _PERMISSION in str(error)


def refusal_of(folder: Path | str) -> str:
    """Return the message for a model that needs its own code."""
    return f"The model in {folder} needs Python code of its own, which ragsmith does not run."
