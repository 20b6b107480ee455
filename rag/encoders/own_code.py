"""Models whose folder brings Python code of its own: ragsmith never runs it, and never asks whether it may."""

from __future__ import annotations

from pathlib import Path

# What every refusal of transformers and sentence-transformers names, as the way to permit it.
_PERMISSION = "trust_remote_code"

FIX = "Choose a model that transformers knows by itself, or a version of this one that it knows."


def needs_own_code(error: BaseException) -> bool:
    """Whether a model could not be loaded because code in its folder would have had to run."""
    return _PERMISSION in str(error)


def refusal_of(folder: Path | str) -> str:
    """Say that a model is not loaded because of its code."""
    return f"The model in {folder} needs Python code of its own, which ragsmith does not run."
