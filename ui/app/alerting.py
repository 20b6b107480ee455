"""Alerts of a workspace: their checks, their notices, and previews of ones that are not saved yet."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag.errors import AlertError, FilterError, RagsmithError
from rag.redaction import redact
from ui.app.shared_property import shared_property

if TYPE_CHECKING:
    from rag.alerting.alert_channels import Channel
    from rag.alerting.alert_notices import Notice
    from rag.alerting.alert_rules import Alert, ChannelName, Check
    from rag.alerting.alert_store import WatchedAlert
    from rag.settings import Settings
    from ui.app.stores import Stores
    from ui.app.tracking import Tracking

SETTLING_S = 10.0
"""Seconds after a moment until a server checks it: answers are stored in the background."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Preview:
    """What an alert would have done.

    Attributes:
        since, until: The time, in seconds since the epoch.
        checks: All checks in order.
    """

    alert: Alert
    since: float
    until: float
    checks: tuple[Check, ...]

    @property
    def notices(self) -> tuple[Check, ...]:
        """The checks that would have sent a notice."""
        return tuple(check for check in self.checks if check.event)


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a notice; ``error`` is empty if it was sent."""

    notice: Notice
    error: str = ""


class Alerting:
    """Checks alerts and sends their notices; safe to use from several threads and processes.

    Args:
        settings: The channels.
        stores: The traces, the alerts and their notices.
        tracking: Sends alerts to W&B.
    """

    def __init__(self, settings: Settings, stores: Stores, tracking: Tracking) -> None:
        self._settings = settings
        self._stores = stores
        self._tracking = tracking
        self.lock = threading.RLock()

    @shared_property
    def channels(self) -> Mapping[ChannelName, Channel]:
        """The channels that the settings configure."""
        from rag.alerting.alert_channels import WandbChannel, open_channels

        wandb = None if self._settings.tracking.wandb == "off" else WandbChannel(self._tracking.alert)
        return open_channels(self._settings.alerts, wandb)

    def watched(self) -> tuple[WatchedAlert, ...]:
        """Return all alerts by name; see ``AlertStore.list``."""
        return self._stores.alerts.list()

    def troubles(self) -> Mapping[str, list[Notice]]:
        """Return by alert the last notices that could not be sent; see ``NoticeQueue.troubles``."""
        return self._stores.notices.troubles()

    def save(self, alert: Alert) -> None:
        """Save an alert.

        Raises:
            AlertError: The settings do not configure one of its channels.
            DatabaseError: The database refuses.
        """
        from rag.alerting.alert_channels import channel_of

        for name in alert.channels:
            channel_of(self.channels, name)
        self._stores.alerts.save(alert)

    def remove(self, name: str) -> None:
        """Remove an alert; see ``AlertStore.remove``."""
        self._stores.alerts.remove(name)

    def preview(self, alert: Alert, since: float, until: float) -> Preview:
        """Return what an alert would have done in a time, if it had been ``ok`` before.

        Raises:
            DatabaseError: The database refuses.
        """
        from rag.alerting.alert_history import moments_between, replay
        from rag.alerting.alert_rules import State
        from rag.alerting.alert_samples import read_samples

        moments = moments_between(alert, since, until)
        samples = read_samples(self._stores.engine, alert, since - alert.window_s, until)
        return Preview(alert, since, until, tuple(replay(alert, State(), samples, moments)))

    def check(self, watched: WatchedAlert, at: float) -> Check | None:
        """Check an alert at a time, and queue the notices that are due.

        Returns:
            None if another process was faster, or the alert was removed.

        Raises:
            DatabaseError: The database refuses.
        """
        from rag.alerting.alert_history import replay
        from rag.alerting.alert_samples import read_samples

        # Answers of this process may still wait to be written.
        self._stores.traces.flush()
        samples = read_samples(self._stores.engine, watched.alert, at - watched.alert.window_s, at)
        (check,) = replay(watched.alert, watched.state, samples, [at])
        return check if self._stores.alerts.record(watched, check) else None

    def check_due(self, now: float) -> None:
        """Check the alerts whose last moment was not checked yet; one that cannot be checked is only logged.

        Raises:
            DatabaseError: The database refuses.
        """
        from rag.alerting.alert_history import last_moment

        for watched in self.watched():
            moment = last_moment(watched.alert, now - SETTLING_S)
            if watched.state.checked is not None and watched.state.checked >= moment:
                continue
            try:
                check = self.check(watched, moment)
            except FilterError as error:
                _log.warning("The alert %s cannot be checked: %s", watched.alert.name, error)
                continue
            if check is not None and check.event:
                _log.info("The alert %s is now %s", watched.alert.name, check.state.level)

    def deliver(self, now: float) -> Iterator[Sent]:
        """Send the notices that are due, and yield what became of each.

        Raises:
            DatabaseError: The database refuses.
        """
        queue = self._stores.notices
        while (notice := queue.take(now)) is not None:
            error = self._send(notice)
            if error:
                queue.failed(notice, error, now)
            else:
                queue.sent(notice)
            yield Sent(notice, error)

    def test(self, alert: Alert) -> Iterator[Sent]:
        """Send a test notice to all channels of an alert, and yield what became of each.

        Raises:
            AlertError: The alert has no channel.
        """
        from rag.alerting.alert_notices import Notice, message_of
        from rag.alerting.alert_rules import Check, State

        if not alert.channels:
            raise AlertError(f"The alert {alert.name} has no channel to test.", fix="Choose one.")
        now = time.time()
        check = Check(now, "ok", State("alert", now, alert.alert_at, now))
        for name in alert.channels:
            notice = Notice(name, message_of(alert, check, "test"))
            yield Sent(notice, self._send(notice))

    def _send(self, notice: Notice) -> str:
        """Send a notice, and return why that failed; empty if it did not."""
        from rag.alerting.alert_channels import channel_of

        try:
            channel_of(self.channels, notice.channel).send(notice)
        except RagsmithError as error:
            return redact(str(error))
        except Exception as error:  # noqa: BLE001 - one channel must not keep the others from their notices
            _log.exception("A notice could not be sent")
            return f"This is a bug in ragsmith ({type(error).__name__}); its traceback is in the log."
        return ""
