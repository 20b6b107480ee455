"""The settings of alerts: where notices go.

What is watched is kept in the workspace, where the page can change it. Addresses, secrets and the command are
settings, so that nobody can change them there.
"""

from __future__ import annotations

import ipaddress
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from rag.settings_section import Section


class AlertSettings(Section):
    """The channels of alerts."""

    webhook_url: str | None = None
    """The address that notices are posted to: https, or http on this machine."""
    webhook_secret: SecretStr | None = None
    """The key of their HMAC-SHA256 signature, which the webhook needs."""
    command: tuple[str, ...] = ()
    """A program with its arguments, which is started without a shell and reads a notice as JSON on its stdin."""
    mail_to: tuple[str, ...] = ()
    """The receivers of mails."""
    mail_from: str = ""
    """Their sender; by default, the first receiver."""
    smtp_host: str = ""
    """The server that takes mails."""
    smtp_port: int = Field(default=587, ge=1, le=65_535)
    smtp_security: Literal["starttls", "tls", "none"] = "starttls"
    """How the connection is encrypted; ``none`` sends a password only to this machine."""
    smtp_user: str = ""
    """The user to sign in as; empty for none."""
    smtp_password: SecretStr | None = None
    timeout_s: float = Field(default=10.0, gt=0, le=120)
    """Time-out of a webhook, a mail server or the command, in seconds."""

    @field_validator("webhook_url")
    @classmethod
    def _is_protected(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
            usable = parts.port != 0 and bool(host)
            usable &= parts.scheme == "https" or (parts.scheme == "http" and is_own_machine(host))
        except ValueError:
            usable = False
        if not usable:
            # Its path is often a secret, so it is not repeated.
            raise ValueError("it must be an https URL, or an http URL of this machine")
        return url


def is_own_machine(host: str) -> bool:
    """Whether a host is the loopback of this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
