"""The login name, which is saved with a user's changes."""

from __future__ import annotations

import getpass


def login_name() -> str:
    """Return the login name of the user who runs this process, else ``unknown``."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
