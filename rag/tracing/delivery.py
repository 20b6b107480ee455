"""The seam to what sends pending data elsewhere, such as traces to a tracker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Delivery(Protocol):
    """Sends what is pending in a workspace to one receiver.

    A delivery that was interrupted goes on where it stopped, and what has been sent is not sent again. What a
    crash makes uncertain is sent once more with the same ids.
    """

    @property
    def name(self) -> str:
        """What is sent where, such as ``traces to W&B``."""

    def pending(self) -> int:
        """Return the number of items that wait; 0 if the settings do not let them be sent.

        Raises:
            RagsmithError: The store cannot be read.
        """

    def send(self, progress: Callable[[int], None]) -> int:
        """Send everything that is pending, and return the number of items that were sent.

        Args:
            progress: Called with the number of items so far.

        Raises:
            RagsmithError: The receiver does not answer, refuses, or lacks a key; what was sent before counts as
                sent, and the rest stays pending.
        """
