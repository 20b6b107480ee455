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
    wandb_detail: str = ""
    notices: tuple[str, ...] = ()
    otlp: str = "off"
    otlp_ok: bool = True


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
        self._preparing = False
        self._failure: RagsmithError | None = None

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
        if replacement := self._models.replacement(settings):
            notices.append(replacement)
        with _noting(notices):
            corpora, encoder = stores.corpora, stores.encoder
            with _noting(notices):
                found = stores.index(name)
                count = found.passage_count()
                if encoder.notice:
                    notices.append(encoder.notice)
                index_ok = count > 0 and found.state.ok
                index = f"{name}: {counted(count, 'passage')}"
                # A check must not wait until a model has been prepared.
                if unready := self._unready():
                    notices.append(unready)
                else:
                    release = self._releases.pipeline(name).release
                    model, model_ok = f"{release.model} · {encoder.runtime}", True
            notices.extend(corpora.notices())
            tracked, exported = self._tracking.status, self._tracking.exporter.status
            if exported.mode == "failed":
                notices.append(f"Traces wait: {exported.detail}")
            return Health(
                model=model,
                model_ok=model_ok,
                index=index,
                index_ok=index_ok,
                wandb=tracked.mode,
                wandb_ok=tracked.mode != "failed",
                wandb_detail=tracked.detail,
                notices=tuple(notices),
                otlp=exported.mode,
                otlp_ok=exported.mode != "failed",
            )

    def warm(self) -> None:
        """Load what the first question needs, and update the sample corpus if it exists.

        The first question and ``check`` report a failure.
        """
        for part in (self._prepare_model, self._answer_once, self._refresh_sample):
            try:
                part()
            except RagsmithError as error:
                _log.warning("%s", error)

    def _unready(self) -> str:
        """Return why the model cannot be loaded now; empty if it can."""
        from rag.models.local.shipped_base import PREPARING

        waiting = self._models.is_unprepared(self._settings)
        if waiting and self._failure:
            return redact(str(self._failure))
        return f"{PREPARING} Answers wait for it." if waiting or self._preparing else ""

    def _prepare_model(self) -> None:
        if not self._models.is_unprepared(self._settings):
            return
        self._preparing = True
        try:
            self._models.prepare(self._settings)
        except RagsmithError as error:
            self._failure = error
            raise
        finally:
            self._preparing = False

    def _answer_once(self) -> None:
        from rag.models.chat_models import EXTRACTIVE
        from rag.models.extractive.span_reader import ReadPassage

        if self._unready():
            # Another attempt would take a minute and fail as well.
            return
        model = self._releases.pipeline().release.model
        hits = self._releases.retriever().search("warm up")
        if model != EXTRACTIVE:
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
