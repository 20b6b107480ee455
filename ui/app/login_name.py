"""The login name, which is kept with what a person saves."""

from __future__ import annotations

import getpass


def login_name() -> str:
    """Return the login name of the user who runs this process, else ``unknown``."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
