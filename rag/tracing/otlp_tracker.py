"""A thread that sends finished traces to a collector of OpenTelemetry as answers end.

A failure is logged once and shown in the status; the traces wait in the database, and the thread tries again after
a pause that grows up to five minutes.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

from rag.errors import RagsmithError
from rag.redaction import redact
from rag.tracing.otlp_delivery import OtlpDelivery
from rag.tracing.wandb_run import TrackerStatus

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses after failures: ``first_s`` seconds, then twice as long each time, up to ``longest_s``."""

    first_s: float = 5.0
    longest_s: float = 300.0

    def pause(self, failures: int) -> float:
        """Return the seconds after a number of failures in a row, from 1."""
        return float(min(self.first_s * 2 ** min(failures - 1, 30), self.longest_s))


class OtlpTracker:
    """Sends traces in a thread of its own; see ``rag.tracing.wandb_tracker.Tracker``."""

    def __init__(self, delivery: OtlpDelivery, where: str, backoff: Backoff = Backoff()) -> None:
        self._delivery = delivery
        self._backoff = backoff
        self._where = where
        self._working = TrackerStatus("online", f"Traces go to {where}.")
        self._status = self._working
        self._woken = threading.Event()
        self._closing = threading.Event()
        # A daemon, so that a collector that does not answer does not keep the process alive.
        self._thread = threading.Thread(target=self._work, name="ragsmith-otlp", daemon=True)

    @property
    def status(self) -> TrackerStatus:
        """The state of the delivery."""
        return self._status

    def start(self) -> None:
        """Start the thread, which begins with what earlier processes have left."""
        self._thread.start()

    def wake(self) -> None:
        """Notify the tracker of a possible new trace in the store."""
        self._woken.set()

    def close(self, timeout_s: float) -> None:
        """Send the remaining traces within ``timeout_s`` seconds, unless the collector is failing."""
        if self._thread.ident is None:
            return
        self._closing.set()
        self._woken.set()
        end = time.monotonic() + timeout_s
        while self._thread.is_alive() and time.monotonic() < end and not self._delivery.is_failing:
            self._thread.join(0.05)
        self._delivery.close()
        self._thread.join(max(end - time.monotonic(), 0.0))

    def _work(self) -> None:
        failures = 0
        while True:
            # Read before the delivery, so that everything saved before `close` is sent.
            closing = self._closing.is_set()
            failures = 0 if self._send() else failures + 1
            if closing or (failures and self._closing.is_set()):
                break
            if failures:
                # Further answers do not shorten the pause.
                self._closing.wait(self._backoff.pause(failures))
            else:
                self._woken.wait()
                self._woken.clear()

    def _send(self) -> bool:
        """Send what waits, and return whether that worked."""
        try:
            self._delivery.send()
        except RagsmithError as error:
            problem = redact(str(error))
        except Exception as error:  # noqa: BLE001 - tracking must not affect answers
            problem = f"Traces cannot be sent to {self._where}: {type(error).__name__}."
        else:
            if self._status is not self._working:
                _log.warning("The collector at %s takes traces again.", self._where)
            self._status = self._working
            return True
        if self._status is self._working:
            _log.warning("Traces wait: %s", problem)
        self._status = TrackerStatus("failed", problem)
        return False
