"""The releases that answer questions, and their chains, which are reused between questions."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rag.answering.answer_gate import Gate, OpenGate
from rag.answering.assistant import Assistant, Pipeline
from rag.answering.release import Release
from rag.settings import RetrievalSettings, Settings
from ui.app.shared_property import shared_property

if TYPE_CHECKING:
    from prompts import PromptTemplate
    from prompts.draft import PromptDraft
    from rag.answering.answer_gate import AnswerGate
    from rag.evaluation.variants import Variant
    from rag.indexing.lexical_index import LexicalIndex
    from rag.retrieval.retriever import Retriever
    from rag.tracing.budget import Budget
    from rag.tracing.trace_store import Trace
    from ui.app.models import Models
    from ui.app.stores import Stores

PIPELINES = 32
"""The number of cached pipelines."""


@dataclass(frozen=True, slots=True)
class ResolvedSettings:
    """The settings and the prompt of a variant.

    Attributes:
        settings: The settings of the process with the changes of the prompt and the variant.
        prompt: The prompt version that answers, or the draft.
    """

    settings: Settings
    prompt: PromptTemplate


@dataclass(frozen=True, slots=True)
class ChainPrompts:
    """The prompts of a chain, in the versions that their labels name now."""

    answer: PromptTemplate
    condense: PromptTemplate
    repair: PromptTemplate


@dataclass(frozen=True, slots=True)
class _Ingredients:
    """The parts that a pipeline was built from; the pipeline is valid while they stay equal."""

    settings: Settings
    prompts: ChainPrompts
    fingerprint: str


class Releases:
    """Builds the assistants that answer questions; safe to use from several threads.

    Args:
        settings: The settings of the process, which variants change.
        stores: The stores with corpora, prompts and traces.
        models: The open models.
        on_traced: Called after a trace is written.
    """

    def __init__(
        self,
        settings: Settings,
        stores: Stores,
        models: Models,
        on_traced: Callable[[Trace | None], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._stores = stores
        self._models = models
        self._on_traced = on_traced
        self._pipelines: dict[tuple[str, str, str], tuple[_Ingredients, Pipeline]] = {}
        self._retrievers: dict[int, Retriever] = {}
        self.lock = threading.RLock()

    @shared_property
    def gate(self) -> AnswerGate:
        """The gate that limits concurrent answers."""
        from rag.answering.answer_gate import AnswerGate

        limits = self._settings.limits
        return AnswerGate(limits.answers_at_once, limits.answers_waiting)

    @shared_property
    def budget(self) -> Budget:
        """What may be spent on answers."""
        from rag.tracing.budget import open_budget

        return open_budget(self._stores.ledger, self._settings.cost)

    @property
    def model(self) -> str:
        """The model that answers with the settings of the process."""
        return self._models.answering(self._settings).model

    def assistant(
        self, variant: Variant | None = None, *, gate: Gate | None = None, draft: PromptDraft | None = None
    ) -> Assistant:
        """Return an assistant whose answers are traced and priced.

        Args:
            variant: Changes to the settings; None for none.
            gate: Limits concurrent answers; None for no limit.
            draft: An unsaved prompt in place of the one that the settings name.
        """
        return Assistant(
            lambda corpus: self.pipeline(corpus, variant, draft),
            self._stores.traces,
            self._stores.prices,
            self._on_traced,
            self._settings.limits.question_chars,
            gate or OpenGate(),
            self.budget,
        )

    def resolve(self, variant: Variant | None = None, draft: PromptDraft | None = None) -> ResolvedSettings:
        """Apply the settings of the prompt, then the variant's own changes, and replace a missing ``smollm2``.

        Args:
            variant: Changes to the settings; None for none.
            draft: An unsaved prompt in place of the one that the settings name.

        Raises:
            PromptError: The prompt is missing or malformed.
            SettingsError: The variant changes a fixed setting, or a value is out of range.
        """
        from rag.evaluation.variants import with_changes, with_prompt

        changes = variant.changes if variant else {}
        named = with_changes(self._settings, changes)
        prompt = self._stores.resolved(draft) if draft else self._stores.prompt(named.answer_prompt)
        wanted = with_changes(with_prompt(named, prompt.settings), changes)
        return ResolvedSettings(self._models.answering(wanted), prompt)

    def retriever(self, corpus: str = "", retrieval: RetrievalSettings | None = None) -> Retriever:
        """Return the retriever of a corpus.

        Args:
            corpus: The name of the corpus; empty for the one in the settings.
            retrieval: The settings of the search; by default those of the process.

        Raises:
            CorpusError: The corpus does not exist.
        """
        from rag.retrieval.retriever import Retriever

        with self.lock:
            if not self._retrievers:
                self._compile_beside_chroma()
            index = self._stores.index(corpus)
            if index.id not in self._retrievers:
                settings = self._settings
                reranker = self._models.reranker(settings.retrieval)
                limit = settings.limits.question_chars
                self._retrievers[index.id] = Retriever(index, settings.retrieval, reranker, limit)
            retriever = self._retrievers[index.id]
        return retriever.using(retrieval, self._models.reranker(retrieval)) if retrieval else retriever

    def _compile_beside_chroma(self) -> None:
        """Compile the encoder for questions, which ingestion does not need, while Chroma opens."""
        with ThreadPoolExecutor(1, thread_name_prefix="encoder") as side:
            side.submit(self._stores.encoder.embed, ["ready"])
            _ = self._stores.corpora

    def pipeline(
        self, corpus: str = "", variant: Variant | None = None, draft: PromptDraft | None = None
    ) -> Pipeline:
        """Return the release of a corpus with its chain, which is built at the first question.

        The release is stored then, so that its traces can be replayed.

        Raises:
            RagsmithError: A part of the release is missing.
        """
        name = corpus or self._settings.corpus
        with self.lock:
            # A missing corpus is the first problem to report.
            self.retriever(name)
            # A label may have been moved since the last question, here or by another process.
            resolved = self.resolve(variant, draft)
            find = self._stores.prompt
            prompts = ChainPrompts(resolved.prompt, find("condense"), find("repair-json"))
            ingredients = _Ingredients(resolved.settings, prompts, self._stores.corpora.fingerprint)
            changes = json.dumps(variant.changes, sort_keys=True) if variant else ""
            key = (name, changes, draft.sha256 if draft else "")
            known, pipeline = self._pipelines.pop(key, (None, None))
            if pipeline is None or known != ingredients:
                pipeline = self._build(name, ingredients)
                self.keep(pipeline.release, draft)
            # The dictionary is in order of last use, and the oldest entries are dropped.
            self._pipelines[key] = (ingredients, pipeline)
            while len(self._pipelines) > PIPELINES:
                del self._pipelines[next(iter(self._pipelines))]
            return pipeline

    def keep(self, release: Release, draft: PromptDraft | None = None) -> None:
        """Store a release that is about to answer, with its prompt if that is a draft."""
        self._stores.releases.keep(release, draft.text if draft else "")

    def _build(self, corpus: str, ingredients: _Ingredients) -> Pipeline:
        from rag.answering.chain import build_chain
        from rag.answering.steps import Steps
        from rag.models.decoding_support import unsupported
        from rag.models.structured_output import check_schema

        settings, prompts, models = ingredients.settings, ingredients.prompts, self._models
        if settings.decoding.json_schema is not None:
            check_schema(settings.decoding.json_schema)

        def lexical() -> LexicalIndex:
            return self._stores.index(corpus).lexical

        release = self._release(corpus, ingredients)
        # A model that writes from sentences needs them found first.
        ranking = models.ranking(settings, lexical()) if "evidence" in prompts.answer.variables else None
        steps = Steps(
            release=release,
            retriever=self.retriever(corpus, settings.retrieval),
            encoder=self._stores.encoder,
            model=models.chat_model(settings, lexical),
            condenser=models.condenser(settings, lexical),
            answer_prompt=prompts.answer,
            condense_prompt=prompts.condense,
            repair_prompt=prompts.repair,
            ranking=ranking,
            min_confidence=models.min_confidence(settings, ranking) if ranking else 0.0,
            unsupported=unsupported(settings, reads_first=ranking is not None),
        )
        return Pipeline(release, build_chain(steps))

    def _release(self, corpus: str, ingredients: _Ingredients) -> Release:
        settings, models = ingredients.settings, self._models
        return replace(
            Release.of(settings, ingredients.prompts.answer),
            corpus=corpus,
            fingerprint=ingredients.fingerprint,
            adapter=models.adapter(settings),
            reranker=models.reranker(settings.retrieval).identity,
            condenser=models.condenser_adapter(settings),
        )

    def close(self) -> None:
        """Drop the chains, and end the threads of the retrievers."""
        for retriever in self._retrievers.values():
            retriever.close()
        self._retrievers.clear()
        self._pipelines.clear()
