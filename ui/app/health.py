"""The health of the app, and loading ahead of the first question."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag.errors import RagsmithError
from rag.redaction import redact
from rag.settings import Settings
from rag.tracing.figures import counted
from ui.app.stores import SAMPLE_CORPUS

if TYPE_CHECKING:
    from ui.app.models import Models
    from ui.app.releases import Releases
    from ui.app.stores import Stores
    from ui.app.tracking import Tracking

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Health:
    """The status line of the page: the parts, whether they work, and what to do if they do not."""

    model: str
    model_ok: bool
    index: str
    index_ok: bool
    wandb: str
    wandb_ok: bool
    notices: tuple[str, ...] = ()


class HealthCheck:
    """Checks and loads everything that a question needs."""

    def __init__(
        self, settings: Settings, stores: Stores, models: Models, releases: Releases, tracking: Tracking
    ) -> None:
        self._settings = settings
        self._stores = stores
        self._models = models
        self._releases = releases
        self._tracking = tracking

    def check(self, corpus: str = "") -> Health:
        """Return which parts work.

        Args:
            corpus: The corpus whose index is checked; empty for the one in the settings.
        """
        settings, stores = self._settings, self._stores
        name = corpus or settings.corpus
        notices: list[str] = []
        index, index_ok = name, False
        model, model_ok = settings.model, False
        with _noting(notices):
            corpora, encoder = stores.corpora, stores.encoder
            with _noting(notices):
                found = stores.index(name)
                count = found.passage_count()
                if encoder.notice:
                    notices.append(encoder.notice)
                self._releases.pipeline(name)
                index_ok = count > 0 and found.state.ok
                index = f"{name}: {counted(count, 'passage')}"
                model, model_ok = f"{settings.model} · {encoder.runtime}", True
            notices.extend(corpora.notices())
        tracked = self._tracking.tracker.status
        return Health(model, model_ok, index, index_ok, tracked.mode, tracked.mode != "failed", tuple(notices))

    def warm(self) -> None:
        """Load what the first question needs, and update the sample corpus if it exists.

        The first question and ``check`` report a failure.
        """
        for part in (self._answer_once, self._refresh_sample):
            try:
                part()
            except RagsmithError as error:
                _log.warning("%s", error)

    def _answer_once(self) -> None:
        from rag.models.chat_models import EXTRACTIVE
        from rag.models.extractive.span_reader import ReadPassage

        self._releases.pipeline()
        hits = self._releases.retriever().search("warm up")
        if self._settings.model != EXTRACTIVE:
            return
        reader = self._models.reader(self._settings.reader.adapter)
        if reader and hits:
            reader.read("warm up", [ReadPassage(hit.passage.text) for hit in hits])

    def _refresh_sample(self) -> None:
        # This also repairs an index of the sample whose files are too damaged to open.
        if self._stores.has_files(SAMPLE_CORPUS):
            self._stores.ensure_sample()


@contextmanager
def _noting(notices: list[str]) -> Iterator[None]:
    """Add a failure to the notices."""
    try:
        yield
    except RagsmithError as error:
        notices.append(redact(str(error)))
