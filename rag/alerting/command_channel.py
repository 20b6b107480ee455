"""Notices of alerts for a program of this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from tempfile import TemporaryFile

from rag.alerting.alert_notices import Notice
from rag.errors import DeliveryError
from rag.redaction import redact

_MOST_READ = 10_000
_LONGEST_REASON = 200
_FIX = "Run it by hand, and check the setting alerts.command."


class CommandChannel:
    """Starts a program for every notice, without a shell, and writes the notice to its stdin as JSON.

    Args:
        arguments: The program and its arguments.
        timeout_s: Seconds after which it is killed with all that it has started.
    """

    def __init__(self, arguments: Sequence[str], timeout_s: float) -> None:
        self._arguments = list(arguments)
        self._timeout_s = timeout_s

    def send(self, notice: Notice) -> None:
        """Run the program, and wait for its end.

        Raises:
            DeliveryError: It cannot be started, fails, or takes too long.
        """
        name = self._arguments[0]
        # A pipe would stay open as long as a program that this one leaves behind.
        with TemporaryFile() as given, TemporaryFile() as said:
            given.write(json.dumps(notice.payload).encode() + b"\n")
            given.seek(0)
            try:
                process = subprocess.Popen(  # noqa: S603 - the owner's command, without a shell
                    self._arguments, stdin=given, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True
                )
            except (OSError, ValueError) as error:
                raise DeliveryError(
                    f"The command {name} cannot be started: {getattr(error, 'strerror', None) or error}.", fix=_FIX
                ) from error
            try:
                status = process.wait(self._timeout_s)
            except subprocess.TimeoutExpired as error:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise DeliveryError(
                    f"The command {name} did not end within {self._timeout_s:g} seconds.", fix=_FIX
                ) from error
            if status:
                said.seek(0)
                reason = _last_line(said.read(_MOST_READ))
                raise DeliveryError(
                    f"The command {name} ended with status {status}{f': {reason}' if reason else ''}.", fix=_FIX
                )


def _last_line(output: bytes) -> str:
    """Return the last line of what a program has said, without secrets and control characters."""
    lines = output.decode("utf-8", "replace").strip().splitlines()
    shown = redact("".join(sign for sign in lines[-1] if sign.isprintable())) if lines else ""
    return shown.strip()[:_LONGEST_REASON].rstrip(".")
