"""The app: the only place that knows which part needs which."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from rag.settings import Settings
from rag.workspace import open_workspace
from ui.app.health import HealthCheck
from ui.app.metrics import Metrics, NoMetrics
from ui.app.models import Models
from ui.app.releases import Releases
from ui.app.shared_property import shared_property
from ui.app.stores import Stores
from ui.app.tracking import Tracking

if TYPE_CHECKING:
    from rag.tracing.trace_store import Trace
    from ui.app.alerting import Alerting
    from ui.app.evaluations import Evaluations
    from ui.app.replaying import Replaying
    from ui.app.teaching import Teaching


class App:
    """The parts of one process; nothing is opened before its first use.

    Pages and commands receive the parts that they use, never the app.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.workspace = open_workspace(settings.home)
        self.stores = Stores(settings, self.workspace)
        self.models = Models(self.workspace, settings.encoder, lambda: self.stores.encoder)
        self.tracking = Tracking(settings, self.stores)
        self.metrics: Metrics = NoMetrics()
        self.releases = Releases(settings, self.stores, self.models, self._on_traced)
        self.health = HealthCheck(settings, self.stores, self.models, self.releases, self.tracking)
        self.lock = threading.RLock()

    @shared_property
    def evaluations(self) -> Evaluations:
        """The evaluation runs."""
        # The import takes a fifth of a second, and most commands do not need it.
        from ui.app.evaluations import Evaluations

        return Evaluations(self.settings, self.stores, self.models, self.releases)

    @shared_property
    def teaching(self) -> Teaching:
        """The lessons that make adapters of corrections."""
        from ui.app.teaching import Teaching

        return Teaching(self.settings, self.stores, self.models, self.releases, self.evaluations)

    @shared_property
    def alerting(self) -> Alerting:
        """The alerts, their checks and their notices."""
        from ui.app.alerting import Alerting

        return Alerting(self.settings, self.stores, self.tracking)

    @shared_property
    def replaying(self) -> Replaying:
        """The replays of traces."""
        from ui.app.replaying import Replaying

        return Replaying(self.settings, self.stores, self.releases)

    def _on_traced(self, trace: Trace | None) -> None:
        self.tracking.on_traced()
        self.metrics.observe(trace)

    def close(self) -> None:
        """Deliver what waits for W&B and the collector, then unload the models and close the stores."""
        for part in (self.tracking, self.models, self.releases, self.stores):
            part.close()


def open_app(settings: Settings) -> App:
    """Open the app of a workspace.

    Raises:
        SettingsError: The name of the model is invalid.
        WorkspaceError: The workspace cannot be used.
    """
    from rag.models.chat_models import check_model_name

    check_model_name(settings.model)
    return App(settings)
