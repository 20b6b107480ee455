"""Checks of the setup: Python, settings, workspace folder, trackers and port."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ui.doctor.check import Check
from ui.doctor.server_probe import TIMEOUT_S, fetch

if TYPE_CHECKING:
    from rag.settings import Settings

LOW_DISK_MB = 1000
"""Less is a warning: the encoder, a few thousand passages and their traces take about 300 MB."""
FULL_DISK_MB = 100
OLDEST_PYTHON = (3, 11)


def check_python() -> Check:
    """Python is new enough."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST_PYTHON:
        return Check("python", False, f"Python {version} is too old.", "Install Python 3.11 or newer.")
    return Check("python", True, f"Python {version}")


def check_settings(settings: Settings, config: Path | None = None) -> Check:
    """No variable looks like a setting without being one."""
    from rag.settings import CONFIG_FILE, CONFIG_VARIABLE, unknown_variables

    if unknown := unknown_variables():
        detail = f"No setting is named {', '.join(unknown)}."
        return Check("settings", None, detail, "Correct or unset the variable.")
    here = CONFIG_FILE if Path(CONFIG_FILE).is_file() else "no file, the defaults"
    source = config or os.environ.get(CONFIG_VARIABLE) or here
    return Check("settings", True, f"{source}; model {settings.model}, corpus {settings.corpus}")


def check_workspace(settings: Settings) -> Check:
    """The workspace can be written, and its disk has room."""
    from rag.workspace import open_workspace

    root = open_workspace(settings.home).root
    free_mb = shutil.disk_usage(root).free // 1_000_000
    detail = f"{root}, {free_mb / 1000:.1f} GB free"
    if free_mb < LOW_DISK_MB:
        ok = None if free_mb >= FULL_DISK_MB else False
        return Check("workspace", ok, detail, "Free some space, or choose another folder with RAGSMITH_HOME.")
    return Check("workspace", True, detail)


def check_wandb(settings: Settings) -> Check:
    """A login exists if W&B must be online."""
    mode = settings.tracking.wandb
    if mode in ("off", "offline"):
        return Check("wandb", True, mode)
    if _has_wandb_key():
        return Check("wandb", True, f"online, project {settings.tracking.project}")
    if mode == "online":
        fix = "Run `wandb login`, or set RAGSMITH_TRACKING__WANDB=auto."
        return Check("wandb", False, "W&B must be online, but nobody is logged in.", fix)
    return Check("wandb", True, "offline, nobody is logged in")


def check_otlp(settings: Settings) -> Check:
    """The collector takes an empty request, if there is one."""
    from rag.errors import CollectorError
    from rag.tracing.otlp_delivery import open_collector, shown_url

    if settings.tracking.otlp_url is None:
        return Check("otlp", True, "off")
    collector = open_collector(settings.tracking, TIMEOUT_S)
    try:
        collector.send([])
    except CollectorError as error:
        return Check("otlp", None, error.message, error.fix)
    finally:
        collector.close()
    return Check("otlp", True, shown_url(settings.tracking))


def _has_wandb_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    import netrc
    from urllib.parse import urlsplit

    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
    named = os.environ.get("NETRC")
    for path in [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        try:
            if netrc.netrc(path.expanduser()).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def check_port(settings: Settings) -> Check:
    """The address of the chat page is free, or ragsmith already answers there."""
    import socket

    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    where = f"{host}:{settings.port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and fetch(f"http://{where}/healthz").ok:
            return Check("port", True, f"{where}, where ragsmith already answers")
        fix = "Stop the program that uses it, or choose another with RAGSMITH_PORT or RAGSMITH_HOST."
        return Check("port", False, f"{where} cannot be used: {error.strerror or error}", fix)
    return Check("port", True, f"{where} is free" if settings.port else f"{host}, any free port")
