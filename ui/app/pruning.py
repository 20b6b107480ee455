"""Daily deletion of old traces while a server runs."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from rag.errors import RagsmithError
from rag.settings import TracingSettings

if TYPE_CHECKING:
    from rag.tracing.trace_retention import Retention
    from ui.app.stores import Stores

_log = logging.getLogger(__name__)


def retention_of(settings: TracingSettings) -> Retention:
    """Return what the settings keep."""
    from rag.tracing.trace_retention import Retention

    return Retention(settings.keep_days, settings.keep_mb, settings.keep_rated)


class DailyPruning:
    """Deletes the traces that the settings do not keep, at once and then every day, in a thread of its own.

    Args:
        settings: What is kept; if everything is, there is no thread.
        stores: The database, which is opened by the thread.
    """

    def __init__(self, settings: TracingSettings, stores: Stores) -> None:
        self._settings = settings
        self._stores = stores
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        if not retention_of(self._settings).keeps_all:
            self._thread = threading.Thread(target=self._work, name="ragsmith-pruning", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread; a deletion that runs is waited for a few seconds."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(5.0)

    def _work(self) -> None:
        from rag.tracing.trace_retention import DAY_S, prune

        while not self._ended.is_set():
            try:
                pruned = prune(self._stores.engine, retention_of(self._settings))
            except RagsmithError as error:
                _log.warning("Old traces could not be deleted: %s", error)
            else:
                if pruned.traces:
                    _log.info("%d old traces were deleted", pruned.traces)
            self._ended.wait(DAY_S)
