"""Libraries that are installed with ``ragsmith[tune]`` only."""

from __future__ import annotations

import importlib.util

from rag.errors import ModelUnavailable

# What a person may do who does not want to install one.
_INSTEAD = {"peft": ", or clear local.adapter and local.adapters"}


def need_library(library: str, user: str) -> None:
    """See that a library is installed, without importing it.

    Args:
        library: ``peft`` or ``ctranslate2``.
        user: What needs it, as in ``adapter citer``.

    Raises:
        ModelUnavailable: It is not.
    """
    if importlib.util.find_spec(library) is None:
        raise ModelUnavailable(
            f"The {user} needs the library {library}, which is not installed.",
            fix=f"Install it with `pip install 'ragsmith[tune]'`{_INSTEAD.get(library, '')}.",
        )
