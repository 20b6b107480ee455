"""The stores of a workspace, opened at first use: corpora, traces, conversations, prompts and datasets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rag.errors import prompt_errors
from rag.masking import Masker
from rag.settings import Settings
from rag.workspace import Workspace
from ui.app.shared_property import shared_property

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from prompts import PromptLibrary, PromptTemplate
    from rag.alerting.alert_notices import NoticeQueue
    from rag.alerting.alert_store import AlertStore
    from rag.answering.conversation_store import ConversationStore
    from rag.answering.release_store import ReleaseStore
    from rag.encoders import Encoder
    from rag.evaluation.candidates import CandidateStore
    from rag.evaluation.dataset_archive import DatasetArchive
    from rag.evaluation.dataset_store import DatasetStore
    from rag.indexing.corpora import Corpora, CorpusSummary
    from rag.indexing.corpus_index import CorpusIndex
    from rag.indexing.corpus_sources import CorpusSource, SourcePage
    from rag.indexing.dense_index import ChromaStore
    from rag.indexing.ingest_report import IngestProgress, IngestReport
    from rag.tracing.cost import PriceList
    from rag.tracing.export_queue import ExportQueue
    from rag.tracing.external_traces import ExternalTraces
    from rag.tracing.ledger import Ledger
    from rag.tracing.measures import Measures
    from rag.tracing.saved_filters import SavedFilters
    from rag.tracing.trace_query import TraceQueries
    from rag.tracing.trace_series import TraceSeries
    from rag.tracing.trace_store import TraceStore
    from rag.types import Filters

SAMPLE_CORPUS = "handbook"
_HANDBOOK = Path(__file__).parents[2] / "corpora" / "handbook"


class Stores:
    """The stores of a workspace; safe to use from several threads.

    Args:
        settings: The URLs of the stores, the encoder of the indexes, and the limits of ingestion.
        workspace: The folder of the stores without a URL.
    """

    def __init__(self, settings: Settings, workspace: Workspace) -> None:
        self._settings = settings
        self.workspace = workspace
        self.masker = Masker(settings.tracing.mask)
        self.lock = threading.RLock()
        self._closing = ExitStack()

    @shared_property
    def engine(self) -> Engine:
        """The database."""
        from rag.database import open_database

        url = self._settings.database_url
        engine = open_database(self.workspace, url.get_secret_value() if url else None)
        self._closing.callback(engine.dispose)
        return engine

    @shared_property
    def encoder(self) -> Encoder:
        """The encoder; its first use on a machine converts it, which takes about ten seconds."""
        from rag.encoders import open_encoder

        return open_encoder(self._settings.encoder, self.workspace)

    @shared_property
    def chroma(self) -> ChromaStore:
        """The vector store."""
        from rag.indexing.dense_index import ChromaStore

        chroma = ChromaStore(self.workspace, self._settings.chroma_url)
        self._closing.callback(chroma.close)
        return chroma

    @shared_property
    def corpora(self) -> Corpora:
        """The corpora and their indexes."""
        # Both threads import numpy, whose circular imports fail if two threads start them at once.
        import numpy.typing  # noqa: F401

        from rag.indexing.corpora import Corpora

        chroma = self.chroma
        # Chroma and the encoder both take about half a second to open, so they open in parallel.
        with ThreadPoolExecutor(1, thread_name_prefix="chroma") as side:
            side.submit(lambda: chroma.client)
            encoder = self.encoder
        return Corpora(self.workspace, self.engine, encoder, self._settings.chunking.tokens, chroma)

    @shared_property
    def traces(self) -> TraceStore:
        """The traces; those that an earlier process left running are marked as interrupted."""
        from rag.tracing.trace_store import TraceStore

        tracking = self._settings.tracking
        store = TraceStore(
            self.engine,
            self.masker,
            withheld=tracking.wandb == "off",
            exported=tracking.otlp_url is not None,
        )
        self._closing.callback(store.close)
        store.recover()
        return store

    @shared_property
    def export_queue(self) -> ExportQueue:
        """The traces that wait for a collector."""
        from rag.tracing.export_queue import ExportQueue

        return ExportQueue(self.engine)

    @shared_property
    def external_traces(self) -> ExternalTraces:
        """The traces of other programs."""
        from rag.tracing.external_traces import ExternalTraces

        return ExternalTraces(self.engine, self.masker)

    @shared_property
    def ledger(self) -> Ledger:
        """What was spent."""
        from rag.tracing.ledger import Ledger

        return Ledger(self.engine)

    @shared_property
    def measures(self) -> Measures:
        """The counts of answers."""
        from rag.tracing.measures import Measures

        return Measures(self.engine)

    @shared_property
    def prices(self) -> PriceList:
        """The prices of tokens and seconds.

        Raises:
            SettingsError: The price list cannot be read.
        """
        from rag.tracing.cost import load_prices

        return load_prices(self._settings.cost)

    @shared_property
    def trace_queries(self) -> TraceQueries:
        """Lists of traces."""
        from rag.tracing.trace_query import TraceQueries

        return TraceQueries(self.engine, self.traces)

    @shared_property
    def trace_series(self) -> TraceSeries:
        """Figures of traces over time."""
        from rag.tracing.trace_series import TraceSeries

        return TraceSeries(self.engine)

    @shared_property
    def saved_filters(self) -> SavedFilters:
        """The filters of traces that were saved."""
        from rag.tracing.saved_filters import SavedFilters

        return SavedFilters(self.engine)

    @shared_property
    def alerts(self) -> AlertStore:
        """The alerts."""
        from rag.alerting.alert_store import AlertStore

        return AlertStore(self.engine)

    @shared_property
    def notices(self) -> NoticeQueue:
        """The notices of alerts."""
        from rag.alerting.alert_notices import NoticeQueue

        return NoticeQueue(self.engine)

    @shared_property
    def conversations(self) -> ConversationStore:
        """The conversations of the chat page."""
        from rag.answering.conversation_store import ConversationStore

        return ConversationStore(self.engine, self.masker)

    @shared_property
    def releases(self) -> ReleaseStore:
        """The releases that have answered."""
        from rag.answering.release_store import ReleaseStore

        return ReleaseStore(self.engine)

    @shared_property
    def prompts(self) -> PromptLibrary:
        """The prompts of the workspace, and the shipped ones."""
        from prompts import PromptLibrary

        return PromptLibrary(self.workspace.prompts)

    @shared_property
    def datasets(self) -> DatasetStore:
        """The evaluation datasets."""
        from rag.evaluation.dataset_store import DatasetStore

        return DatasetStore(self.engine)

    @shared_property
    def dataset_archive(self) -> DatasetArchive:
        """The archived evaluation datasets."""
        from rag.evaluation.dataset_archive import DatasetArchive

        return DatasetArchive(self.engine)

    @shared_property
    def candidates(self) -> CandidateStore:
        """The questions proposed for datasets."""
        from rag.evaluation.candidates import CandidateStore

        return CandidateStore(self.engine)

    def prompt(self, reference: str) -> PromptTemplate:
        """Find a prompt of the workspace, or a shipped one.

        Raises:
            PromptError: The prompt does not exist, or is malformed.
        """
        with prompt_errors("Correct the file, or the setting prompt."):
            return self.prompts.find(reference)

    def resolved(self, draft: PromptTemplate) -> PromptTemplate:
        """Return a draft with its includes replaced by their text.

        Raises:
            PromptError: An included prompt is missing, or does not match.
        """
        with prompt_errors("Correct the draft."):
            return draft.resolved(self.prompts.load)

    def corpus_names(self) -> list[str]:
        """Return the names of all corpora."""
        return [summary.name for summary in self.corpora.summaries()]

    def corpus_summaries(self) -> list[CorpusSummary]:
        """Return all corpora, sorted by name; this opens neither the encoder nor Chroma.

        Raises:
            EncoderError: The encoder of the settings is missing or altered.
        """
        from rag.indexing.corpora import corpus_summaries

        return corpus_summaries(self.engine, self._fingerprint)

    @shared_property
    def _fingerprint(self) -> str:
        """The fingerprint of the indexes, without opening the encoder."""
        from rag.encoders import locate_model
        from rag.indexing.corpora import fingerprint_of

        return fingerprint_of(locate_model(self._settings.encoder).sha256(), self._settings.chunking.tokens)

    def has_files(self, corpus: str) -> bool:
        """Whether a corpus exists and is not empty; this opens neither the encoder nor Chroma."""
        from sqlalchemy import select

        from rag import tables as db
        from rag.database import reading

        sources = db.sources.join(db.indexes).join(db.corpora)
        named = select(db.sources.c.id).select_from(sources).where(db.corpora.c.name == corpus)
        with reading(self.engine) as connection:
            return connection.execute(named.limit(1)).first() is not None

    def index(self, corpus: str = "") -> CorpusIndex:
        """Return the index of a corpus; empty for the one in the settings.

        Raises:
            CorpusError: The corpus does not exist.
        """
        return self.corpora.find(corpus or self._settings.corpus)

    def sources(self, corpus: str) -> list[CorpusSource]:
        """Return the files of a corpus, and those it could not read; this opens neither the encoder nor Chroma.

        Raises:
            CorpusError: There is no such corpus.
        """
        from rag.indexing.corpus_sources import corpus_sources

        return corpus_sources(self.engine, self._index_id(corpus))

    def source_page(self, corpus: str, limit: int) -> SourcePage:
        """Return the first files of a corpus by name, and their total number; see ``sources``.

        Raises:
            CorpusError: There is no such corpus.
        """
        from rag.indexing.corpus_sources import source_page

        return source_page(self.engine, self._index_id(corpus), limit)

    def _index_id(self, corpus: str) -> int:
        from rag.indexing.corpora import index_id_of

        return index_id_of(self.engine, corpus, self._fingerprint)

    def check_filters(self, corpus: str, filters: Filters) -> None:
        """Refuse filters that keep no document of a corpus.

        Raises:
            FilterError: No document matches them.
            CorpusError: There is no such corpus.
        """
        from rag.database import reading
        from rag.errors import FilterError
        from rag.retrieval.filters import field_names, matching_texts

        with reading(self.engine) as connection:
            index_id = self._index_id(corpus)
            if not matching_texts(connection, index_id, filters):
                names = ", ".join(dict.fromkeys(("title", "name", "date", *field_names(connection, index_id))))
                raise FilterError(
                    f"No document of the corpus {corpus} matches the filters.",
                    fix=f"A filter is the name of a source, or FIELD=VALUE with one of these fields: {names}.",
                )

    def forget(self, corpus: str, sources: Sequence[CorpusSource]) -> None:
        """Remove files from a corpus.

        Those that are stored in the workspace, uploads and pages of the web, are deleted; all others stay.

        Raises:
            WorkspaceBusy: Another process is ingesting.
            StoreError: A store refuses.
        """
        from rag.indexing.corpus_sources import forget_sources
        from ui.app.upload_folder import delete_stored

        with self.workspace.writing(f"forget files of {corpus}"):
            forget_sources(self.corpora.ensure(corpus), sources)
            delete_stored(self.workspace, [source.path for source in sources])

    def ingest(
        self,
        corpus: str,
        paths: Sequence[Path],
        on_progress: Callable[[IngestProgress], None] = lambda _: None,
        stop: threading.Event | None = None,
        addresses: Sequence[str] = (),
    ) -> IngestReport:
        """Add files, folders and pages of the web to a corpus; see ``rag.indexing.ingestion.ingest``.

        Args:
            addresses: Addresses of pages, which are fetched first and stored in the workspace.

        Raises:
            LoadError: A path does not exist, or a page cannot be fetched.
            WorkspaceBusy: Another process is ingesting.
        """
        from rag.documents.loaders.isolated import IsolatedLoader, ParseLimits
        from rag.indexing.ingestion import ingest

        limits = ParseLimits.of(self._settings.ingest)
        # Before the lock: others need not wait for a slow server.
        stop = stop or threading.Event()
        pages = self._fetch(corpus, addresses, stop)
        # The loader's process starts while the stores open.
        with (
            self.workspace.writing(f"ingest into {corpus}"),
            IsolatedLoader(limits) as loader,
            self._embedding_into(corpus) as index,
        ):
            report = ingest(index, [*paths, *pages], loader, on_progress=on_progress, stop=stop, pages=pages)
            if not (report.added or report.stopped or self.has_files(corpus)):
                self.corpora.remove(corpus)
            return report

    @contextmanager
    def _embedding_into(self, corpus: str) -> Iterator[CorpusIndex]:
        """Open the index of a corpus; however its use ends, the ledger gets what embedding has cost."""
        from rag.tracing.ledger import Expense

        index = self.corpora.ensure(corpus)
        before = index.embedding_s
        try:
            yield index
        finally:
            if seconds := index.embedding_s - before:
                cost, day = self.prices.seconds_usd(seconds), self.prices.checked.isoformat()
                model = self._settings.encoder.model
                self.ledger.add(Expense("ingestion", corpus, "embed", model, day, cost, seconds))

    def _fetch(self, corpus: str, addresses: Sequence[str], stop: threading.Event) -> dict[Path, str]:
        """Fetch and store pages; return their addresses by path, none of them after a stop."""
        if not addresses:
            return {}
        from rag.documents.fetching import fetch_pages
        from ui.app.upload_folder import UploadFolder

        folder = UploadFolder(self.workspace, corpus)
        # All of them first: a wrong address adds nothing.
        pages = fetch_pages(addresses, self._settings.ingest, stop)
        return {folder.keep_page(page): page.address for page in pages}

    def ensure_sample(self, on_progress: Callable[[IngestProgress], None] = lambda _: None) -> None:
        """Add the handbook as the sample corpus, or bring it up to date with its pages."""
        pages = sample_pages()
        if pages is not None:
            self.ingest(SAMPLE_CORPUS, [pages], on_progress)

    def close(self) -> None:
        """Close what was opened, and unload the encoder and the indexes."""
        self._closing.close()
        # Parts of an app refer to each other: left in place, they wait for the garbage collector.
        for name in ("encoder", "corpora", "chroma"):
            vars(self).pop(name, None)


def sample_pages() -> Path | None:
    """Return the handbook's folder, beside the packages; None if it was left out."""
    pages = _HANDBOOK / "pages"
    return pages if pages.is_dir() else None


def sample_questions() -> Path | None:
    """Return the file with the handbook's questions; None if it was left out."""
    questions = _HANDBOOK / "questions.jsonl"
    return questions if questions.is_file() else None
