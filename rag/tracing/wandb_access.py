"""Access to W&B: its switches in the environment, the mode, the API key, and whether its server answers."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import Any, Literal

from rag.errors import first_line
from rag.settings import TrackingSettings

# Seconds that a server has to answer.
_ANSWER_S = 5.0
_VIEWER = json.dumps({"query": "query Viewer { viewer { id } }", "variables": {}}).encode()


class SwitchedOffError(Exception):
    """W&B is disabled by its own settings."""


class UnusableError(Exception):
    """Tracking is impossible for the reason in the message."""


def prepare_environment(root: Path) -> None:
    """Set the variables that W&B reads on import.

    Otherwise, Weave, if another library imports it, would ask for a key, error reports would be sent to a server,
    and files of artifacts would go to the home folder.
    """
    os.environ.setdefault("WANDB_DISABLE_WEAVE", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_DATA_DIR", str(root / "wandb" / "data"))
    os.environ.setdefault("WANDB_CACHE_DIR", str(root / "wandb" / "cache"))


def child_environment(root: Path) -> dict[str, str]:
    """Return the environment of a process that runs W&B's command line for a workspace."""
    prepare_environment(root)
    # Another service would be that of this process, and W&B would create its logs in the current folder.
    return {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"} | {
        "WANDB_DIR": str(root)
    }


def resolve_mode(settings: TrackingSettings) -> Literal["online", "offline"]:
    """Determine the mode by our settings, W&B's settings, and the presence of a key.

    Raises:
        SwitchedOffError: W&B is disabled by its own settings.
        UnusableError: A variable of W&B is invalid, or W&B must be online without a key.
    """
    own = _own_settings()
    if settings.wandb == "offline":
        return "offline"
    if settings.wandb == "auto" and own.mode == "disabled":
        raise SwitchedOffError
    if settings.wandb == "auto" and own.mode in ("offline", "dryrun"):
        return "offline"
    # Without a key, `wandb.init` would prompt for one.
    if _credentials(own.base_url) is not None:
        return "online"
    if settings.wandb == "online":
        raise UnusableError("W&B is set to online, but there is no API key: run `wandb login`, or set it to auto.")
    return "offline"


def may_upload(settings: TrackingSettings) -> bool:
    """Whether our settings and those of W&B let anything be sent to its server, given a key."""
    if settings.wandb in ("off", "offline"):
        return False
    try:
        return settings.wandb == "online" or _own_settings().mode not in ("disabled", "offline", "dryrun")
    except UnusableError:
        # The attempt says what is wrong.
        return True


def check_server() -> None:
    """Check that the W&B server answers and accepts the key, within some seconds.

    Raises:
        UnusableError: It does not; the message has the reason.
    """
    base_url = str(_own_settings().base_url).rstrip("/")
    key = getattr(_credentials(base_url), "api_key", None)
    request = urllib.request.Request(f"{base_url}/graphql", _VIEWER, {"Content-Type": "application/json"})  # noqa: S310 - W&B checks the scheme
    if key:
        request.add_header("Authorization", f"Basic {b64encode(f'api:{key}'.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER_S):  # noqa: S310 - as above
            return
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (401, 403) and key:
            raise UnusableError(f"The W&B server {base_url} does not accept the API key.") from error
        if error.code >= 500:
            raise UnusableError(f"The W&B server {base_url} answers with the error {error.code}.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if "CERTIFICATE" not in str(reason):
            # W&B may accept a certificate that Python does not.
            shown = first_line(reason if isinstance(reason, Exception) else error)
            raise UnusableError(f"The W&B server {base_url} does not answer: {shown}.") from error


def _own_settings() -> Any:
    """Return W&B's own settings, from its environment and files."""
    import wandb
    from pydantic import ValidationError

    # Silenced for the process, too, because messages about keys are printed before a run's settings apply.
    try:
        wandb.setup(wandb.Settings(silent=True))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        raise UnusableError(f"WANDB_{name} is invalid: {first['msg']}.") from error
    return wandb.setup().settings


def _credentials(host: str) -> Any:
    """Return the credentials that W&B finds in the environment, netrc and its settings; None without any."""
    from wandb.errors import AuthenticationError
    from wandb.sdk.lib import wbauth

    try:
        return wbauth.authenticate_session(host=host, source="ragsmith", prompt=False, update_session=False)
    except AuthenticationError as error:
        raise UnusableError(f"{first_line(error)}.") from error
