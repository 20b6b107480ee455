"""The W&B run of this process."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

from rag.settings import Settings
from ui.app.shared_property import shared_property

if TYPE_CHECKING:
    from rag.tracing.wandb_tracker import Tracker
    from ui.app.stores import Stores

CLOSING_S = 10.0
"""Seconds that closing waits for the delivery of traces to W&B."""


class Tracking:
    """Opens the tracker at first use, so that a command without questions starts no W&B run."""

    def __init__(self, settings: Settings, stores: Stores) -> None:
        self._settings = settings
        self._stores = stores
        self.lock = threading.RLock()
        self._closing = ExitStack()

    @shared_property
    def tracker(self) -> Tracker:
        """The tracker of this process; it does nothing if tracking is off."""
        from rag.tracing.wandb_tracker import open_tracker

        settings, stores = self._settings, self._stores
        config = {"model": settings.model, "encoder": settings.encoder.model}
        tracker = open_tracker(settings.tracking, stores.workspace, stores.traces, config)
        self._closing.callback(tracker.close, CLOSING_S)
        return tracker

    def close(self) -> None:
        """Deliver what waits for W&B."""
        self._closing.close()
