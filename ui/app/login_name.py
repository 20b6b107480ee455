"""Who does something: kept with what is saved."""

from __future__ import annotations

import getpass


def login_name() -> str:
    """The login name of whoever runs this process, else ``unknown``."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
