"""Checks of alerts while a server runs."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from rag.errors import RagsmithError

if TYPE_CHECKING:
    from ui.app.alerting import Alerting

PAUSE_S = 10.0
"""Seconds between two looks for alerts and notices that are due."""
_CLOSING_S = 5.0

_log = logging.getLogger(__name__)


class AlertTimer:
    """Checks alerts and sends their notices in a thread of its own, so that no answer waits for either.

    Args:
        alerting: The alerts; the database is opened by the thread.
        pause_s: Seconds between two looks.
    """

    def __init__(self, alerting: Alerting, pause_s: float = PAUSE_S) -> None:
        self._alerting = alerting
        self._pause_s = pause_s
        self._ended = threading.Event()
        # A daemon, so that a channel that hangs does not keep the process alive.
        self._thread = threading.Thread(target=self._work, name="ragsmith-alerts", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread; a notice that is being sent is waited for a few seconds."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(_CLOSING_S)

    def _work(self) -> None:
        while not self._ended.wait(self._pause_s):
            try:
                self._look()
            except RagsmithError as error:
                _log.warning("The alerts could not be checked: %s", error)
            except Exception:  # noqa: BLE001 - a bug in one look must not end all later ones
                _log.exception("The alerts could not be checked")

    def _look(self) -> None:
        now = time.time()
        self._alerting.check_due(now)
        for sent in self._alerting.deliver(now):
            if sent.error:
                message = sent.notice.message
                _log.warning("The alert %s could not be sent: %s", message.alert, sent.error)
            if self._ended.is_set():
                return
