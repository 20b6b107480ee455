"""Puts the parts together: the one place that knows which part needs which."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rag.answering.assistant import Ask, Assistant, Pipeline
from rag.answering.release import Release
from rag.errors import PromptError, RagsmithError
from rag.redaction import redact
from rag.settings import Settings
from rag.types import Event
from rag.workspace import Workspace, open_workspace
from ui.app.shared_property import shared_property

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from prompts import PromptLibrary, PromptTemplate
    from rag.answering.answer_gate import AnswerGate
    from rag.answering.conversation_store import ConversationStore
    from rag.encoders import Encoder
    from rag.evaluation.variants import Variant
    from rag.indexing.corpora import Corpora, StoredDocument
    from rag.indexing.corpus_index import CorpusIndex
    from rag.indexing.dense_index import ChromaStore
    from rag.indexing.ingestion import IngestProgress, IngestReport
    from rag.indexing.lexical_index import LexicalIndex
    from rag.models.extractive.span_reader import SpanReader
    from rag.models.generator.generator_decoding import Generator
    from rag.retrieval.reranking import Reranker
    from rag.retrieval.retriever import Retriever
    from rag.tracing.cost import PriceList
    from rag.tracing.trace_store import TraceStore
    from rag.tracing.wandb_tracker import Tracker
    from ui.app.evaluations import Evaluations
    from ui.app.models import Models

_log = logging.getLogger(__name__)
SAMPLE_CORPUS = "handbook"
CLOSING_S = 10.0
# Ways to answer that are kept ready.
PIPELINES = 32


@dataclass(frozen=True, slots=True)
class Health:
    """The strip at the top of the page: each part, whether it works, and what to do where it does not."""

    model: str
    model_ok: bool
    index: str
    index_ok: bool
    wandb: str
    wandb_ok: bool
    notices: tuple[str, ...] = ()


class Way(NamedTuple):
    """What holds for a way to answer.

    Attributes:
        settings: Of the process, as the prompt and the variant change them.
        prompt: The version that answers.
    """

    settings: Settings
    prompt: PromptTemplate


class Prompts(NamedTuple):
    """The prompts of a chain, as their labels point now."""

    answer: PromptTemplate
    condense: PromptTemplate
    repair: PromptTemplate


class _Made(NamedTuple):
    """What a chain was made of: while it is the same, so is the chain."""

    settings: Settings
    prompts: Prompts
    fingerprint: str


class Workbench:
    """Everything that one process needs, each part made when it is first asked for."""

    def __init__(self, settings: Settings) -> None:
        from rag.models.chat_models import check_model_name

        check_model_name(settings.model)
        self.settings = settings
        self.workspace: Workspace = open_workspace(settings.home)
        self._pipelines: dict[tuple[str, str], tuple[_Made, Pipeline]] = {}
        self._retrievers: dict[int, Retriever] = {}
        self.lock = threading.RLock()
        self._tracker: Tracker | None = None

    @shared_property
    def engine(self) -> Engine:
        """The database."""
        from rag.database import open_database

        url = self.settings.database_url
        return open_database(self.workspace, url.get_secret_value() if url else None)

    @shared_property
    def encoder(self) -> Encoder:
        """The encoder; the first time on a machine it is converted, which takes some ten seconds."""
        from rag.encoders import open_encoder

        return open_encoder(self.settings.encoder, self.workspace)

    @shared_property
    def chroma(self) -> ChromaStore:
        """The vectors."""
        from rag.indexing.dense_index import ChromaStore

        return ChromaStore(self.workspace, self.settings.chroma_url)

    @shared_property
    def stores(self) -> Corpora:
        """The corpora and their indexes."""
        # Both bring numpy in, whose modules import each other: two threads at once may meet half of one.
        import numpy.typing  # noqa: F401

        from rag.indexing.corpora import Corpora

        chroma = self.chroma
        # Chroma and the encoder take about half a second each, and neither waits for the other.
        with ThreadPoolExecutor(1, thread_name_prefix="chroma") as side:
            side.submit(lambda: chroma.client)
            encoder = self.encoder
        return Corpora(self.workspace, self.engine, encoder, self.settings.chunking.tokens, chroma)

    @shared_property
    def models(self) -> Models:
        """The models that were opened."""
        from ui.app.models import Models

        return Models(self.workspace, self.settings.encoder, lambda: self.encoder)

    @property
    def span_reader(self) -> SpanReader | None:
        """The tuned reader; see ``ui.app.models.Models.reader``."""
        return self.models.reader(self.settings.reader.adapter)

    @property
    def generator(self) -> Generator:
        """The small generator; see ``ui.app.models.Models.generator``."""
        return self.models.generator(self.settings.generator.adapter)

    @property
    def reranker(self) -> Reranker:
        """The reranker of the settings; see ``ui.app.models.Models.reranker``."""
        retrieval = self.settings.retrieval
        return self.models.reranker(retrieval.reranker, retrieval.rerank_depth)

    @shared_property
    def traces(self) -> TraceStore:
        """The traces; what an earlier process left running is marked as interrupted."""
        from rag.tracing.trace_store import TraceStore

        store = TraceStore(self.engine)
        store.recover()
        return store

    @shared_property
    def conversations(self) -> ConversationStore:
        """The conversations of the chat page."""
        from rag.answering.conversation_store import ConversationStore

        return ConversationStore(self.engine)

    @property
    def tracker(self) -> Tracker:
        """The W&B run of this process."""
        from rag.tracing.wandb_tracker import open_tracker

        with self.lock:
            if self._tracker is None:
                told = {"model": self.settings.model, "encoder": self.settings.encoder.model}
                self._tracker = open_tracker(self.settings.tracking, self.workspace, self.traces, told)
            return self._tracker

    @property
    def assistant(self) -> Assistant:
        """Answers questions."""
        return self.assistant_for()

    def assistant_for(self, variant: Variant | None = None) -> Assistant:
        """Answers questions in the way of a variant; None is the way of the settings."""
        return self.assistant_of(lambda corpus: self.pipeline(corpus, variant))

    def assistant_of(self, pipeline: Callable[[str], Pipeline]) -> Assistant:
        """Answers questions by the pipeline that is given for a corpus, traced and reckoned as all are."""
        limit = self.settings.limits.question_chars
        return Assistant(pipeline, self.traces, self.prices, lambda: self.tracker.wake(), limit)

    @shared_property
    def prices(self) -> PriceList:
        """What tokens and seconds cost."""
        from rag.tracing.cost import load_prices

        return load_prices(self.settings.cost)

    @shared_property
    def evaluations(self) -> Evaluations:
        """The evaluation runs."""
        from ui.app.evaluations import Evaluations

        return Evaluations(self)

    def corpora(self) -> list[str]:
        """The names of all corpora."""
        return [summary.name for summary in self.stores.summaries()]

    def has_files(self, corpus: str) -> bool:
        """Whether a corpus exists and is not empty: cheap, without the encoder and Chroma."""
        from sqlalchemy import select

        from rag import database as db

        held = db.files.join(db.indexes).join(db.corpora)
        named = select(db.files.c.id).select_from(held).where(db.corpora.c.name == corpus)
        with db.reading(self.engine) as connection:
            return connection.execute(named.limit(1)).first() is not None

    def index(self, corpus: str = "") -> CorpusIndex:
        """The index of a corpus; empty for the one in the settings.

        Raises:
            CorpusError: There is none.
        """
        return self.stores.find(corpus or self.settings.corpus)

    def retriever(self, corpus: str = "") -> Retriever:
        """Searches a corpus.

        Raises:
            CorpusError: There is none.
        """
        from rag.retrieval.retriever import Retriever

        with self.lock:
            if not self._retrievers:
                self._compile_beside_chroma()
            index = self.index(corpus)
            if index.id not in self._retrievers:
                limit = self.settings.limits.question_chars
                self._retrievers[index.id] = Retriever(index, self.settings.retrieval, self.reranker, limit)
            return self._retrievers[index.id]

    def _compile_beside_chroma(self) -> None:
        """Compile the encoder's form for questions, which an ingestion never needs, while Chroma opens."""
        with ThreadPoolExecutor(1, thread_name_prefix="encoder") as side:
            side.submit(self.encoder.embed, ["ready"])
            _ = self.stores

    @shared_property
    def prompts(self) -> PromptLibrary:
        """The prompts of the workspace, and those that ship."""
        from prompts import PromptLibrary

        return PromptLibrary(self.workspace.prompts)

    def prompt(self, reference: str) -> PromptTemplate:
        """A prompt of the workspace, or one that ships.

        Raises:
            PromptError: There is none, or it is malformed.
        """
        from prompts import PromptTemplateError

        try:
            return self.prompts.find(reference)
        except PromptTemplateError as error:
            raise PromptError(str(error), fix="Correct the file, or the setting prompt.") from error

    def way(self, variant: Variant | None = None) -> Way:
        """A way to answer, with its prompt: the settings, what the prompt wants, and the variant's own changes.

        Raises:
            PromptError: Its prompt is missing or malformed.
            SettingsError: It changes what it cannot change, or to what is out of range.
        """
        from rag.evaluation.variants import with_changes, with_prompt

        changes = variant.changes if variant else {}
        named = with_changes(self.settings, changes)
        prompt = self.prompt(named.prompt)
        return Way(with_changes(with_prompt(named, prompt.settings), changes), prompt)

    def release(self, corpus: str = "", variant: Variant | None = None) -> Release:
        """What answers questions about a corpus."""
        return self.pipeline(corpus, variant).release

    def pipeline(self, corpus: str = "", variant: Variant | None = None) -> Pipeline:
        """The chain of a corpus, made at the first question.

        Raises:
            RagsmithError: A part of it is missing.
        """
        name = corpus or self.settings.corpus
        with self.lock:
            retriever = self.retriever(name)
            # A label may have been moved since, here or by another process.
            way = self.way(variant)
            prompts = Prompts(way.prompt, self.prompt("condense"), self.prompt("repair-json"))
            made = _Made(way.settings, prompts, self.stores.fingerprint)
            key = (name, json.dumps(variant.changes, sort_keys=True) if variant else "")
            known, pipeline = self._pipelines.pop(key, (None, None))
            if pipeline is None or known != made:
                pipeline = self._make_pipeline(name, retriever, made)
            # The one that was used last stands last, and the first ones go.
            self._pipelines[key] = (made, pipeline)
            while len(self._pipelines) > PIPELINES:
                del self._pipelines[next(iter(self._pipelines))]
            return pipeline

    def _make_pipeline(self, corpus: str, retriever: Retriever, made: _Made) -> Pipeline:
        from rag.answering.chain import build_chain
        from rag.answering.steps import Steps
        from rag.models.decoding_support import unsupported
        from rag.models.structured_output import check_schema

        settings, prompts = made.settings, made.prompts
        retrieval = settings.retrieval
        reranker = self.models.reranker(retrieval.reranker, retrieval.rerank_depth)
        rewrites = retrieval.condenser == "generator"
        release = Release(
            corpus=corpus,
            fingerprint=made.fingerprint,
            prompt=prompts.answer.label,
            prompt_sha256=prompts.answer.sha256,
            model=settings.model,
            retrieval=retrieval,
            decoding=settings.decoding,
            answer=settings.answer,
            grounding=settings.grounding,
            adapter=self.models.adapter(settings),
            reranker=reranker.identity,
            condenser=self.models.generator(settings.generator.adapter).adapter.identity if rewrites else "",
        )
        if settings.decoding.json_schema is not None:
            check_schema(settings.decoding.json_schema)

        def lexical() -> LexicalIndex:
            return self.index(corpus).lexical

        steps = Steps(
            release=release,
            retriever=retriever.using(retrieval, reranker),
            encoder=self.encoder,
            model=self.models.chat_model(settings, lexical),
            condenser=self.models.condenser(settings, lexical),
            answer_prompt=prompts.answer,
            condense_prompt=prompts.condense,
            repair_prompt=prompts.repair,
            unsupported=unsupported(settings),
        )
        return Pipeline(release, build_chain(steps))

    @shared_property
    def gate(self) -> AnswerGate:
        """How many answers are written at the same time."""
        from rag.answering.answer_gate import AnswerGate

        limits = self.settings.limits
        return AnswerGate(limits.answers_at_once, limits.answers_waiting)

    def ask(self, request: Ask) -> AsyncIterator[Event]:
        """Answer a question when its turn has come; see ``rag.answering.assistant.Assistant.answer``.

        Raises:
            Busy: Too many questions wait already.
        """
        return self.gate.admit(self.assistant.answer(request))

    def ingest(
        self,
        corpus: str,
        paths: Sequence[Path],
        on_progress: Callable[[IngestProgress], None] = lambda _: None,
        stop: threading.Event | None = None,
    ) -> IngestReport:
        """Bring files and folders into a corpus; see ``rag.indexing.ingestion.ingest``.

        Raises:
            WorkspaceBusy: Another process is ingesting.
        """
        from rag.documents.loaders.isolated import IsolatedLoader, ParseLimits
        from rag.indexing.ingestion import ingest

        limits = ParseLimits.of(self.settings.ingest)
        # The loader's process starts while the stores are opened.
        with self.workspace.writing(f"ingest into {corpus}"), IsolatedLoader(limits) as loader:
            return ingest(self.stores.ensure(corpus), paths, loader, on_progress=on_progress, stop=stop)

    def ensure_sample(self, on_progress: Callable[[IngestProgress], None] = lambda _: None) -> None:
        """Have the handbook as a corpus: made when missing, brought up to date when its pages changed."""
        pages = sample_pages()
        if pages is not None:
            self.ingest(SAMPLE_CORPUS, [pages], on_progress)

    def document(self, document_id: int) -> StoredDocument:
        """A stored text.

        Raises:
            CorpusError: It is not there, or not any more.
        """
        return self.stores.document(document_id)

    def warm(self) -> None:
        """Load what the first question needs, and bring the sample up to date where it is there.

        A failure is left to the first question, and to ``health``.
        """
        for part in (self._answer_once, self._refresh_sample):
            try:
                part()
            except RagsmithError as error:
                _log.warning("%s", error)

    def _answer_once(self) -> None:
        from rag.models.chat_models import EMBEDDED
        from rag.models.extractive.span_reader import ReadPassage

        self.pipeline()
        hits = self.retriever().search("warm up")
        if self.settings.model == EMBEDDED and self.span_reader and hits:
            self.span_reader.read("warm up", [ReadPassage(hit.passage.text) for hit in hits])

    def _refresh_sample(self) -> None:
        # It also repairs an index of the sample whose files are damaged, so that none can be opened.
        if self.has_files(SAMPLE_CORPUS):
            self.ensure_sample()

    def health(self) -> Health:
        """What works, and what does not."""
        notices: list[str] = []
        try:
            count = self.index().passage_count()
            index, index_ok = f"{self.settings.corpus}: {count:,} passages", count > 0
            model, model_ok = f"{self.settings.model} · {self.encoder.runtime}", True
            if self.encoder.notice:
                notices.append(self.encoder.notice)
            self.pipeline()
            index_ok = index_ok and self.index().state.ok
        except RagsmithError as error:
            index, index_ok = self.settings.corpus, False
            model, model_ok = self.settings.model, False
            notices.append(redact(str(error)))
        notices.extend(self._index_notices())
        tracked = self.tracker.status
        return Health(model, model_ok, index, index_ok, tracked.mode, tracked.mode != "failed", tuple(notices))

    def _index_notices(self) -> tuple[str, ...]:
        """What is damaged in the indexes that were opened."""
        return self.stores.notices() if "stores" in self.__dict__ else ()

    def close(self) -> None:
        """Deliver what waits for W&B, and let go of the local model and the stores."""
        if self._tracker is not None:
            self._tracker.close(CLOSING_S)
        if "models" in self.__dict__:
            self.models.close()
        for retriever in self._retrievers.values():
            retriever.close()
        if "chroma" in self.__dict__:
            self.chroma.close()
        if "engine" in self.__dict__:
            self.engine.dispose()


def sample_pages() -> Path | None:
    """The handbook's folder, beside the packages; None where it was left out."""
    pages = Path(__file__).parent.parent / "corpora" / "handbook" / "pages"
    return pages if pages.is_dir() else None
