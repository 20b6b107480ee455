"""Optional libraries of ``ragsmith[tune]``."""

from __future__ import annotations

import importlib.util

from rag.errors import ModelUnavailable

# The alternative to installing a library.
_INSTEAD = {"peft": ", or clear local.adapter and local.adapters"}


def need_library(library: str, user: str) -> None:
    """Check that a library is installed, without importing it.

    Args:
        library: ``peft``.
        user: What needs it, such as ``adapter citer``.

    Raises:
        ModelUnavailable: The library is not installed.
    """
    if importlib.util.find_spec(library) is None:
        raise ModelUnavailable(
            f"The {user} needs the library {library}, which is not installed.",
            fix=f"Install it with `pip install 'ragsmith[tune]'`{_INSTEAD.get(library, '')}.",
        )
