"""The channels that notices of alerts go to: a signed webhook, mail, a command, and W&B."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from rag.alert_settings import AlertSettings
from rag.alerting.alert_notices import Notice
from rag.alerting.alert_rules import ChannelName
from rag.errors import AlertError


class Channel(Protocol):
    """Sends notices somewhere."""

    def send(self, notice: Notice) -> None:
        """Send a notice, and return when it was taken.

        Raises:
            DeliveryError: It was not taken.
        """


class WandbChannel:
    """Sends notices to the W&B run of the day.

    Args:
        send_alert: Called with title, text and level; raises DeliveryError.
    """

    def __init__(self, send_alert: Callable[[str, str, str], None]) -> None:
        self._send_alert = send_alert

    def send(self, notice: Notice) -> None:
        """Send a notice; see ``Channel``."""
        level = {"ok": "INFO", "warning": "WARN", "alert": "ERROR"}[notice.message.level]
        self._send_alert(notice.message.title, notice.message.text, level)


_FIXES: Mapping[ChannelName, str] = {
    "wandb": "Set tracking.wandb to auto, online or offline.",
    "webhook": "Set alerts.webhook_url, and RAGSMITH_ALERTS__WEBHOOK_SECRET in the environment.",
    "email": "Set alerts.smtp_host and alerts.mail_to.",
    "command": "Set alerts.command to a program with its arguments.",
}


def open_channels(settings: AlertSettings, wandb: Channel | None) -> Mapping[ChannelName, Channel]:
    """Return the channels that the settings configure.

    Args:
        settings: Addresses, secrets and the command.
        wandb: The channel of W&B; None if tracking is off.
    """
    from rag.alerting.command_channel import CommandChannel
    from rag.alerting.mail_channel import MailChannel
    from rag.alerting.webhook_channel import WebhookChannel

    found: dict[ChannelName, Channel] = {} if wandb is None else {"wandb": wandb}
    if settings.webhook_url and settings.webhook_secret and settings.webhook_secret.get_secret_value():
        found["webhook"] = WebhookChannel(
            settings.webhook_url, settings.webhook_secret.get_secret_value(), settings.timeout_s
        )
    if settings.smtp_host and settings.mail_to:
        found["email"] = MailChannel(settings)
    if settings.command:
        found["command"] = CommandChannel(settings.command, settings.timeout_s)
    return found


def channel_of(channels: Mapping[ChannelName, Channel], name: ChannelName) -> Channel:
    """Return a channel.

    Raises:
        AlertError: The settings do not configure it.
    """
    if name not in channels:
        raise AlertError(f"The channel {name} is not configured.", fix=_FIXES[name])
    return channels[name]
